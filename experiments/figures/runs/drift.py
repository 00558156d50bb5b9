"""Figure: what a placement fitted to one load is worth under another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.errors import FigureError
from experiments.figures.frames import in_order
from experiments.figures.runs.panels import fit
from experiments.figures.style import INK, policy_styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from experiments.figures.venue import Venue

LOAD, JUDGE = "workload.load", "workload.judge"
FIGURES = {
    "hops_per_token_layer": "hops",
    "balance_gpu": "busiest GPU / mean",
}
_MOST = 6
"""Matrices beside each other."""


def figure(runs: pd.DataFrame, *, venue: Venue) -> Figure:
    """Draw a matrix per policy and figure: loads fitted to, by loads judged on.

    A cell is the change against the placement fitted to the load it is judged on, in percent;
    means over seeds.

    Parameters
    ----------
    runs
        Runs of one model and cluster, labelled with the loads among what they are averaged
        over; read are workload.load, workload.judge, hops_per_token_layer and balance_gpu.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If a column or a number is missing, the runs are of several models, clusters or
        settings, or a load was never fitted to and judged on itself.
    """
    rows = fit(runs, "runs", list(FIGURES), [LOAD, JUDGE])
    rows = _of_one_place(rows[rows[LOAD].notna()])
    rows = rows.assign(**{JUDGE: rows[JUDGE].fillna(rows[LOAD])})
    loads = sorted(set(in_order([*rows[LOAD], *rows[JUDGE]])))
    if len(loads) < 2:
        raise FigureError(f"runs: fitted to and judged on one load, {loads[0]}; expected several")
    names = list(policy_styles(rows["series"]))
    if len(names) > _MOST:
        raise FigureError(f"runs: {len(names)} policies; one figure shows {_MOST}: use --where")
    changes = {
        (metric, name): _change(rows[rows["series"] == name], metric, loads)
        for metric in FIGURES
        for name in names
    }
    with venue.context():
        drawn = Figure(figsize=_size(venue, len(names), len(loads)))
        drawn.set_layout_engine("compressed")
        axes = drawn.subplots(len(FIGURES), len(names), squeeze=False)
        for line, (metric, words) in zip(axes, FIGURES.items(), strict=True):
            most = max(float(np.nanmax(np.abs(changes[metric, name]))) for name in names)
            for ax, name in zip(line, names, strict=True):
                _draw_matrix(ax, changes[metric, name], max(most, 1.0), venue)
                ax.set_xticks(range(len(loads)), _letters(loads) if ax in axes[-1] else [])
                ax.set_yticks(range(len(loads)), _letters(loads) if ax is line[0] else [])
            line[0].set_ylabel(words)
        for ax, name in zip(axes[0], names, strict=True):
            ax.set_title(name, loc="left")
        key = "\n".join(
            f"{letter}  {load.removesuffix('.json')}"
            for letter, load in zip(_letters(loads), loads, strict=True)
        )
        drawn.supxlabel(
            f"judged on (rows: fitted to); change against fitted to the same, %\n{key}",
            fontsize=venue.size,
            multialignment="left",
            linespacing=1.0,
        )
    return drawn


def _size(venue: Venue, policies: int, loads: int) -> tuple[float, float]:
    width = venue.width(wide=policies > 2 or policies * loads > 9)
    side = min((width - 0.5) / policies, 0.35 * loads + 0.2)
    return width, len(FIGURES) * side + 0.75 + 0.13 * loads


def _of_one_place(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        raise FigureError(f"runs: none with a {LOAD}; expected placements fitted to recorded loads")
    for column in ("model", "cluster", "setting"):
        values = in_order(rows[column])
        if len(values) > 1:
            raise FigureError(
                f"runs: of {len(values)} values of {column}: {', '.join(values)}; a drift matrix "
                "shows one: choose with --where"
            )
    return rows


def _change(rows: pd.DataFrame, metric: str, loads: list[str]) -> NDArray[np.float64]:
    """Return float64 [fitted, judged]: percent above the diagonal; NaN where nothing ran."""
    means = rows.groupby([LOAD, JUDGE])[metric].mean().unstack()  # noqa: PD010  a matrix is wanted
    table = means.reindex(index=loads, columns=loads).to_numpy(dtype=np.float64)
    own = np.diag(table)
    if not np.isfinite(own).all():
        lacking = loads[int(np.flatnonzero(~np.isfinite(own))[0])]
        raise FigureError(f"runs: none is fitted to {lacking} and judged on it; expected one")
    change: NDArray[np.float64] = 100 * (table / own - 1)
    return change


def _letters(loads: list[str]) -> list[str]:
    return [chr(ord("A") + at) if at < 26 else str(at + 1) for at in range(len(loads))]


def _draw_matrix(ax: Axes, change: NDArray[np.float64], most: float, venue: Venue) -> None:
    colours, scale = colormaps["PuOr_r"], Normalize(-most, most)
    ax.imshow(change, cmap=colours, norm=scale, aspect="equal")
    for row, column in np.ndindex(change.shape):
        value = change[row, column]
        text = "" if np.isnan(value) else f"{value:+.1f}" if abs(value) < 9.95 else f"{value:+.0f}"
        dark = not np.isnan(value) and abs(value) > 0.6 * most
        ax.text(
            column,
            row,
            "0" if text in {"+0.0", "-0.0"} else text.replace("-", "\N{MINUS SIGN}"),
            ha="center",
            va="center",
            color="white" if dark else INK,
            fontsize=venue.size - 1,
        )
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
