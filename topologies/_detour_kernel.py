"""Compiled expectation of where a flow enters a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from topologies._kernels import _next_hops

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def entry_shares(
    graph: tuple[Any, ...], cost: NDArray[np.int32], place: NDArray[np.int64], places: int
) -> NDArray[np.float64]:
    """Return float64 [switches, places]: how likely a flow from a switch enters at each place.

    At every switch all next hops on shortest paths are equally likely.

    Parameters
    ----------
    graph
        ``(indptr, neighbour, weight, link)``.
    cost
        Costs to the group.
    place
        int64 [switches]: the place of a switch of the group; others are not looked at.
    places
        Switches of the group.
    """
    indptr, neighbour, weight, _ = graph
    shares = np.zeros((len(cost), places))
    for node in np.argsort(cost, kind="mergesort"):
        if cost[node] == 0:
            shares[node, place[node]] = 1.0
            continue
        hops = _next_hops(indptr, neighbour, weight, cost, node)
        last = -1
        for edge in range(indptr[node], indptr[node + 1]):
            other = neighbour[edge]
            if other != last and cost[node] == weight[edge] + cost[other]:
                last = other
                shares[node] += shares[other] / hops
    return shares
