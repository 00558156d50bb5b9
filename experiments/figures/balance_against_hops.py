"""Figure: what fewer hops cost in balance between servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.errors import FigureError
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
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


TABLE = "hops table"
FILLS = ("full", "none", "left", "top")
"""How markers are filled, one for each model."""


def figure(
    hops: pd.DataFrame, *, attention: str = "pipelined", network: str = "analytic"
) -> Figure:
    """Draw server balance over hops, a panel per cluster and a marker per policy and model.

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
        If the table lacks a column or a number, or has more models than there are fills.
    """
    cells = select(
        hops,
        TABLE,
        keys=CELL,
        numbers=("hops_per_token_layer", "balance_server"),
        where={"attention": attention, "network": network},
    )
    models, clusters = in_order(cells["model"], MODELS), in_order(cells["cluster"])
    if len(models) > len(FILLS):
        raise FigureError(f"{TABLE}: {len(models)} models; one figure tells {len(FILLS)} apart")
    fills = dict(zip(models, FILLS, strict=False))
    looks = policy_styles(cells["policy"])
    with paper_style():
        drawn = Figure(figsize=(TWO_COLUMNS_IN, 2.5))
        axes = drawn.subplots(1, len(clusters), sharex=True, sharey=True, squeeze=False)[0]
        for ax, cluster in zip(axes, clusters, strict=True):
            _draw_panel(ax, cells[cells["cluster"] == cluster], looks, fills)
            ax.set_title(cluster, loc="left")
        axes[0].set_ylim(bottom=1)
        axes[0].set_ylabel("load of the busiest server / mean\n(mean over layers)")
        drawn.supxlabel(HOPS_AXIS.replace("\n", " "), fontsize=7)
        columns = columns_across([*looks, *models])
        legend(
            drawn, _handles(looks, fills, columns), columns=columns, place="outside upper center"
        )
    return drawn


def _draw_panel(
    ax: Axes, cells: pd.DataFrame, looks: dict[str, PolicyStyle], fills: dict[str, str]
) -> None:
    for model, fill in fills.items():
        for policy, look in looks.items():
            own = cells[(cells["model"] == model) & (cells["policy"] == policy)]
            ax.plot(own["hops_per_token_layer"], own["balance_server"], **_point(look, fill))
    ax.margins(0.09)
    ax.grid()


def _point(look: PolicyStyle, fill: str) -> dict[str, Any]:
    return {
        "clip_on": False,
        "color": look.colour,
        "fillstyle": fill,
        "linestyle": "none",
        "marker": look.marker,
        "markeredgecolor": INK if fill != "none" else look.colour,
        "markeredgewidth": 0.4 if fill != "none" else 1.1,
        "markerfacecoloralt": "white",
        "markersize": 5,
        "zorder": 3,
    }


def _handles(looks: dict[str, PolicyStyle], fills: dict[str, str], columns: int) -> list[Artist]:
    """Return full rows of policies, the last filled up with blanks, and then the models."""
    neutral = PolicyStyle(INK, "o", "")
    return [
        *(Line2D([], [], **_point(look, "full"), label=policy) for policy, look in looks.items()),
        *(Line2D([], [], linestyle="none", label=" ") for _ in range(-len(looks) % columns)),
        *(Line2D([], [], **_point(neutral, fill), label=name) for name, fill in fills.items()),
    ]
