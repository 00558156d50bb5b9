"""What the figures of runs share: panels by model, setting and cluster, means with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.figures.frames import in_order, select
from experiments.figures.style import INK, MODELS, columns_across, legend
from experiments.labels import PLACE, check_panels
from experiments.statistics import mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from experiments.figures.venue import Venue

Panels = dict[tuple[str, str, str], "Axes"]
"""Axes by model, setting and cluster, row by row."""
ERROR_BAR: dict[str, Any] = {
    "ecolor": INK,
    "elinewidth": 0.7,
    "capsize": 1.6,
    "capthick": 0.7,
}


def fit(
    rows: pd.DataFrame, table: str, numbers: Sequence[str], columns: Sequence[str] = ()
) -> pd.DataFrame:
    """Return labelled rows once they are known to be fit to draw.

    Raises
    ------
    FigureError
        If a column or a number is missing, or there are more panels than one figure shows.
    """
    known = [name for name in numbers if name in rows.columns]
    numeric = rows.assign(**{name: pd.to_numeric(rows[name], errors="coerce") for name in known})
    keys = (*PLACE, "series", "replicate")
    found = select(numeric, table, keys=(), numbers=numbers, columns=(*keys, *columns))
    check_panels(found, table)
    return found


def means(rows: pd.DataFrame, column: str, by: Sequence[str] = (*PLACE, "series")) -> pd.DataFrame:
    """Return mean, low and high of a column for every value of `by`.

    Low and high are the ends of the 95 % bootstrap interval over runs, the mean itself where
    there is one run.
    """
    rng = np.random.default_rng(0)
    found = []
    for key, own in rows.groupby(list(by), sort=False)[column]:
        interval = mean_interval(own.to_numpy(dtype=np.float64), rng)
        low = interval.mean if interval.low is None else interval.low
        high = interval.mean if interval.high is None else interval.high
        found.append((*key, interval.mean, low, high, interval.count))
    return pd.DataFrame(found, columns=[*by, "mean", "low", "high", "count"])


def whiskers(found: pd.DataFrame, scale: float = 1.0) -> Any:
    """Return float64 [2, rows]: how far the interval reaches below and above the mean."""
    below, above = found["mean"] - found["low"], found["high"] - found["mean"]
    # A skewed sample's interval may end short of its mean.
    return scale * np.maximum(np.stack([below, above]), 0)


def places(rows: pd.DataFrame) -> tuple[list[tuple[str, str]], list[str]]:
    """Return pairs of model and setting, and clusters, in the order figures show them."""
    pairs = rows[["model", "setting"]].drop_duplicates().itertuples(index=False, name=None)
    found = [(str(model), str(setting)) for model, setting in pairs]
    models = in_order([model for model, _ in found], MODELS)
    return sorted(found, key=lambda pair: models.index(pair[0])), in_order(rows["cluster"])


def panels(
    rows: pd.DataFrame, venue: Venue, *, row_in: float, extra_in: float = 0.7, **shared: Any
) -> tuple[Figure, Panels]:
    """Return a figure with a row of panels per model and setting, and a column per cluster.

    Parameters
    ----------
    row_in, extra_in
        Height of a row, and of legend and labels, inches.
    shared
        ``sharex`` and ``sharey``, as matplotlib's subplots take them.
    """
    pairs, clusters = places(rows)
    figure = Figure(
        figsize=(venue.width(wide=len(clusters) > 1), extra_in + (row_in + 0.2) * len(pairs) - 0.2)
    )
    axes = figure.subplots(len(pairs), len(clusters), squeeze=False, **shared)
    present = set(rows[list(PLACE)].itertuples(index=False, name=None))
    found: Panels = {}
    for line, (model, setting) in zip(axes, pairs, strict=True):
        for ax, cluster in zip(line, clusters, strict=True):
            place = (model, setting, cluster)
            if place in present:
                found[place] = ax
                ax.set_title(title(place, sorted(present)), loc="left")
            else:
                ax.set_axis_off()
    return figure, found


def title(place: tuple[str, str, str], places: Sequence[tuple[str, str, str]]) -> str:
    """Return what tells a place from the others: at least its cluster."""
    differs = [len({each[at] for each in places}) > 1 for at in range(2)]
    return ", ".join(
        part for part, shown in zip(place, [*differs, True], strict=True) if shown and part
    )


def at(rows: pd.DataFrame, place: tuple[str, str, str]) -> pd.DataFrame:
    """Return the rows of a panel."""
    chosen = np.ones(len(rows), dtype=np.bool_)
    for column, value in zip(PLACE, place, strict=True):
        chosen &= (rows[column] == value).to_numpy(dtype=np.bool_)
    return rows[chosen]


def legend_above(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend above the axes, with as many columns as there is room for."""
    labels = [str(handle.get_label()) for handle in handles]
    columns = columns_across(labels, float(figure.get_figwidth()))
    legend(figure, handles, columns=columns, place="outside upper center")
