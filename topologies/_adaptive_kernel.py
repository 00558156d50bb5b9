"""Compiled adaptive routing: every flow compares its two ways under the load of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True, inline="always")
def _add(
    way: tuple[Any, ...],
    flow: int,
    size: float,
    seconds_per_byte: NDArray[np.float64],
    load: NDArray[np.float64],
) -> None:
    """Add a flow's seconds to the load of all links of its way."""
    indptr, links = way
    for at in range(indptr[flow], indptr[flow + 1]):
        load[links[at]] += size * seconds_per_byte[links[at]]


@njit(cache=True, inline="always")
def _price(
    way: tuple[Any, ...],
    flow: int,
    seconds_per_byte: NDArray[np.float64],
    load: NDArray[np.float64],
) -> float:
    """Return hops times the load that others put on the busiest link.

    Both ways begin and end on the same two host links, which are hops like the others; only
    links between switches take seconds per byte here.
    """
    indptr, links = way
    hops, busiest = 2, 0.0
    for at in range(indptr[flow], indptr[flow + 1]):
        rate = seconds_per_byte[links[at]]
        if rate > 0.0:
            hops += 1
            busiest = max(busiest, load[links[at]])
    return hops * busiest


@njit(cache=True)
def settle(
    ways: tuple[Any, ...],
    flows: tuple[Any, ...],
    seconds_per_byte: NDArray[np.float64],
    passes: int,
) -> NDArray[np.bool_]:
    """Return bool [flows]: whether each takes its second way.

    Flows choose one after another: the second way where hops times the load of its busiest link
    is less than on the first. From the second pass on a flow is taken off its way before it
    chooses again under the load of all others.

    Parameters
    ----------
    ways
        ``(indptr, links)`` of the first and the second way.
    flows
        ``(size, layer, order)``: bytes, layer and the order of choice, by layer first; a layer
        does not see another's load.
    seconds_per_byte
        float64 [links]; 0 where a load is not looked at.
    passes
        Times every flow chooses.
    """
    first, second = ways
    size, layer, order = flows
    taken = np.zeros(len(size), dtype=np.bool_)
    load = np.zeros(len(seconds_per_byte))
    stop = 0
    while stop < len(order):
        start = stop
        while stop < len(order) and layer[order[stop]] == layer[order[start]]:
            stop += 1
        load[:] = 0.0
        for turn in range(passes):
            for flow in order[start:stop]:
                if turn > 0:
                    way = second if taken[flow] else first
                    _add(way, flow, -size[flow], seconds_per_byte, load)
                straight = _price(first, flow, seconds_per_byte, load)
                detour = _price(second, flow, seconds_per_byte, load)
                taken[flow] = detour < straight
                way = second if taken[flow] else first
                _add(way, flow, size[flow], seconds_per_byte, load)
    return taken


@njit(cache=True)
def merge(
    ways: tuple[Any, ...], second: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return ``(indptr, links)`` with every flow's way, the second where `second` says so."""
    indptr = np.zeros(len(second) + 1, dtype=np.int64)
    for flow in range(len(second)):
        starts = ways[1][0] if second[flow] else ways[0][0]
        indptr[flow + 1] = indptr[flow] + starts[flow + 1] - starts[flow]
    links = np.empty(indptr[-1], dtype=np.int32)
    for flow in range(len(second)):
        starts, entries = ways[1] if second[flow] else ways[0]
        links[indptr[flow] : indptr[flow + 1]] = entries[starts[flow] : starts[flow + 1]]
    return indptr, links
