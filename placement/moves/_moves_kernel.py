"""Compiled loops of re-placement: dealing items to cells, peeling cycles, the best exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOBODY = -1


@njit(cache=True)
def deal(
    hub_of_item: NDArray[np.int64],
    weight: NDArray[np.float64],
    route_start: NDArray[np.int64],
    route_cell: NDArray[np.int64],
    quota: NDArray[np.int64],
    heat: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Give each item, in order, the least loaded cell of its hub that has a quota left.

    Parameters
    ----------
    hub_of_item, weight
        [items]: heaviest first.
    route_start
        int64 [hubs + 1]: the routes of a hub.
    route_cell, quota
        int64 [routes]: where a route leads and how many items take it; used up in place.
    heat
        float64 [cells]: load of every cell; added to in place.

    Returns
    -------
    int64 [items]: cell of every item.
    """
    cell_of_item = np.empty(len(hub_of_item), dtype=np.int64)
    for item, hub in enumerate(hub_of_item):
        chosen = NOBODY
        for route in range(route_start[hub], route_start[hub + 1]):
            free = quota[route] > 0
            if free and (chosen == NOBODY or heat[route_cell[route]] < heat[route_cell[chosen]]):
                chosen = route
        quota[chosen] -= 1
        cell_of_item[item] = route_cell[chosen]
        heat[route_cell[chosen]] += weight[item]
    return cell_of_item


@njit(cache=True)
def peel(
    start: NDArray[np.int64], head: NDArray[np.int64], arc_of: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Split a circulation of unit arcs into simple cycles.

    Parameters
    ----------
    start
        int64 [nodes + 1]: the arcs out of a node in the sorted arrays; in and out degree of
        every node are equal.
    head, arc_of
        int64 [arcs], sorted by tail: where an arc leads, and its number.

    Returns
    -------
    int64 [arcs]: the cycle of every arc, by its number.
    """
    nodes = len(start) - 1
    cycle = np.full(len(head), NOBODY, dtype=np.int64)
    following = start[:-1].copy()
    position = np.full(nodes, NOBODY, dtype=np.int64)
    path_node = np.empty(nodes + 1, dtype=np.int64)
    path_arc = np.empty(nodes + 1, dtype=np.int64)
    found = 0
    for origin in range(nodes):
        node, length = origin, 0
        position[node] = 0
        path_node[0] = node
        while following[node] < start[node + 1]:
            arc = following[node]
            following[node] += 1
            path_arc[length] = arc
            node = head[arc]
            length += 1
            if position[node] == NOBODY:
                position[node] = length
                path_node[length] = node
                continue
            # Back at a node of the path: what came after it is a cycle.
            first = position[node]
            for step in range(first, length):
                cycle[arc_of[path_arc[step]]] = found
                if step > first:
                    position[path_node[step]] = NOBODY
            found += 1
            length = first
        position[node] = NOBODY
    return cycle


@njit(cache=True)
def best_exchange(
    assignment: tuple[NDArray[np.int64], NDArray[np.int64]],
    load: NDArray[np.float64],
    cost: NDArray[np.float64],
    room: tuple[NDArray[np.int64], NDArray[np.int64]],
    most_moves: int,
) -> tuple[float, int, int, int, int]:
    """Find the change of one or two experts of a layer that saves most within `most_moves`.

    Parameters
    ----------
    assignment
        Server and home server of every expert, each int64 [layers, experts].
    load, cost
        float64 [layers, experts] and [layers, servers].
    room
        int64 [layers, servers] and [servers]: experts that a server may still take, of the
        layer and in all.

    Returns
    -------
    Saving, layer, expert, the expert it swaps with or -1, and the server it goes to; a saving
    of zero where nothing helps.
    """
    server, home = assignment
    best = (0.0, NOBODY, NOBODY, NOBODY, NOBODY)
    for layer in range(load.shape[0]):
        price = cost[layer]
        for expert in range(load.shape[1]):
            here, own = server[layer, expert], home[layer, expert]
            at_home = int(here == own)
            for there in range(cost.shape[1]):
                if there == here or room[0][layer, there] < 1 or room[1][there] < 1:
                    continue
                saving = load[layer, expert] * (price[here] - price[there])
                if saving > best[0] and at_home - int(there == own) <= most_moves:
                    best = (saving, layer, expert, NOBODY, there)
            for other in range(expert):
                there = server[layer, other]
                saving = (load[layer, expert] - load[layer, other]) * (price[here] - price[there])
                if saving <= best[0]:
                    continue
                moves = at_home - int(there == own) + int(there == home[layer, other])
                if moves - int(here == home[layer, other]) <= most_moves:
                    best = (saving, layer, expert, other, there)
    return best
