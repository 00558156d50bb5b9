"""Figures of recordings: how loads are spread, which choices go together, and how steadily."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.errors import FigureError
from experiments.figures.style import TWO_COLUMNS_IN, columns_across, legend, paper_style
from workloads import expected_pairs, gini, window_distances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from numpy.typing import NDArray

    from workloads import TraceCounts

_COLOURS = ("#0B3C74", "#A63C06", "#009E73", "#CC79A7", "#8C7A1E", "#7FBDE6")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
_CURVE_POINTS = 400
MAX_BANDS = 2
"""Recordings whose spread over layers is drawn; more bands hide each other."""


def loads_figure(loads: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Draw sorted loads and the Gini coefficient of every layer.

    Parameters
    ----------
    loads
        float64 [layers, experts] of every recording, rows summing to 1.

    Raises
    ------
    FigureError
        There is none.
    """
    _check(loads)
    with paper_style():
        drawn = Figure(figsize=(TWO_COLUMNS_IN, 2.6))
        ranks, layers = drawn.subplots(1, 2)
        banded = len(loads) <= MAX_BANDS
        for look, load in zip(_looks(len(loads)), loads.values(), strict=True):
            _draw_ranks(ranks, load, look, banded=banded)
            layers.plot(np.arange(len(load)), gini(load), linewidth=1.1, **look)
        ranks.set(xlabel="rank of the expert in its layer", xscale="log", yscale="log")
        band = "\nband: from least to greatest layer" if banded else ""
        ranks.set_ylabel(f"load / mean load, mean over layers{band}")
        layers.set(xlabel="MoE layer", ylabel="Gini coefficient of the loads")
        layers.set_ylim(bottom=0)
        ranks.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        _plain_numbers(ranks.xaxis, ranks.yaxis)
        for ax in (ranks, layers):
            ax.grid()
        _name(drawn, list(loads))
    return drawn


def choices_figure(traces: Mapping[str, TraceCounts]) -> Figure:
    """Draw how pairs of choices concentrate, and how far windows lie from the rest.

    Parameters
    ----------
    traces
        What was counted in every trace.

    Raises
    ------
    FigureError
        There is none.
    """
    _check(traces)
    with paper_style():
        drawn = Figure(figsize=(TWO_COLUMNS_IN, 2.6))
        pairs, windows = drawn.subplots(1, 2)
        for look, counts in zip(_looks(len(traces)), traces.values(), strict=True):
            if counts.top_k > 1:
                _draw_pairs(pairs, counts, look)
            if len(counts.windows) > 1:
                away = window_distances(counts)
                ends = 100 * (np.arange(len(away)) + 1) / len(away)
                windows.plot(ends, away, marker="o", markersize=3, linewidth=1.1, **look)
        pairs.set(xlabel="most frequent pairs of experts, %", xscale="log", ylim=(0, 1))
        pairs.set_ylabel("share of the pairs that tokens choose\n(thin: by the loads alone)")
        windows.set(xlabel="window of the trace, up to % of its tokens")
        windows.set_ylabel("total variation between its loads\nand those of the rest")
        windows.set_ylim(bottom=0)
        _plain_numbers(pairs.xaxis)
        for ax in (pairs, windows):
            ax.grid()
        _name(drawn, list(traces))
    return drawn


def _plain_numbers(*axes: Axis) -> None:
    """Write 0.1, 1, 10 on logarithmic axes: the style has no formulae."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _draw_ranks(ax: Axes, load: NDArray[np.float64], look: dict[str, Any], *, banded: bool) -> None:
    relative = np.sort(load, axis=1)[:, ::-1] * load.shape[1]
    # A logarithmic axis has no place for experts that were never chosen.
    relative = np.where(relative > 0, relative, np.nan)
    used = np.isfinite(relative).any(axis=0)
    rank, relative = np.arange(1, load.shape[1] + 1)[used], relative[:, used]
    if banded:
        low, high = np.nanmin(relative, axis=0), np.nanmax(relative, axis=0)
        ax.fill_between(rank, low, high, color=look["color"], alpha=0.15, linewidth=0)
    ax.plot(rank, np.nanmean(relative, axis=0), linewidth=1.3, **look)


def _draw_pairs(ax: Axes, counts: TraceCounts, look: dict[str, Any]) -> None:
    found = counts.pairs.astype(np.float64)
    side = np.arange(counts.experts)
    found[:, side, side] = 0.0
    percent, share = concentration(found)
    ax.plot(percent, share, linewidth=1.3, **look)
    percent, share = concentration(expected_pairs(found))
    ax.plot(percent, share, linewidth=0.6, **look)


def concentration(
    pairs: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return percentages of the pairs, the most frequent first, and their share of all choices.

    Parameters
    ----------
    pairs
        float64 [layers, E, E], symmetric, zero on the diagonal.
    """
    upper = np.triu_indices(pairs.shape[1], 1)
    each = np.sort(pairs[:, upper[0], upper[1]], axis=1)[:, ::-1]
    share = (np.cumsum(each, axis=1) / each.sum(axis=1, keepdims=True)).mean(axis=0)
    count = len(share)
    kept = np.unique(np.geomspace(1, count, min(count, _CURVE_POINTS)).round().astype(int)) - 1
    return 100 * (kept + 1) / count, share[kept]


def _looks(count: int) -> list[dict[str, Any]]:
    """Return a colour and a line for each; both come round again when they run out."""
    return [
        {
            "color": _COLOURS[i % len(_COLOURS)],
            "linestyle": _LINES[(i // len(_COLOURS)) % len(_LINES)],
        }
        for i in range(count)
    ]


def _name(drawn: Figure, names: Sequence[str]) -> None:
    handles = [
        Line2D([], [], linewidth=1.3, label=name, **look)
        for name, look in zip(names, _looks(len(names)), strict=True)
    ]
    legend(drawn, handles, columns=columns_across(names), place="outside upper center")


def _check(content: Mapping[str, Any]) -> None:
    if not content:
        raise FigureError("recordings: nothing to draw")
