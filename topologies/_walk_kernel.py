"""Compiled walks: the one path that a flow takes, link by link.

The graph comes as in `topologies._kernels`. At every switch a flow takes one of the next hops
on shortest paths, and then one of the cables to it: by a hash of its key and the switch, or by
the digits of a number (D-mod-k routing; Zahavi, 2012), where every choice among n divides by n
what is left of the number, and takes the remainder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from topologies._kernels import _mix
from topologies._usage_kernel import _grown, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, inline="always")
def _next_hop(
    graph: tuple[Any, ...], cost: NDArray[np.int32], node: int, choice: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Return the first edge to the next hop that a flow takes, and what is left of its number.

    Parameters
    ----------
    graph, cost, node
        The edges, costs to the target, and the switch.
    choice
        ``(draw, number)``: the remainder of either, by the next hops there are, is the place of
        the one taken; of the number unless it is -1.
    """
    indptr, neighbour, weight, _ = graph
    draw, number = choice
    hops, last, chosen = 0, -1, -1
    for edge in range(indptr[node], indptr[node + 1]):
        other = neighbour[edge]
        if other != last and cost[node] == weight[edge] + cost[other]:
            hops += 1
            last = other
            chosen = edge
    if hops > 1:
        left = number % hops if number >= 0 else np.int64(draw % np.uint64(hops))
        last = -1
        for edge in range(indptr[node], indptr[node + 1]):
            other = neighbour[edge]
            if other != last and cost[node] == weight[edge] + cost[other]:
                last = other
                chosen = edge
                if left == 0:
                    break
                left -= 1
    return chosen, number // hops if number >= 0 else number


@njit(cache=True, inline="always")
def _cable(
    graph: tuple[Any, ...], node: int, edge: Any, choice: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Return one of the parallel edges from `edge` on, and what is left of the number.

    Parameters are those of `_next_hop`.
    """
    indptr, neighbour, weight, _ = graph
    draw, number = choice
    width = 1
    while (
        edge + width < indptr[node + 1]
        and neighbour[edge + width] == neighbour[edge]
        and weight[edge + width] == weight[edge]
    ):
        width += 1
    if width == 1:
        return edge, number
    if number >= 0:
        return edge + number % width, number // width
    return edge + np.int64(_mix(draw) % np.uint64(width)), number


@njit(cache=True)
def walk(
    graph: tuple[Any, ...],
    costs: tuple[Any, ...],
    flows: tuple[Any, ...],
    choice: tuple[Any, ...],
    own: tuple[Any, ...],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return ``(indptr, links)``: the links of every flow, in the order they are crossed.

    Parameters
    ----------
    graph
        ``(indptr, neighbour, weight, link)``.
    costs
        ``(to_group, to_switch, unit)``: costs to intermediate groups and to targets; modulo
        `unit` they are hops.
    flows
        ``(source, via, target)``: int64 [flows]: a switch, or -1 for a flow that enters no
        switch; the row of the intermediate group, or -1; the row of the target.
    choice
        ``(keys, numbers)``: uint64 and int64 [flows], a key to hash, and
        the number whose digits choose, or -1 where the hash does.
    own
        ``(before, after)``: int32 [flows, 3]: links before and after those between switches,
        filled up with -1.
    """
    to_group, to_switch, unit = costs
    source, via, target = flows
    keys, numbers = choice
    before, after = own
    _, neighbour, _, link = graph
    indptr = np.zeros(len(source) + 1, dtype=np.int64)
    links = np.empty(8 * len(source) + 16, dtype=np.int32)
    used = 0
    for flow in range(len(source)):
        if used + 3 > len(links):
            links = _grown(links, used + 3)
        used = listed(before, flow, links, used)
        node = source[flow]
        key, number = keys[flow], numbers[flow]
        for half in range(0 if via[flow] >= 0 else 1, 2 if node >= 0 else 0):
            cost = to_group[via[flow]] if half == 0 else to_switch[target[flow]]
            need = used + cost[node] % unit + 3
            if need > len(links):
                links = _grown(links, need)
            while cost[node] != 0:
                draw = _mix(key ^ np.uint64(node))
                edge, number = _next_hop(graph, cost, node, (draw, number))
                edge, number = _cable(graph, node, edge, (draw, number))
                links[used] = link[edge]
                used += 1
                node = neighbour[edge]
            # A second draw, so that ties of the two halves are settled independently.
            key = _mix(key)
        used = listed(after, flow, links, used)
        indptr[flow + 1] = used
    return indptr, links[:used].copy()


@njit(cache=True)
def taken(
    indptr: NDArray[np.int64], links: NDArray[np.int32], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return ``(indptr, links)`` of the paths at the given rows of others."""
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    for flow in range(len(rows)):
        starts[flow + 1] = starts[flow] + indptr[rows[flow] + 1] - indptr[rows[flow]]
    out = np.empty(starts[-1], dtype=np.int32)
    for flow in range(len(rows)):
        first = indptr[rows[flow]]
        for at in range(starts[flow + 1] - starts[flow]):
            out[starts[flow] + at] = links[first + at]
    return starts, out


@njit(cache=True)
def detours(
    keys: NDArray[np.uint64],
    ends: tuple[Any, ...],
    groups: int,
) -> NDArray[np.int64]:
    """Return int64 [flows]: a group drawn from all but the flow's own two; -1 inside a group.

    Parameters
    ----------
    keys
        uint64 [flows]: the draw is a hash of them.
    ends
        ``(source, target)``: the groups of every flow.
    groups
        At least 3.
    """
    source, target = ends
    via = np.full(len(keys), -1, dtype=np.int64)
    for flow in range(len(keys)):
        low, high = min(source[flow], target[flow]), max(source[flow], target[flow])
        if low == high:
            continue
        group = np.int64(_mix(keys[flow] ^ _GOLDEN) % np.uint64(groups - 2))
        group += group >= low
        group += group >= high
        via[flow] = group
    return via
