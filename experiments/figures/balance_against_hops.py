"""Figure: what fewer hops cost in balance between servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures.frames import CELL, in_order, select
from experiments.figures.style import (
    HOPS_AXIS,
    INK,
    MODELS,
    TWO_COLUMNS_IN,
    PolicyStyle,
    columns_across,
    legend,
    paper_style,
    policy_styles,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


TABLE = "hops table"
_BALANCE_AXIS = "load of the busiest server / mean\n(mean over layers)"


def figure(
    hops: pd.DataFrame, *, attention: str = "pipelined", network: str = "analytic"
) -> Figure:
    """Draw server balance over hops: a row per model, a panel per cluster, a marker per policy.

    Parameters
    ----------
    hops
        The table of cells; read are model, cluster, policy, attention, network,
        hops_per_token_layer and balance_server.
    attention, network
        Which cells to draw.

    Raises
    ------
    FigureError
        If the table lacks a column or a number.
    """
    cells = select(
        hops,
        TABLE,
        keys=CELL,
        numbers=("hops_per_token_layer", "balance_server"),
        where={"attention": attention, "network": network},
    )
    models, clusters = in_order(cells["model"], MODELS), in_order(cells["cluster"])
    looks = policy_styles(cells["policy"])
    with paper_style():
        drawn = Figure(figsize=(TWO_COLUMNS_IN, 0.9 + 1.45 * len(models)))
        axes = drawn.subplots(len(models), len(clusters), sharex="row", sharey="row", squeeze=False)
        for row, model in zip(axes, models, strict=True):
            for ax, cluster in zip(row, clusters, strict=True):
                own = cells[(cells["model"] == model) & (cells["cluster"] == cluster)]
                _draw_panel(ax, own, looks)
            row[0].set_ylim(bottom=1)
            row[0].set_ylabel(model, fontweight="bold")
        for ax, cluster in zip(axes[0], clusters, strict=True):
            ax.set_title(cluster, loc="left")
        drawn.supxlabel(HOPS_AXIS.replace("\n", " "), fontsize=7)
        drawn.supylabel(_BALANCE_AXIS, fontsize=7, linespacing=1.3, multialignment="center")
        handles = [Line2D([], [], **_point(look), label=name) for name, look in looks.items()]
        columns = columns_across(list(looks))
        legend(drawn, handles, columns=columns, place="outside upper center")
    return drawn


def _draw_panel(ax: Axes, cells: pd.DataFrame, looks: dict[str, PolicyStyle]) -> None:
    for policy, look in looks.items():
        own = cells[cells["policy"] == policy]
        ax.plot(own["hops_per_token_layer"], own["balance_server"], **_point(look))
    ax.margins(0.09)
    ax.grid()


def _point(look: PolicyStyle) -> dict[str, Any]:
    return {
        "clip_on": False,
        "color": look.colour,
        "linestyle": "none",
        "marker": look.marker,
        "markeredgecolor": INK,
        "markeredgewidth": 0.4,
        "markersize": 5,
        "zorder": 3,
    }
