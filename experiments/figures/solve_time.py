"""Figure: how long every policy takes to place the experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.errors import FigureError
from experiments.figures.frames import CELL, in_order, select
from experiments.figures.style import (
    FAINT,
    INK,
    MODELS,
    ONE_COLUMN_IN,
    legend,
    paper_style,
    policy_styles,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from experiments.figures.style import PolicyStyle

TABLE = "solve table"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Shapes of the clusters' points, in the order the table has them."""
SHORTEST_S = 1e-4
"""Shorter times are drawn here: nobody waits for them, and a logarithm has no zero."""
PROVEN = "optimal"
"""The status of a placement proven best on its own cost; its points are filled."""
_ROW = 0.84


def figure(solves: pd.DataFrame, *, attention: str = "pipelined") -> Figure:
    """Draw the seconds of every solve on a logarithmic axis: a panel per model, a row per policy.

    Where a cell was solved more than once, its median is drawn.

    Parameters
    ----------
    solves
        The table of solves; read are model, cluster, policy, attention, status and seconds.
    attention
        Which solves to draw.

    Raises
    ------
    FigureError
        If the table lacks a column or a number, or has more clusters than there are markers.
    """
    rows = select(
        solves,
        TABLE,
        keys=(),
        numbers=("seconds",),
        columns=(*CELL, "status"),
        where={"attention": attention},
    )
    clusters = in_order(rows["cluster"])
    if len(clusters) > len(MARKERS):
        raise FigureError(
            f"{TABLE}: {len(clusters)} clusters; one figure tells {len(MARKERS)} apart"
        )
    models, looks = in_order(rows["model"], MODELS), policy_styles(rows["policy"])
    medians = rows.groupby([*CELL, "status"], as_index=False, sort=False)["seconds"].median()
    cells = medians.assign(
        seconds=medians["seconds"].clip(lower=SHORTEST_S),
        y=medians["policy"].map({policy: y for y, policy in enumerate(looks)}),
    )
    with paper_style():
        height = 0.95 + len(models) * (0.25 + 0.17 * len(looks))
        drawn = Figure(figsize=(ONE_COLUMN_IN, height))
        axes = drawn.subplots(len(models), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for ax, model in zip(axes, models, strict=True):
            _draw_panel(ax, cells[cells["model"] == model], looks, clusters)
            ax.set_title(model, loc="left", fontweight="bold")
        _label_seconds(axes[-1], medians["seconds"])
        legend(drawn, _handles(clusters), columns=2, place="outside upper center")
    return drawn


def _draw_panel(
    ax: Axes, cells: pd.DataFrame, looks: dict[str, PolicyStyle], clusters: list[str]
) -> None:
    """Draw a policy's clusters one below the other inside its row."""
    for i, (cluster, marker) in enumerate(zip(clusters, MARKERS, strict=False)):
        shift = _ROW * ((i + 0.5) / len(clusters) - 0.5)
        for policy, look in looks.items():
            own = cells[(cells["cluster"] == cluster) & (cells["policy"] == policy)]
            for proven in (False, True):
                points = own[(own["status"] == PROVEN) == proven]
                shape = _point(marker, look.colour, proven=proven)
                ax.plot(points["seconds"], points["y"] + shift, **shape)
    ax.set_xscale("log")
    ax.set_ylim(len(looks) - 0.45, -0.55)
    ax.set_yticks(range(len(looks)), list(looks))
    ax.set_yticks([y + 0.5 for y in range(len(looks) - 1)], minor=True)
    ax.tick_params(axis="y", which="both", length=0)
    ax.spines["left"].set_color(FAINT)
    ax.grid(axis="x")
    ax.grid(axis="y", which="minor")


def _label_seconds(ax: Axes, seconds: pd.Series[float]) -> None:
    """Label the decades from below the shortest time to above the longest."""
    low, high = np.log10(np.maximum([seconds.min(), seconds.max()], SHORTEST_S))
    first, last = int(np.floor(low)), max(int(np.ceil(high)), int(np.floor(low)) + 1)
    labels = [_duration(exponent) for exponent in range(first, last + 1)]
    if seconds.min() < SHORTEST_S:
        labels[0] = f"\N{LESS-THAN OR EQUAL TO} {labels[0]}"
    ax.set_xticks([10.0**exponent for exponent in range(first, last + 1)], labels)
    ax.set_xticks([], minor=True)
    ax.set_xlim(10 ** (first - 0.1), 10 ** (last + 0.1))
    ax.set_xlabel("wall time to place all experts")


def _duration(exponent: int) -> str:
    return f"{10**exponent} s" if exponent >= 0 else f"{10.0 ** (exponent + 3):g} ms"


def _point(marker: str, colour: str, *, proven: bool) -> dict[str, Any]:
    return {
        "color": colour,
        "linestyle": "none",
        "marker": marker,
        "markeredgewidth": 0.9,
        "markerfacecolor": colour if proven else "white",
        "markersize": 3.2,
    }


def _handles(clusters: list[str]) -> list[Artist]:
    shapes = zip(clusters, MARKERS, strict=False)
    return [
        *(
            Line2D([], [], **_point(marker, INK, proven=False), label=cluster)
            for cluster, marker in shapes
        ),
        *(Line2D([], [], linestyle="none", label=" ") for _ in range(len(clusters) % 2)),
        Line2D([], [], **_point("o", INK, proven=True), label="filled: proven optimal"),
        Line2D([], [], **_point("o", INK, proven=False), label="hollow: no such proof"),
    ]
