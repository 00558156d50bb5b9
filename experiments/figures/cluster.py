"""Figure: a cluster, by its structure: tiers of a tree, the grid of a torus, a ring of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from experiments.figures.cluster_layout import gpu_places, layout
from experiments.figures.cluster_sketch import sketch
from experiments.figures.style import FAINT, TWO_COLUMNS_IN, legend, paper_style
from topologies import LinkClass

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from experiments.figures.cluster_layout import Layout
    from experiments.figures.cluster_sketch import Sketch
    from topologies import Cluster

_COLOURS = {
    LinkClass.HOST: "#B0B0B0",
    LinkClass.LOCAL: "#2F7EBC",
    LinkClass.GLOBAL: "#C4541A",
}
_GPU, _SERVER, _SWITCH = "#5E9C76", "#EEF3EF", "#3C4652"
_WORDS = {
    LinkClass.HOST: "network cards",
    LinkClass.LOCAL: "cables, local",
    LinkClass.GLOBAL: "cables, global",
}
_HIGHEST_IN = 7.5
_NAMED = 40
"""Boxes that may hold a number each."""


def figure(cluster: Cluster) -> Figure:
    """Draw a cluster: with its GPUs up to some 600, with its switches alone, or their groups."""
    drawn = sketch(cluster)
    places = layout(cluster, drawn)
    low, high = _bounds(places, drawn)
    wide, tall = high - low
    with paper_style():
        height = min(_HIGHEST_IN, max(1.6, TWO_COLUMNS_IN * tall / wide)) + 0.75
        page = Figure(figsize=(TWO_COLUMNS_IN, height))
        ax = page.subplots()
        ax.set_xlim(low[0], high[0])
        ax.set_ylim(low[1], high[1])
        ax.set_aspect("equal")
        ax.axis("off")
        _draw_cables(ax, cluster, drawn, places)
        if drawn.gpus:
            _draw_servers(ax, cluster, drawn, places)
        _draw_switches(ax, drawn, places)
        ax.set_title(_title(cluster, drawn, places), loc="left")
        legend(page, _handles(drawn), columns=6, place="outside lower center")
    return page


def _bounds(places: Layout, drawn: Sketch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    half = np.array(places.box) / 2
    margin = np.array([places.side, places.side])
    corners = [places.node - margin, places.node + margin]
    if len(places.server):
        corners += [places.server - half, places.server + half]
    if places.kind == "grid":
        corners += [places.node - 0.45 * _step(places), places.node + 0.45 * _step(places)]
    if not drawn.gpus and places.kind == "tiers":
        corners.append(places.node - [0, 3 * places.side])
    every = np.concatenate(corners)
    pad = 0.01 * np.ptp(every[:, 0])
    return every.min(axis=0) - pad, every.max(axis=0) + pad


def _step(places: Layout) -> float:
    """Return the distance between two neighbours of a grid."""
    return float(np.hypot(*(places.node[1] - places.node[0])))


def _draw_cables(ax: Axes, cluster: Cluster, drawn: Sketch, places: Layout) -> None:
    ends = places.node[drawn.edges]
    wraps = np.zeros(len(ends), dtype=np.bool_)
    if places.kind == "grid":
        wraps = _wrapping(cluster.parameters["dims"], drawn.edges)
    faint = min(1.0, max(0.25, 250 / max(1, len(ends))))
    for kind in (LinkClass.LOCAL, LinkClass.GLOBAL):
        own = drawn.edge_class == kind
        width = (0.5 + 0.25 * np.log2(drawn.cables[own & ~wraps])) * (0.4 + 0.6 * faint)
        lines = LineCollection(
            list(ends[own & ~wraps]), colors=_COLOURS[kind], linewidths=width, alpha=faint, zorder=1
        )
        ax.add_collection(lines)
        if (own & wraps).any():
            stubs = _stubs(ends[own & wraps], _step(places))
            ax.add_collection(
                LineCollection(stubs, colors=_COLOURS[kind], linewidths=0.5, linestyles=":")
            )


def _wrapping(dims: list[int], edges: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool [edges]: cables from one end of an axis to the other."""
    first, second = (np.stack(np.unravel_index(side, dims)) for side in edges.T)
    apart: NDArray[np.bool_] = np.abs(first - second).max(axis=0) > 1
    return apart


def _stubs(ends: NDArray[np.float64], step: float) -> list[NDArray[np.float64]]:
    """Return short lines away from the other end, at both ends of every cable."""
    along = ends[:, 0] - ends[:, 1]
    along *= 0.4 * step / np.hypot(*along.T)[:, None]
    first = np.stack([ends[:, 0], ends[:, 0] + along], axis=1)
    second = np.stack([ends[:, 1], ends[:, 1] - along], axis=1)
    return [*first, *second]


