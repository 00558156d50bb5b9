"""Figure: what a step spends its time on under every policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch

from experiments.figures.runs.panels import (
    ERROR_BAR,
    at,
    fit,
    legend_above,
    means,
    panels,
    whiskers,
)
from experiments.figures.style import FAINT, INK, policy_styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from experiments.figures.venue import Venue

# Wong, Nature Methods 8, 441, 2011; they differ in lightness, too.
PARTS = {
    "compute_s": ("computes", "#0072B2", ""),
    "exposed_transfer_s": ("sends or receives, idle", "#E69F00", "//////"),
    "waiting_s": ("waits for others", "#F0F0F0", ""),
}
_SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6}


def figure(runs: pd.DataFrame, *, venue: Venue) -> Figure:
    """Draw the parts of a step side by side: means over GPUs, which add up to the step.

    Parameters
    ----------
    runs
        Labelled runs; read are compute_s, exposed_transfer_s, waiting_s and step_s.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If a column or a number is missing, or there are too many panels.
    """
    rows = fit(runs, "runs", [*PARTS, "step_s"])
    names = list(policy_styles(rows["series"]))
    total = means(rows, "step_s")
    parts = {name: means(rows, name) for name in PARTS}
    longest = total["mean"].max()
    unit = next((unit for unit, scale in _SCALES.items() if scale * longest >= 1), "us")
    with venue.context():
        drawn, axes = panels(rows, venue, row_in=0.3 + 0.17 * len(names), sharey=True)
        for place, ax in axes.items():
            own = {name: at(table, place) for name, table in parts.items()}
            _draw_panel(ax, own, at(total, place), names, _SCALES[unit])
        drawn.supxlabel(f"time of a step, mean over GPUs, {unit}", fontsize=venue.size)
        handles = [
            Patch(facecolor=colour, hatch=hatch, edgecolor=INK, linewidth=0.4, label=label)
            for label, colour, hatch in PARTS.values()
        ]
        legend_above(drawn, handles)
    return drawn


def _draw_panel(
    ax: Axes,
    parts: dict[str, pd.DataFrame],
    total: pd.DataFrame,
    names: list[str],
    scale: float,
) -> None:
    y = total["series"].map({name: at for at, name in enumerate(names)})
    left = np.zeros(len(total))
    for name, (_, colour, hatch) in PARTS.items():
        width = scale * parts[name]["mean"].to_numpy()
        ax.barh(
            y,
            width,
            left=left,
            height=0.66,
            color=colour,
            hatch=hatch,
            edgecolor=INK,
            linewidth=0.4,
        )
        left += width
    if (total["count"] > 1).any():
        ax.errorbar(scale * total["mean"], y, xerr=whiskers(total, scale), fmt="none", **ERROR_BAR)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_color(FAINT)
    ax.set_xlim(left=0)
    ax.grid(axis="x")
