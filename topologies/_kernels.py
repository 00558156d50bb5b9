"""Compiled loops of routing: costs to a switch, ECMP shares, keys of flows.

The switch graph comes as arrays of directed edges sorted by (source, target, weight), with
``indptr`` delimiting every switch's edges. An edge u -> v lies on a shortest path to a target
exactly if ``cost[u] == weight + cost[v]``, with ``cost`` the costs to that target; edges to one
next hop that do so stand side by side, because they have the same weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNREACHED = np.int32(2**30)
"""Cost of a switch without a path."""


@njit(cache=True)
def cost_rows(
    indptr: NDArray[np.int64],
    neighbour: NDArray[np.int32],
    weight: NDArray[np.int32],
    label: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Return int32 [targets, switches]: the cheapest way to the nearest switch of each label.

    Costs are corrected along a first-in first-out queue: breadth-first search where all weights
    are equal, Bellman-Ford with a queue otherwise. Edges are followed from the targets: give
    them reversed where they do not run both ways.
    """
    switches = len(indptr) - 1
    rows = np.full((len(targets), switches), UNREACHED, dtype=np.int32)
    queue = np.empty(switches, dtype=np.int64)
    queued = np.zeros(switches, dtype=np.bool_)
    for row, target in enumerate(targets):
        cost = rows[row]
        head, waiting = 0, 0
        for node in range(switches):
            if label[node] == target:
                cost[node] = 0
                queue[waiting] = node
                waiting += 1
        while waiting > 0:
            node = queue[head]
            head = (head + 1) % switches
            waiting -= 1
            queued[node] = False
            for edge in range(indptr[node], indptr[node + 1]):
                other = neighbour[edge]
                new = cost[node] + weight[edge]
                if new < cost[other]:
                    cost[other] = new
                    if not queued[other]:
                        queued[other] = True
                        queue[(head + waiting) % switches] = other
                        waiting += 1
    return rows


@njit(cache=True)
def _next_hops(
    indptr: NDArray[np.int64],
    neighbour: NDArray[np.int32],
    weight: NDArray[np.int32],
    cost: NDArray[np.int32],
    node: int,
) -> int:
    """Count the distinct next hops of a switch on shortest paths."""
    count = 0
    last = -1
    for edge in range(indptr[node], indptr[node + 1]):
        other = neighbour[edge]
        if other != last and cost[node] == weight[edge] + cost[other]:
            count += 1
            last = other
    return count


@njit(cache=True)
def _parallel(
    indptr: NDArray[np.int64],
    neighbour: NDArray[np.int32],
    weight: NDArray[np.int32],
    node: int,
    edge: int,
) -> int:
    """Count the edges from `edge` on that join the same two switches at the same weight."""
    stop = edge
    while (
        stop < indptr[node + 1]
        and neighbour[stop] == neighbour[edge]
        and weight[stop] == weight[edge]
    ):
        stop += 1
    return stop - edge


@njit(cache=True)
def latency_rows(graph: tuple[Any, ...], costs: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return float64 [targets, switches]: the largest sum of latencies on shortest paths.

    Parameters
    ----------
    graph
        ``(indptr, neighbour, weight, latency)``.
    costs
        int32 [targets, switches], from `cost_rows`.
    """
    indptr, neighbour, weight, latency = graph
    late = np.zeros(costs.shape)
    for row in range(len(costs)):
        cost = costs[row]
        for node in np.argsort(cost, kind="mergesort"):
            for edge in range(indptr[node], indptr[node + 1]):
                other = neighbour[edge]
                if cost[node] == weight[edge] + cost[other]:
                    late[row, node] = max(late[row, node], latency[edge] + late[row, other])
    return late


@njit(cache=True)
def _split(
    graph: tuple[Any, ...],
    cost: NDArray[np.int32],
    order: NDArray[np.int64],
    load: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Carry the bytes that wait at every switch to the target, and leave `load` all zero.

    Parameters
    ----------
    graph
        ``(indptr, neighbour, weight, link)``.
    cost, order
        Costs to the target, and the switches from the farthest to the nearest.
    load, out
        float64 [switches] and [links].
    """
    indptr, neighbour, weight, link = graph
    for node in order:
        waiting = load[node]
        load[node] = 0.0
        if waiting == 0.0 or cost[node] == 0:
            continue
        part = waiting / _next_hops(indptr, neighbour, weight, cost, node)
        edge = indptr[node]
        while edge < indptr[node + 1]:
            width = _parallel(indptr, neighbour, weight, node, edge)
            if cost[node] == weight[edge] + cost[neighbour[edge]]:
                load[neighbour[edge]] += part
                for lane in range(edge, edge + width):
                    out[link[lane]] += part / width
            edge += width


@njit(cache=True)
def split_volumes(
    graph: tuple[Any, ...],
    costs: NDArray[np.int32],
    cells: tuple[Any, ...],
    volume: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Add what volumes between switches put on every link to out [layers, links].

    Parameters
    ----------
    graph
        ``(indptr, neighbour, weight, link)``.
    costs
        Costs to the targets.
    cells, volume
        ``(row of the target, layer, source)`` and bytes of every cell, sorted so that cells of
        one target and layer, which are split together, stand side by side.
    out
        The array to be added to.
    """
    rows, layers, sources = cells
    load = np.zeros(costs.shape[1])
    order = np.empty(0, dtype=np.int64)
    stop = 0
    while stop < len(volume):
        start = stop
        row, layer = rows[start], layers[start]
        while stop < len(volume) and rows[stop] == row and layers[stop] == layer:
            load[sources[stop]] += volume[stop]
            stop += 1
        if start == 0 or rows[start - 1] != row:
            order = np.argsort(-costs[row], kind="mergesort")
        _split(graph, costs[row], order, load, out[layer])


@njit(cache=True)
def add_paths(
    indptr: NDArray[np.int64],
    links: NDArray[np.int32],
    size: NDArray[np.int64],
    layer: NDArray[np.int64],
    out: NDArray[np.int64],
) -> None:
    """Add every flow's bytes to all links of its path in out [layers, links]."""
    for flow in range(len(size)):
        for at in range(indptr[flow], indptr[flow + 1]):
            out[layer[flow], links[at]] += size[flow]


@njit(cache=True)
def _mix(state: np.uint64) -> np.uint64:
    """Return the next output of SplitMix64 from that state (Steele, Lea, Flood, 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@njit(cache=True)
def flow_keys(
    seed: np.uint64,
    src: NDArray[np.int64],
    dst: NDArray[np.int64],
    queue_pair: NDArray[np.int64],
) -> NDArray[np.uint64]:
    """Return uint64 [flows]: a hash of (seed, source NIC, destination NIC, queue pair)."""
    keys = np.empty(len(src), dtype=np.uint64)
    for flow in range(len(src)):
        key = _mix(_mix(seed) ^ np.uint64(src[flow]))
        key = _mix(key ^ np.uint64(dst[flow]))
        keys[flow] = _mix(key ^ np.uint64(queue_pair[flow]))
    return keys