def _draw_servers(ax: Axes, cluster: Cluster, drawn: Sketch, places: Layout) -> None:
    wide, high = places.box
    server = np.repeat(np.arange(cluster.servers), cluster.gpus_per_server)
    card = np.unique(np.stack([server, cluster.leaf_of_gpu]), axis=1)
    ends = np.stack([places.server[card[0]], places.node[drawn.node_of_switch[card[1]]]], axis=1)
    if places.kind == "tiers":
        ends[:, 0, 1] += high / 2
    faint = 0.9 if len(ends) <= cluster.servers else 0.35
    ax.add_collection(
        LineCollection(
            list(ends), colors=_COLOURS[LinkClass.HOST], linewidths=0.5, alpha=faint, zorder=0.5
        )
    )
    boxes = [
        FancyBboxPatch(
            (x - wide / 2 + 0.3, y - high / 2 + 0.3), wide - 0.6, high - 0.6, "round,pad=0.2"
        )
        for x, y in places.server
    ]
    ax.add_collection(
        PatchCollection(boxes, facecolor=_SERVER, edgecolor="#9DB0A3", linewidth=0.4, zorder=2)
    )
    within = gpu_places(cluster.gpus_per_server)
    gpus = (places.server[:, None] + within[None]).reshape(-1, 2)
    squares = [Rectangle((x - 0.45, y - 0.45), 0.9, 0.9) for x, y in gpus]
    ax.add_collection(PatchCollection(squares, facecolor=_GPU, linewidth=0, zorder=3))


def _draw_switches(ax: Axes, drawn: Sketch, places: Layout) -> None:
    merged = int(drawn.switches.max()) > 1
    high = places.side * (0.62 if places.kind == "tiers" else 1.0)
    wide = places.side * (1.9 if merged else 1.0)
    boxes = [Rectangle((x - wide / 2, y - high / 2), wide, high) for x, y in places.node]
    ax.add_collection(PatchCollection(boxes, facecolor=_SWITCH, linewidth=0, zorder=4))
    if merged and drawn.nodes <= _NAMED:
        middle: dict[str, Any] = {
            "color": "white",
            "ha": "center",
            "va": "center",
            "fontsize": 6,
            "zorder": 5,
        }
        for (x, y), count in zip(places.node, drawn.switches, strict=True):
            ax.text(x, y, f"{count:,}", **middle)
    if _says_servers(drawn, places):
        _say_servers(ax, drawn, places)


def _says_servers(drawn: Sketch, places: Layout) -> bool:
    """Whether servers that are not drawn are counted below their leaves."""
    return not drawn.gpus and places.kind == "tiers"


def _say_servers(ax: Axes, drawn: Sketch, places: Layout) -> None:
    """Write how many servers are below each leaf, where there is room for it."""
    leaves = np.flatnonzero(drawn.tier == 0)
    if len(leaves) > _NAMED:
        return
    for node in leaves[drawn.servers[leaves] > 0]:
        x, y = places.node[node]
        ax.text(
            x, y - 0.7 * places.side, f"{drawn.servers[node]:,}", ha="center", va="top", fontsize=6
        )


def _title(cluster: Cluster, drawn: Sketch, places: Layout) -> str:
    counts = (
        f"{cluster.name}: {cluster.gpus:,} GPUs in {cluster.servers:,} servers of "
        f"{cluster.gpus_per_server}, {cluster.switches:,} switches, {cluster.cables:,} cables"
    )
    notes = list(drawn.notes)
    leaves = int((drawn.tier == 0).sum())
    if _says_servers(drawn, places) and leaves <= _NAMED and drawn.servers.any():
        notes.append("below a leaf: its servers")
    elif not drawn.gpus:
        notes.append("servers are not drawn")
    if places.kind == "grid" and cluster.parameters.get("wrap"):
        notes.append("dotted: around to the other end")
    return "\n".join([counts, *(["; ".join(notes)] if notes else [])])


def _handles(drawn: Sketch) -> list[Artist]:
    handles: list[Artist] = [Patch(facecolor=_SWITCH, label="switch")]
    if drawn.gpus:
        handles = [
            Patch(facecolor=_GPU, label="GPU"),
            Patch(facecolor=_SERVER, edgecolor=FAINT, label="server"),
            *handles,
            Line2D([], [], color=_COLOURS[LinkClass.HOST], label=_WORDS[LinkClass.HOST]),
        ]
    handles += [
        Line2D([], [], color=_COLOURS[kind], label=_WORDS[kind])
        for kind in (LinkClass.LOCAL, LinkClass.GLOBAL)
        if (drawn.edge_class == kind).any()
    ]
    return handles
