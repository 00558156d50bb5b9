"""Compiled loops that list the links between two switches with their ECMP shares.

The graph comes as in `topologies._kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from topologies._kernels import _next_hops, _parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def _insert(queue: NDArray[np.int64], count: int, cost: NDArray[np.int32], node: int) -> None:
    """Add a switch behind all that are as far from the target, before those nearer to it."""
    at = count
    while at > 0 and cost[queue[at - 1]] < cost[node]:
        queue[at] = queue[at - 1]
        at -= 1
    queue[at] = node


@njit(cache=True)
def _grown(array: NDArray[Any], needed: int) -> NDArray[Any]:
    """Return the array, copied into one twice as long where it is too short."""
    if needed <= len(array):
        return array
    longer = np.empty(max(needed, 2 * len(array)), dtype=array.dtype)
    longer[: len(array)] = array
    return longer


@njit(cache=True)
def pair_usage(
    graph: tuple[Any, ...], costs: NDArray[np.int32], ends: tuple[Any, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return ``(indptr, link, fraction)``: the links between pairs of switches, in CSR form.

    Only the switches that a pair can reach on shortest paths are looked at, farthest first, so
    that work grows with the entries returned and not with the fabric.

    Parameters
    ----------
    graph
        ``(indptr, neighbour, weight, link)``.
    costs, ends
        Costs to the targets, and ``(source switch, row of the target)`` of every pair.
    """
    indptr, neighbour, weight, link = graph
    sources, rows = ends
    starts = np.zeros(len(sources) + 1, dtype=np.int64)
    links = np.empty(1024, dtype=np.int32)
    shares = np.empty(1024)
    load = np.zeros(costs.shape[1])
    queue = np.empty(costs.shape[1], dtype=np.int64)
    used = 0
    for pair in range(len(sources)):
        cost = costs[rows[pair]]
        queue[0] = sources[pair]
        load[sources[pair]] = 1.0
        head, stop = 0, 1
        while head < stop:
            node = queue[head]
            head += 1
            waiting = load[node]
            load[node] = 0.0
            if cost[node] == 0:
                continue
            links = _grown(links, used + indptr[node + 1] - indptr[node])
            shares = _grown(shares, len(links))
            part = waiting / _next_hops(indptr, neighbour, weight, cost, node)
            edge = indptr[node]
            while edge < indptr[node + 1]:
                other = neighbour[edge]
                width = _parallel(indptr, neighbour, weight, node, edge)
                if cost[node] == weight[edge] + cost[other]:
                    if load[other] == 0.0:
                        _insert(queue, stop, cost, other)
                        stop += 1
                    load[other] += part
                    for lane in range(edge, edge + width):
                        links[used] = link[lane]
                        shares[used] = part / width
                        used += 1
                edge += width
        starts[pair + 1] = used
    return starts, links[:used].copy(), shares[:used].copy()


@njit(cache=True, inline="always")
def listed(own: NDArray[np.int32], flow: int, link: NDArray[np.int32], at: Any) -> Any:
    """Write a flow's links of a row that is filled up with -1; return the next free entry."""
    for column in range(3):
        if own[flow, column] >= 0:
            link[at] = own[flow, column]
            at += 1
    return at


@njit(cache=True)
def spread(
    own: tuple[Any, ...], between: tuple[Any, ...], pair: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return ``(indptr, link, fraction)`` of every flow: its own links around those shared.

    Parameters
    ----------
    own
        ``(before, after)``: int32 [flows, 3], filled up with -1.
    between
        ``(indptr, link, fraction)`` of distinct pairs of switches.
    pair
        int64 [flows]: the pair of every flow, or -1.
    """
    before, after = own
    starts, links, shares = between
    indptr = np.zeros(len(pair) + 1, dtype=np.int64)
    for flow in range(len(pair)):
        count = 0
        for at in range(3):
            count += (before[flow, at] >= 0) + (after[flow, at] >= 0)
        if pair[flow] >= 0:
            count += starts[pair[flow] + 1] - starts[pair[flow]]
        indptr[flow + 1] = indptr[flow] + count
    link = np.empty(indptr[-1], dtype=np.int32)
    fraction = np.ones(indptr[-1])
    for flow in range(len(pair)):
        at = listed(before, flow, link, indptr[flow])
        if pair[flow] >= 0:
            for entry in range(starts[pair[flow]], starts[pair[flow] + 1]):
                link[at] = links[entry]
                fraction[at] = shares[entry]
                at += 1
        listed(after, flow, link, at)
    return indptr, link, fraction
