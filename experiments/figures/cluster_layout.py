"""Where a picture of a cluster puts its switches and servers: tiers, a grid or a ring."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.figures.cluster_sketch import Sketch
    from topologies import Cluster

    XY = NDArray[np.float64]

_GPU = 1.0
"""Side of a GPU, the unit of lengths."""
_PITCH = 1.25 * _GPU
_WIDEST = 8.0
"""Most diagonals of a server between two switches of a grid or ring."""
_TALL = 3.0
"""Width over height that servers are laid out for."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Places in units of a GPU's side.

    Attributes
    ----------
    kind
        ``tiers``, ``grid`` or ``ring``.
    node
        float64 [nodes, 2].
    outward
        float64 [nodes, 2]: the direction in which a switch has its servers.
    server
        float64 [servers, 2]: middles of servers; empty where none are drawn.
    box
        Width and height of a server.
    side
        Of a switch's box.
    """

    kind: Literal["tiers", "grid", "ring"]
    node: XY
    outward: XY
    server: XY
    box: tuple[float, float]
    side: float


def layout(cluster: Cluster, drawn: Sketch) -> Layout:
    """Return the places of all nodes, and of servers where these are drawn."""
    if drawn.tier.max() > 0:
        return _tiers(cluster, drawn)
    dims = cluster.parameters.get("dims") if cluster.builder == "torus" else None
    if dims is not None and drawn.nodes == cluster.switches:
        return _around("grid", _grid(dims), cluster, drawn)
    return _around("ring", _ring(drawn), cluster, drawn)


def gpu_places(count: int) -> XY:
    """Return float64 [count, 2]: GPUs around the middle of their server, row by row."""
    columns = _columns(count)
    at = np.arange(count)
    rows = ceil(count / columns)
    x = (at % columns - (columns - 1) / 2) * _PITCH
    y = ((rows - 1) / 2 - at // columns) * _PITCH
    return np.stack([x, y], axis=1)


def _columns(count: int) -> int:
    """Return the columns that make a server twice as wide as high, rows filled if possible."""
    wanted = sqrt(2 * count)
    whole = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: abs(n - wanted))
    return whole if wanted / 1.6 <= whole <= 1.6 * wanted else max(1, round(wanted))


def _box(cluster: Cluster) -> tuple[float, float]:
    columns = _columns(cluster.gpus_per_server)
    rows = ceil(cluster.gpus_per_server / columns)
    return (columns + 0.5) * _PITCH, (rows + 0.5) * _PITCH


def _tiers(cluster: Cluster, drawn: Sketch) -> Layout:
    """Put switches in rows by their tier, servers under their leaf or in rows of their own."""
    wide, high = box = _box(cluster)
    leaves = np.flatnonzero(drawn.tier == 0)
    cards = cluster.leaf_of_gpu.reshape(cluster.servers, -1)
    single = bool((cards == cards[:, :1]).all())
    per_leaf = max(1, int(drawn.servers.max()))
    columns, pitch = 1, 8.0
    if drawn.gpus:
        columns = _fitting(per_leaf, len(leaves), box) if single else 1
        pitch = columns * wide * 1.08 + 0.8
    if drawn.gpus and not single:
        across = _fitting(cluster.servers, 1, box)
        pitch = max(across * wide * 1.1 / len(leaves), 3.0)
    node = np.zeros((drawn.nodes, 2))
    # Leaves of a group side by side, a little apart from the next group.
    order = leaves[np.lexsort((leaves, drawn.group[leaves]))]
    grouped = drawn.group[order]
    gaps = np.concatenate([[0], np.cumsum(np.diff(grouped) != 0)]) * 0.35
    if len(np.unique(grouped)) == len(order):
        gaps = np.zeros(len(order))
    node[order, 0] = (np.arange(len(order)) + gaps) * pitch
    node[:, 0] -= node[order, 0].mean()
    span = max(float(np.ptp(node[order, 0])) + pitch, 5 * pitch)
    step = max(6.0, (0.16 if drawn.gpus else 0.26) * span)
    node[:, 1] = drawn.tier * step
    for tier in range(1, int(drawn.tier.max()) + 1):
        _over(node, drawn, tier, span)
    outward = np.tile([0.0, -1.0], (drawn.nodes, 1))
    server = np.empty((0, 2))
    if drawn.gpus:
        head = 0.3 * step + high
        server = (
            _under(cluster, node, columns, box, head)
            if single
            else _rows(cluster.servers, _fitting(cluster.servers, 1, box), box, head + 0.35 * step)
        )
    side = min(3.2, 0.7 * pitch, 0.022 * span + 1.2, 0.7 * _nearest(node, drawn))
    return Layout("tiers", node, outward, server, box, side)


def _nearest(node: XY, drawn: Sketch) -> float:
    """Return the least distance of two switches of a tier above the leaves, inf without any."""
    rows = [np.sort(node[drawn.tier == tier, 0]) for tier in range(1, int(drawn.tier.max()) + 1)]
    gaps = np.concatenate([np.diff(row) for row in rows])
    # Tiers of two groups may meet at a point; boxes that share a place are not told apart anyway.
    return float(min(gaps[gaps > 1e-9], default=np.inf))


def _over(node: XY, drawn: Sketch, tier: int, span: float) -> None:
    """Spread the switches of a tier over their group, those without one over everything."""
    here = drawn.tier == tier
    for group in np.unique(drawn.group[here]):
        own = np.flatnonzero(here & (drawn.group == group))
        left, right = -span / 2, span / 2
        if group >= 0:
            below = node[(drawn.tier == 0) & (drawn.group == group), 0]
            pitch = span / max(1, int((drawn.tier == 0).sum()))
            left, right = below.min() - pitch / 2, below.max() + pitch / 2
        node[own, 0] = left + (right - left) * (np.arange(len(own)) + 0.5) / len(own)


def _fitting(count: int, blocks: int, box: tuple[float, float]) -> int:
    """Return the columns of `count` servers in each of `blocks` that come nearest to `_TALL`.

    Rows that are filled are preferred.
    """

    def off(columns: int) -> float:
        shape = blocks * columns * box[0] / (ceil(count / columns) * box[1])
        return abs(float(np.log(shape / _TALL))) + 0.6 * (count % columns > 0)

    return min(range(1, count + 1), key=off)


def _under(cluster: Cluster, node: XY, columns: int, box: tuple[float, float], head: float) -> XY:
    """Put every server below its leaf, in columns."""
    leaf = cluster.leaf_of_gpu[:: cluster.gpus_per_server]
    order = np.argsort(leaf, kind="stable")
    first = np.searchsorted(leaf[order], leaf[order])
    at = np.empty(cluster.servers, dtype=np.int64)
    at[order] = np.arange(cluster.servers) - first
    x = (at % columns - (columns - 1) / 2) * box[0] * 1.08
    y = -head - (at // columns) * box[1] * 1.15
    return node[leaf] + np.stack([x, y], axis=1)


def _rows(count: int, columns: int, box: tuple[float, float], head: float) -> XY:
    at = np.arange(count)
    x = (at % columns - (min(columns, count) - 1) / 2) * box[0] * 1.1
    y = -head - (at // columns) * box[1] * 1.2
    return np.stack([x, y], axis=1)


def _grid(dims: Any) -> tuple[XY, XY]:
    """Return places of the switches of a torus, axes behind the second drawn obliquely."""
    at = np.indices(dims).reshape(len(dims), -1)
    place = np.zeros((at.shape[1], 2))
    wide, high = float(dims[-1]), float(dims[-2]) if len(dims) > 1 else 1.0
    # Layers behind each other stay within a cell, so that no two switches meet.
    layers = dims[-3] if len(dims) > 2 else 1
    axes = [np.array([1.0, 0.0]), np.array([0.0, -1.0]), np.array([0.8, 0.62]) / layers]
    axes += [np.array([wide + 1.5, 0.0]), np.array([0.0, -high - 1.5]), np.array([0.18, 0.4])]
    for axis, vector in zip(at[::-1], axes, strict=False):
        place += axis[:, None] * vector
    return place, np.tile([0.0, -1.0], (len(place), 1))


def _ring(drawn: Sketch) -> tuple[XY, XY]:
    """Return places on a circle, by group if groups have several nodes each."""
    nodes = drawn.nodes
    groups, which, count = np.unique(drawn.group, return_inverse=True, return_counts=True)
    if len(groups) == 1 or int(count.max()) == 1:
        place = _circle(np.arange(nodes), nodes)
        return place, place.copy()
    middle = _circle(which, len(groups))
    # Members begin at the innermost point, so that the first ones face the others.
    rank = np.zeros(nodes, dtype=np.int64)
    order = np.argsort(which, kind="stable")
    rank[order] = np.arange(nodes) - np.searchsorted(which[order], which[order])
    turn = 2 * np.pi * (rank + 0.5) / count[which] + np.arctan2(middle[:, 1], middle[:, 0])
    inner = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    radius = 0.42 * np.sin(np.pi / max(3, len(groups)))
    return middle + radius * inner, inner


def _circle(at: NDArray[np.int64], count: int) -> XY:
    turn = np.pi / 2 - 2 * np.pi * at / count
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _around(
    kind: Literal["grid", "ring"], places: tuple[XY, XY], cluster: Cluster, drawn: Sketch
) -> Layout:
    """Scale places so that servers, drawn next to their switch, do not touch."""
    place, outward = places
    box = _box(cluster)
    reach = float(np.hypot(*box)) if drawn.gpus else 3.0
    per_node = max(1, int(drawn.servers.max())) if drawn.gpus else 1
    near = 1.0
    if len(place) > 1:
        sample = place[: min(len(place), 64)]
        apart = np.hypot(*(sample[:, None] - place[None]).T).T
        near = float(apart[apart > 1e-9].min())
    need = {"grid": 1.5, "ring": 1.25}[kind] * reach * (sqrt(per_node) if kind == "grid" else 1.0)
    server = np.empty((0, 2))
    while True:
        node = place * (need / near)
        side = min(2.4, 0.3 * need)
        if not drawn.gpus:
            break
        server = _beside(cluster, node, outward, box, side)
        # Rows of servers that point at each other meet: then switches move further apart.
        if not _touch(server, box) or need > _WIDEST * reach:
            break
        need *= 1.1
    return Layout(kind, node, outward, server, box, side)


def _beside(cluster: Cluster, node: XY, outward: XY, box: tuple[float, float], side: float) -> XY:
    """Put servers next to their switch, one behind another outward."""
    leaf = cluster.leaf_of_gpu[:: cluster.gpus_per_server]
    order = np.argsort(leaf, kind="stable")
    at = np.empty(cluster.servers)
    at[order] = np.arange(cluster.servers) - np.searchsorted(leaf[order], leaf[order])
    # Half a box is as far as its edge is in that direction, or a little more.
    half = np.abs(outward[leaf]) @ np.array(box) / 2
    away = side * 0.9 + half + at * 2.1 * half
    beside: XY = node[leaf] + outward[leaf] * away[:, None]
    return beside


def _touch(server: XY, box: tuple[float, float]) -> bool:
    """Whether two servers of a picture overlap, but for a hundredth of their size."""
    apart = np.abs(server[:, None] - server[None])
    over = (apart < 0.99 * np.array(box)).all(axis=2)
    return int(over.sum()) > len(server)
