"""Figure: how evenly the links of the network are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from experiments.errors import FigureError
from experiments.figures.link_load import INSIDE_SERVER
from experiments.figures.runs.panels import at, fit, legend_above, panels
from experiments.figures.style import INK, policy_styles
from experiments.statistics import mean_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from experiments.figures.style import PolicyStyle
    from experiments.figures.venue import Venue

_LEVELS = np.linspace(0, 1, 101)
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.2)),
    (0, (1.2, 1)),
    (0, (5, 1, 1, 1)),
    (0, (7, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
"""Lines that print without colour, too."""


def figure(links: pd.DataFrame, *, venue: Venue) -> Figure:
    """Draw the cumulative distribution of link utilisation, a line per policy.

    Every run gives its quantiles over the directed links outside servers; the line is their mean
    over runs, the band its 95 % bootstrap interval.

    Parameters
    ----------
    links
        The labelled tables of links; read are run, link_class and utilisation.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If a column, a number or a network link is missing, or there are too many panels.
    """
    rows = fit(links, "links", ["utilisation"], ["run", "link_class"])
    rows = rows[rows["link_class"] != INSIDE_SERVER]
    if rows.empty:
        raise FigureError(f"links: every one is of class '{INSIDE_SERVER}'; expected others too")
    looks = policy_styles(rows["series"])
    with venue.context():
        drawn, axes = panels(rows, venue, row_in=1.45, sharey=True)
        for place, ax in axes.items():
            own = at(rows, place)
            for count, (series, look) in enumerate(looks.items()):
                _draw_line(ax, own[own["series"] == series], look, count)
            ax.set_xlim(left=0)
            ax.set_ylim(0, 1)
            ax.grid()
        drawn.supxlabel("share of the step that a network link is busy, %", fontsize=venue.size)
        drawn.supylabel("share of the links", fontsize=venue.size)
        handles = [
            Line2D([], [], color=look.colour, linestyle=_dash(count), linewidth=1.3, label=series)
            for count, (series, look) in enumerate(looks.items())
        ]
        legend_above(drawn, handles)
    return drawn


def _dash(count: int) -> Any:
    return _DASHES[count % len(_DASHES)]


def _draw_line(ax: Axes, rows: pd.DataFrame, look: PolicyStyle, count: int) -> None:
    quantiles = np.array(
        [
            np.quantile(100 * own, _LEVELS)
            for _, own in rows.groupby("run", sort=False)["utilisation"]
        ]
    )
    if not len(quantiles):
        return
    rng = np.random.default_rng(0)
    mean = quantiles.mean(axis=0)
    if len(quantiles) > 1:
        ends = [mean_interval(values, rng, resamples=2000) for values in quantiles.T]
        low, high = (np.array([getattr(each, end) for each in ends]) for end in ("low", "high"))
        ax.fill_betweenx(_LEVELS, low, high, color=look.colour, alpha=0.25, linewidth=0)
    ax.plot(mean, _LEVELS, color=look.colour, linestyle=_dash(count), linewidth=1.3)
    ax.plot(
        mean[-1],
        1,
        color=look.colour,
        marker=look.marker,
        markersize=4,
        clip_on=False,
        markeredgecolor=INK,
        markeredgewidth=0.4,
        zorder=4,
    )
