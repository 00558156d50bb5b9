"""Figure: layer by layer, where load and links are busiest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.figures.runs.panels import at, fit, title
from experiments.figures.style import policy_styles
from experiments.labels import PLACE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from experiments.figures.venue import Venue

_LINKS = ("dispatch_busiest_link_s", "combine_busiest_link_s")
_SHOWN = {
    "balance_gpu": "busiest GPU / mean",
    "busiest_us": "busiest link, us",
}


def figure(layers: pd.DataFrame, *, venue: Venue) -> Figure:
    """Draw two heat maps per model, setting and cluster: policies by layers.

    Colours are the load of the busiest GPU over the mean, and the busy time of the busiest link,
    dispatch and combine together; means over runs.

    Parameters
    ----------
    layers
        The labelled tables of layers; read are layer, balance_gpu, dispatch_busiest_link_s and
        combine_busiest_link_s.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If a column or a number is missing, or there are too many panels.
    """
    rows = fit(layers, "layers", ["layer", "balance_gpu", *_LINKS])
    rows = rows.assign(busiest_us=1e6 * (rows[_LINKS[0]] + rows[_LINKS[1]]))
    names = list(policy_styles(rows["series"]))
    found = rows.groupby([*PLACE, "series", "layer"], sort=False)[list(_SHOWN)].mean()
    table = found.reset_index()
    places = list(table[list(PLACE)].drop_duplicates().itertuples(index=False, name=None))
    with venue.context():
        height = 0.95 + len(places) * (0.3 + 0.14 * len(names))
        drawn = Figure(figsize=(venue.width(wide=True), height))
        axes = drawn.subplots(len(places), len(_SHOWN), sharex=True, sharey=True, squeeze=False)
        for column, (metric, words) in enumerate(_SHOWN.items()):
            own = axes[:, column]
            colours = _colours(table[metric])
            for ax, place in zip(own, places, strict=True):
                _draw_map(ax, at(table, place), metric, names, colours)
            drawn.colorbar(colours, ax=list(own), label=words, location="top", aspect=30, pad=0.04)
        for ax, place in zip(axes[:, 0], places, strict=True):
            ax.set_title(title(place, places), loc="left")
        drawn.supxlabel("MoE layer", fontsize=venue.size)
    return drawn


def _colours(values: pd.Series[float]) -> ScalarMappable:
    scale = Normalize(float(values.min()), float(values.max()))
    return ScalarMappable(scale, colormaps["cividis"])


def _draw_map(
    ax: Axes, rows: pd.DataFrame, metric: str, names: list[str], colours: ScalarMappable
) -> None:
    table = rows.set_index(["series", "layer"])[metric].unstack()  # noqa: PD010  a matrix is wanted
    values = table.reindex(names).to_numpy(dtype=np.float64)
    low, high = colours.get_clim()
    edges = (-0.5, values.shape[1] - 0.5, len(names) - 0.5, -0.5)
    ax.imshow(
        values,
        cmap=colours.cmap,
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="nearest",
        extent=edges,
    )
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
