"""Figure: hops, balance and time per output token of every policy, and who is best at what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.lines import Line2D

from experiments.errors import FigureError
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
    from numpy.typing import NDArray

    from experiments.figures.style import PolicyStyle
    from experiments.figures.venue import Venue

# Without the dark end, where a rim would not show.
_SHADES = ListedColormap(colormaps["cividis"](np.linspace(0.35, 1, 256)))
HOPS, BALANCE, TIME = "hops_per_token_layer", "balance_gpu", "tpot_s"


def figure(runs: pd.DataFrame, *, venue: Venue) -> Figure:
    """Draw GPU balance over hops, the time per output token as colour.

    A policy's marker is its shape; those that no other one beats in all three figures have a
    thick rim.

    Parameters
    ----------
    runs
        Labelled runs; read are hops_per_token_layer, balance_gpu and tpot_s.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If a column or a number is missing, as the time is without ``step.gpu``, or there are too
        many panels.
    """
    if TIME in runs.columns and runs[TIME].isna().all():
        raise FigureError("runs: none has a time per output token; expected runs with step.gpu")
    rows = fit(runs, "runs", [HOPS, BALANCE, TIME])
    figures = {name: means(rows, name) for name in (HOPS, BALANCE, TIME)}
    looks = policy_styles(rows["series"])
    times_ms = 1e3 * figures[TIME]["mean"]
    colours = ScalarMappable(Normalize(times_ms.min(), times_ms.max()), _SHADES)
    with venue.context():
        drawn, axes = panels(rows, venue, row_in=1.5, extra_in=0.95)
        for place, ax in axes.items():
            own = {name: at(table, place) for name, table in figures.items()}
            _draw_panel(ax, own, looks, colours)
        drawn.supxlabel("hops per token and layer (network links)", fontsize=venue.size)
        drawn.supylabel("busiest GPU / mean", fontsize=venue.size)
        drawn.colorbar(colours, ax=list(drawn.axes), label="time per output token, ms", pad=0.02)
        shapes = [
            Line2D([], [], **_shape(look), markerfacecolor=FAINT, markeredgewidth=0.4, label=name)
            for name, look in looks.items()
        ]
        rim: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 5.5}
        rim |= {"markeredgecolor": INK, "markeredgewidth": 1.3, "markerfacecolor": "white"}
        legend_above(drawn, [*shapes, Line2D([], [], **rim, label="none better in all three")])
    return drawn


def unbeaten(figures: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return bool [points]: no other point is as low in every column, and lower in one.

    Parameters
    ----------
    figures
        float64 [points, columns]: less is better.
    """
    no_worse = (figures[:, None] <= figures[None]).all(axis=2)
    better = (figures[:, None] < figures[None]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0), dtype=np.bool_)


def _draw_panel(
    ax: Axes,
    figures: dict[str, pd.DataFrame],
    looks: dict[str, PolicyStyle],
    colours: ScalarMappable,
) -> None:
    hops, balance, time = (figures[name] for name in (HOPS, BALANCE, TIME))
    best = unbeaten(np.stack([each["mean"].to_numpy() for each in (hops, balance, time)], axis=1))
    bars = {"fmt": "none", **ERROR_BAR}
    x, y = whiskers(hops), whiskers(balance)
    if (hops["count"] > 1).any():
        ax.errorbar(hops["mean"], balance["mean"], xerr=x, yerr=y, **bars, zorder=2)
    points = zip(hops["series"], hops["mean"], balance["mean"], time["mean"], best, strict=True)
    for series, across, up, seconds, kept in points:
        ax.plot(
            across,
            up,
            **_shape(looks[series]),
            markerfacecolor=colours.to_rgba(1e3 * seconds),
            markeredgewidth=1.3 if kept else 0.4,
            zorder=3,
        )
    ax.margins(0.12)
    ax.grid()


def _shape(look: PolicyStyle) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": look.marker,
        "markersize": 5.5,
        "markeredgecolor": INK,
    }
