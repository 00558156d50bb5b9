"""Figure: how long the network's links are busy under every policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from experiments.errors import FigureError
from experiments.figures.frames import CELL, in_order, select
from experiments.figures.style import (
    FAINT,
    HALO,
    INK,
    MODELS,
    TWO_COLUMNS_IN,
    legend,
    paper_style,
    policy_styles,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from experiments.figures.style import PolicyStyle

TABLE = "links table"
INSIDE_SERVER = "nvlink"
"""The class of links that are no part of the network."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SPAN: dict[str, Any] = {"color": INK, "linewidth": 0.7}
_BOX: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.4}
_MEDIAN: dict[str, Any] = {"color": INK, "marker": "|", "markersize": 7, "markeredgewidth": 1.3}
_BUSIEST: dict[str, Any] = {
    "marker": "o",
    "markersize": 3.6,
    "markeredgecolor": INK,
    "markeredgewidth": 0.5,
    "linestyle": "none",
}


def figure(
    links: pd.DataFrame, *, attention: str = "pipelined", network: str = "analytic"
) -> Figure:
    """Draw the spread of busy times over the network's links, by model, cluster and policy.

    A row per model, a column per cluster, a line per policy: quantiles over the directed links
    outside servers, and the busiest link, which no step can be shorter than.

    Parameters
    ----------
    links
        The table of links; read are model, cluster, policy, attention, network, link,
        link_class and busy_s.
    attention, network
        Which cells to draw.

    Raises
    ------
    FigureError
        If the table lacks a column, a number or a network link.
    """
    rows = select(
        links,
        TABLE,
        keys=(*CELL, "link"),
        numbers=("busy_s",),
        columns=("link_class",),
        where={"attention": attention, "network": network},
    )
    rows = rows[rows["link_class"] != INSIDE_SERVER]
    if rows.empty:
        raise FigureError(f"{TABLE}: every link is of class '{INSIDE_SERVER}'; expected others too")
    models, clusters = in_order(rows["model"], MODELS), in_order(rows["cluster"])
    looks = policy_styles(rows["policy"])
    with paper_style():
        size = (TWO_COLUMNS_IN, 0.7 + len(models) * (0.2 + 0.15 * len(looks)))
        drawn = Figure(figsize=size)
        axes = drawn.subplots(len(models), len(clusters), sharey=True, squeeze=False)
        for row, model in zip(axes, models, strict=True):
            for ax, cluster in zip(row, clusters, strict=True):
                own = rows[(rows["model"] == model) & (rows["cluster"] == cluster)]
                _draw_panel(ax, own, looks)
            row[0].set_ylabel(model, fontweight="bold")
        for ax, cluster in zip(axes[0], clusters, strict=True):
            ax.set_title(cluster, loc="left")
        drawn.supxlabel("busy time of a network link in a step, ms", fontsize=7)
        legend(drawn, _handles(), columns=4, place="outside upper center")
    return drawn


def _draw_panel(ax: Axes, rows: pd.DataFrame, looks: dict[str, PolicyStyle]) -> None:
    for y, (policy, look) in enumerate(looks.items()):
        busy_ms = 1e3 * rows.loc[rows["policy"] == policy, "busy_s"].to_numpy()
        if busy_ms.size:
            _draw_line(ax, y, busy_ms, look)
    ax.set_ylim(len(looks) - 0.4, -0.6)
    ax.set_yticks(range(len(looks)), list(looks))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_color(FAINT)
    ax.margins(x=0.06)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="x")


def _draw_line(ax: Axes, y: int, busy_ms: NDArray[np.float64], look: PolicyStyle) -> None:
    lowest, low, median, high, highest = np.quantile(busy_ms, _QUANTILES)
    ax.plot([lowest, highest], [y, y], **_SPAN)
    ax.barh(y, high - low, left=low, height=0.56, color=look.colour, **_BOX)
    ax.plot(median, y, **_MEDIAN, path_effects=HALO)
    ax.plot(busy_ms.max(), y, markerfacecolor=look.colour, **_BUSIEST)


def _handles() -> list[Artist]:
    return [
        Line2D([], [], **_SPAN, label="5 % to 95 % of the links"),
        Patch(facecolor=FAINT, **_BOX, label="25 % to 75 %"),
        Line2D([], [], linestyle="none", **_MEDIAN, label="median"),
        Line2D([], [], markerfacecolor=FAINT, **_BUSIEST, label="busiest link"),
    ]
