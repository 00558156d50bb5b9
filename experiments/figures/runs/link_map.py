"""Figure: how busy every link is, on the drawn cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.errors import FigureError
from experiments.figures.cluster_layout import layout
from experiments.figures.cluster_sketch import sketch
from experiments.figures.frames import in_order
from experiments.figures.runs.panels import fit
from experiments.figures.style import INK, policy_styles
from topologies import LinkClass

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from experiments.figures.cluster_layout import Layout
    from experiments.figures.cluster_sketch import Sketch
    from experiments.figures.venue import Venue
    from topologies import Cluster

_MOST = 8
"""Pictures in one figure."""
_SERVER, _SWITCH = "#F4F4F4", "#3C4652"


def figure(links: pd.DataFrame, cluster: Cluster, *, venue: Venue) -> Figure:
    """Draw the cluster once per policy, every line in the colour of its busiest link.

    The colour is the share of the step that the busiest of the directed links behind a line is
    busy, mean over runs.

    Parameters
    ----------
    links
        The labelled tables of links of one model, setting and cluster; read are link, src, dst
        and utilisation.
    cluster
        The one they were measured on.
    venue
        Where it is printed.

    Raises
    ------
    FigureError
        If a column or a number is missing, the links are of several clusters or settings, or
        not those of `cluster`.
    """
    rows = fit(links, "links", ["link", "src", "dst", "utilisation"])
    for column in ("model", "cluster", "setting"):
        values = in_order(rows[column])
        if len(values) > 1:
            raise FigureError(
                f"links: of {len(values)} values of {column}: {', '.join(values)}; expected one"
            )
    names = list(policy_styles(rows["series"]))
    if len(names) > _MOST:
        raise FigureError(f"links: {len(names)} policies; one figure shows {_MOST}: use --where")
    busy = {name: 100 * _busy(rows[rows["series"] == name], cluster) for name in names}
    drawn = sketch(cluster)
    places = layout(cluster, drawn)
    shown = cluster.link_class >= LinkClass.HOST
    most = max(float(each[shown].max()) for each in busy.values())
    colours = ScalarMappable(Normalize(0, most or 1.0), colormaps["viridis_r"])
    with venue.context():
        page, axes = _page(names, drawn, places, venue)
        for ax, name in zip(axes, names, strict=True):
            _draw(ax, cluster, (drawn, places), busy[name], colours)
            ax.set_title(f"{name}: busiest {busy[name][shown].max():.1f} %", loc="left")
        label = "share of the step a link is busy, %"
        page.colorbar(colours, ax=axes, label=label, location="bottom", shrink=0.6, aspect=40)
    return page


def _busy(rows: pd.DataFrame, cluster: Cluster) -> NDArray[np.float64]:
    """Return float64 [links]: mean utilisation over runs."""
    found = rows.groupby("link")[["src", "dst", "utilisation"]].mean()
    same = len(found) == cluster.links and (
        np.array_equal(found["src"], cluster.link_src)
        and np.array_equal(found["dst"], cluster.link_dst)
    )
    if not same:
        raise FigureError(
            f"links: are not those of cluster '{cluster.name}' as it is now; expected the one the "
            "runs were made on"
        )
    return found["utilisation"].to_numpy(dtype=np.float64)


def _page(
    names: list[str], drawn: Sketch, places: Layout, venue: Venue
) -> tuple[Figure, list[Axes]]:
    low, high = _bounds(drawn, places)
    wide, tall = high - low
    columns = 1 if len(names) == 1 else 2
    lines = -(-len(names) // columns)
    width = venue.width(wide=columns > 1)
    each = (width - 0.3) / columns * tall / wide
    page = Figure(figsize=(width, lines * (min(each, 3.2) + 0.3) + 0.45))
    page.set_layout_engine("compressed")
    axes = page.subplots(lines, columns, squeeze=False).ravel().tolist()
    for ax in axes:
        ax.set_xlim(low[0], high[0])
        ax.set_ylim(low[1], high[1])
        ax.set_aspect("equal")
        ax.axis("off")
    return page, axes[: len(names)]


def _bounds(drawn: Sketch, places: Layout) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners = [places.node - places.side, places.node + places.side]
    if drawn.gpus:
        half = np.array(places.box) / 2
        corners += [places.server - half, places.server + half]
    every = np.concatenate(corners)
    pad = 0.01 * np.ptp(every[:, 0])  # half a line
    return every.min(axis=0) - pad, every.max(axis=0) + pad


def _draw(
    ax: Axes,
    cluster: Cluster,
    picture: tuple[Sketch, Layout],
    busy: NDArray[np.float64],
    colours: ScalarMappable,
) -> None:
    drawn, places = picture
    lines, values = _cables(cluster, drawn, places, busy)
    if drawn.gpus:
        more, cards = _cards(cluster, drawn, places, busy)
        lines, values = np.concatenate([lines, more]), np.concatenate([values, cards])
        wide, high = places.box
        boxes = [
            Rectangle((x - wide / 2, y - high / 2), 0.94 * wide, 0.94 * high)
            for x, y in places.server
        ]
        ax.add_collection(
            PatchCollection(boxes, facecolor=_SERVER, edgecolor=INK, linewidth=0.3, zorder=2)
        )
    # The busiest on top.
    order = np.argsort(values, kind="stable")
    width = 1.1 if len(lines) < 400 else 0.6
    shades = colours.to_rgba(values[order])
    ax.add_collection(LineCollection(list(lines[order]), colors=shades, linewidths=width, zorder=1))
    side = places.side
    switches = [Rectangle((x - side / 2, y - side / 4), side, side / 2) for x, y in places.node]
    ax.add_collection(PatchCollection(switches, facecolor=_SWITCH, linewidth=0, zorder=3))


def _cables(
    cluster: Cluster, drawn: Sketch, places: Layout, busy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return float64 [lines, 2, 2] and [lines]: lines between switches, their busiest link."""
    between = np.flatnonzero(cluster.link_class >= LinkClass.LOCAL)
    ends = np.stack([cluster.link_src[between], cluster.link_dst[between]])
    nodes = np.sort(drawn.node_of_switch[ends - cluster.first_switch], axis=0)
    keys = drawn.edges[:, 0] * drawn.nodes + drawn.edges[:, 1]
    sought = nodes[0] * drawn.nodes + nodes[1]
    order = np.argsort(keys)
    where = order[np.minimum(np.searchsorted(keys, sought, sorter=order), len(keys) - 1)]
    kept = (keys[where] == sought) & (nodes[0] >= 0)
    values = np.zeros(len(keys))
    np.maximum.at(values, where[kept], busy[between][kept])
    return places.node[drawn.edges], values


def _cards(
    cluster: Cluster, drawn: Sketch, places: Layout, busy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lines and values, as `_cables`, from every server to the leaves of its cards."""
    host = np.flatnonzero(cluster.link_class == LinkClass.HOST)
    # A GPU's link up or down: the lower end is the GPU.
    ends = np.sort(np.stack([cluster.link_src[host], cluster.link_dst[host]]), axis=0)
    server = ends[0] // cluster.gpus_per_server
    node = drawn.node_of_switch[ends[1] - cluster.first_switch]
    pairs, which = np.unique(server * drawn.nodes + node, return_inverse=True)
    values = np.zeros(len(pairs))
    np.maximum.at(values, which, busy[host])
    lines = np.stack(
        [places.server[pairs // drawn.nodes], places.node[pairs % drawn.nodes]], axis=1
    )
    if places.kind == "tiers":
        lines[:, 0, 1] += places.box[1] / 2
    return lines, values
