"""Compiled packing of one layer's experts into places of few slots, the fullest one light."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAIN = 1e-12
"""Least decrease of a maximum, relative, that counts: below is rounding."""


@njit(cache=True)
def deal(
    load: NDArray[np.float64],
    group_of_place: NDArray[np.int64],
    place_cap: int,
    group_cap: int,
    place: NDArray[np.int64],
) -> None:
    """Longest processing time first: in order, each expert to the coolest open place."""
    heat, count = np.zeros(group_of_place.size), np.zeros(group_of_place.size, np.int64)
    group_count = np.zeros(group_of_place.size, np.int64)
    for expert in range(load.size):
        best = -1
        for p in range(heat.size):
            full = count[p] >= place_cap or group_count[group_of_place[p]] >= group_cap
            if not full and (best < 0 or heat[p] < heat[best]):
                best = p
        place[expert] = best
        heat[best] += load[expert]
        count[best] += 1
        group_count[group_of_place[best]] += 1


@njit(cache=True)
def heat_of(
    load: NDArray[np.float64], place: NDArray[np.int64], places: int
) -> NDArray[np.float64]:
    """Sum the load of every place."""
    heat = np.zeros(places)
    for expert in range(load.size):
        heat[place[expert]] += load[expert]
    return heat


@njit(cache=True)
def _hottest(heat: NDArray[np.float64]) -> int:
    """First of the hottest places."""
    hot = 0
    for p in range(heat.size):
        if heat[p] > heat[hot]:
            hot = p
    return hot


@njit(cache=True)
def maximum_of(load: NDArray[np.float64], place: NDArray[np.int64], places: int) -> float:
    """Load of the hottest place."""
    heat = heat_of(load, place, places)
    return float(heat[_hottest(heat)])


@njit(cache=True)
def _copy(source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
    # A loop compiles many times faster than an assignment to a slice.
    for i in range(source.size):
        target[i] = source[i]


@njit(cache=True)
def counts_of(place: NDArray[np.int64], places: int) -> NDArray[np.int64]:
    """Count the experts of every place."""
    count = np.zeros(places, np.int64)
    for p in place:
        count[p] += 1
    return count


@njit(cache=True)
def _best_swap(
    load: NDArray[np.float64], place: NDArray[np.int64], heat: NDArray[np.float64], hot: int
) -> tuple[float, int, int]:
    """Swap off place `hot` that leaves it and the other coolest: their maximum, the experts."""
    least, give, take = heat[hot] * (1 - GAIN), -1, -1
    for e in range(load.size):
        if place[e] != hot:
            continue
        for f in range(load.size):
            moved = load[e] - load[f]
            if moved > 0 and place[f] != hot:
                after = max(heat[hot] - moved, heat[place[f]] + moved)
                if after < least:
                    least, give, take = after, e, f
    return least, give, take


@njit(cache=True)
def _best_move(
    load: NDArray[np.float64],
    place: NDArray[np.int64],
    heat: NDArray[np.float64],
    hot: int,
    caps: tuple[NDArray[np.int64], int, int],
) -> tuple[float, int, int]:
    """Move off place `hot` that leaves it and the other coolest: maximum, expert, new place."""
    groups, place_cap, group_cap = caps
    count = counts_of(place, heat.size)
    group_count = np.zeros(heat.size, np.int64)
    for q in range(heat.size):
        group_count[groups[q]] += count[q]
    least, give, to = heat[hot] * (1 - GAIN), -1, -1
    for q in range(heat.size):
        full = groups[q] != groups[hot] and group_count[groups[q]] >= group_cap
        if q == hot or full or count[q] >= place_cap:
            continue
        for e in range(load.size):
            after = max(heat[hot] - load[e], heat[q] + load[e])
            if place[e] == hot and after < least:
                least, give, to = after, e, q
    return least, give, to


@njit(cache=True)
def _descend(
    load: NDArray[np.float64],
    caps: tuple[NDArray[np.int64], int, int],
    place: NDArray[np.int64],
) -> float:
    """Cool the hottest place by its best swap or move until none does; return the maximum."""
    heat = heat_of(load, place, caps[0].size)
    while True:
        hot = _hottest(heat)
        swapped, give, take = _best_swap(load, place, heat, hot)
        moved, single, to = _best_move(load, place, heat, hot, caps)
        if give < 0 and single < 0:
            return float(heat[hot])
        if single >= 0 and (give < 0 or moved < swapped):
            place[single] = to
        else:
            place[give], place[take] = place[take], hot
        heat = heat_of(load, place, heat.size)


@njit(cache=True)
def _kick(
    rng: np.random.Generator,
    load: NDArray[np.float64],
    place: NDArray[np.int64],
    places: int,
) -> None:
    """Swap an expert of the hottest place, and two of any places, with random others."""
    hot = _hottest(heat_of(load, place, places))
    for turn in range(3):
        e, f = int(rng.random() * load.size), int(rng.random() * load.size)
        if turn == 0:
            while place[e] != hot:
                e = e + 1 if e + 1 < load.size else 0
        place[e], place[f] = place[f], place[e]


@njit(cache=True)
def least_maximum(
    rng: np.random.Generator,
    load: NDArray[np.float64],
    caps: tuple[NDArray[np.int64], int, int],
    target: float,
    kicks: int,
    place: NDArray[np.int64],
) -> float:
    """Pack one layer: longest processing time first, then swaps and moves, then kicked restarts.

    Parameters
    ----------
    rng
        Source of the kicks.
    load
        float64 [experts], hottest first.
    caps
        int64 [places] group of every place, slots of a place, slots of a group.
    target
        Stop once no place is hotter.
    kicks
        Restarts, each from the best packing with three random swaps.
    place
        int64 [experts]: receives the packing.

    Returns
    -------
    Load of the hottest place.
    """
    groups, place_cap, group_cap = caps
    deal(load, groups, place_cap, group_cap, place)
    best = _descend(load, caps, place)
    trial = np.empty_like(place)
    for _ in range(kicks):
        if best <= target:
            break
        _copy(place, trial)
        _kick(rng, load, trial, groups.size)
        found = _descend(load, caps, trial)
        if found <= best:
            best = found
            _copy(trial, place)
    return maximum_of(load, place, groups.size)


@njit(cache=True)
def _next_place(
    tried: int, heat: NDArray[np.float64], count: NDArray[np.int64], place_cap: int, most: float
) -> int:
    """First open place after `tried` below `most` load; those after an empty one are like it."""
    p = tried
    while p < 0 or count[p] > 0:
        p += 1
        if p == heat.size or (count[p] < place_cap and heat[p] < most):
            return p
    return heat.size


@njit(cache=True)
def _room(
    heat: NDArray[np.float64], count: NDArray[np.int64], place_cap: int, limit: float
) -> float:
    """Load that places with a free slot can take below `limit`."""
    room = 0.0
    for p in range(heat.size):
        if count[p] < place_cap:
            room += limit - heat[p]
    return room


@njit(cache=True)
def exact_maximum(
    load: NDArray[np.float64],
    places: int,
    place_cap: int,
    target: float,
    nodes: int,
    place: NDArray[np.int64],
) -> bool:
    """Improve a packing of experts sorted hottest first by branch and bound.

    Empty places are alike, so only the first is tried. A branch is cut when an expert, or the
    mean of what is left over the room below the best maximum, does not fit. `place` holds the
    best packing known and receives a better one.

    Returns
    -------
    Whether no packing is better (or the target is reached), within the `nodes` allowed.
    """
    n = load.size
    best = maximum_of(load, place, places)
    rest = np.zeros(n + 1)
    for i in range(n - 1, -1, -1):
        rest[i] = rest[i + 1] + load[i]
    heat, count = np.zeros(places), np.zeros(places, np.int64)
    at, depth, visited = np.full(n, -1), 0, 0
    while depth >= 0 and best > target:
        visited += 1
        if visited > nodes:
            return False
        item, p = load[depth], at[depth]
        if p >= 0:
            heat[p] -= item
            count[p] -= 1
        limit = best * (1 - GAIN)
        p = _next_place(p, heat, count, place_cap, limit - item)
        if p >= places:
            at[depth] = -1
            depth -= 1
            continue
        at[depth] = p
        heat[p] += item
        count[p] += 1
        if depth + 1 == n:
            best = heat[_hottest(heat)]
            _copy(at, place)
            continue
        if rest[depth + 1] < _room(heat, count, place_cap, limit):
            depth += 1
    return True
