"""Compiled search over which place takes which expert; imported only when a policy needs it."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, NamedTuple

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Caps(NamedTuple):
    """Count caps; a place is a server, or a GPU of one.

    Attributes
    ----------
    group_of_place
        int64 [places]: the server of a place.
    place_layer, place_total
        Most experts on a place: of one layer, over all layers.
    group_layer, group_total
        The same for a server.
    """

    group_of_place: NDArray[np.int64]
    place_layer: int
    place_total: int
    group_layer: int
    group_total: int


class State(NamedTuple):
    """An assignment and the sums that a move changes; all arrays are changed in place.

    Attributes
    ----------
    place
        int64 [layers, experts].
    heat
        float64 [layers, places]: load.
    slots, group_slots
        int64 [layers, places], [layers, groups]: experts.
    total, group_total
        int64 [places], [groups]: experts over all layers.
    """

    place: NDArray[np.int64]
    heat: NDArray[np.float64]
    slots: NDArray[np.int64]
    group_slots: NDArray[np.int64]
    total: NDArray[np.int64]
    group_total: NDArray[np.int64]


class Prices(NamedTuple):
    """What the search minimises: ``sum load * cost + sum weight * load above the cap``.

    Attributes
    ----------
    load
        float64 [layers, experts].
    by_load
        int64 [layers, experts]: experts sorted by load.
    cost
        float64 [layers, places].
    cap, weight
        float64 [layers]: most load of a place, and the price of load above.
    """

    load: NDArray[np.float64]
    by_load: NDArray[np.int64]
    cost: NDArray[np.float64]
    cap: NDArray[np.float64]
    weight: NDArray[np.float64]


@njit(cache=True)
def _excess(heat: float, cap: float) -> float:
    return heat - cap if heat > cap else 0.0


@njit(cache=True)
def shift_price(state: State, prices: Prices, at: int, a: int, b: int, moved: float) -> float:
    """Price of taking `moved` load from place a to place b of layer `at`."""
    cap = prices.cap[at]
    had_a, had_b = state.heat[at, a], state.heat[at, b]
    over = _excess(had_a - moved, cap) + _excess(had_b + moved, cap)
    over -= _excess(had_a, cap) + _excess(had_b, cap)
    return float(moved * (prices.cost[at, b] - prices.cost[at, a]) + prices.weight[at] * over)


@njit(cache=True)
def _taken(rng: np.random.Generator, price: float, temperature: float) -> bool:
    """Whether Metropolis' rule takes a step of this price."""
    if price <= 0.0:
        return True
    return price < 30.0 * temperature and rng.random() < exp(-price / temperature)


@njit(cache=True)
def has_room(state: State, caps: Caps, at: int, a: int, b: int) -> bool:
    """Whether the layer's caps let place b take one more expert from place a."""
    ga, gb = caps.group_of_place[a], caps.group_of_place[b]
    open_: bool = ga == gb or state.group_slots[at, gb] < caps.group_layer
    return open_ and bool(state.slots[at, b] < caps.place_layer)


@njit(cache=True)
def total_has_room(state: State, caps: Caps, a: int, b: int) -> bool:
    ga, gb = caps.group_of_place[a], caps.group_of_place[b]
    open_: bool = ga == gb or state.group_total[gb] < caps.group_total
    return open_ and bool(state.total[b] < caps.place_total)


@njit(cache=True)
def move(state: State, prices: Prices, caps: Caps, at: int, expert: int, b: int) -> None:
    a, load = state.place[at, expert], prices.load[at, expert]
    state.place[at, expert] = b
    state.heat[at, a] -= load
    state.heat[at, b] += load
    for place, step in ((a, -1), (b, 1)):
        group = caps.group_of_place[place]
        state.slots[at, place] += step
        state.group_slots[at, group] += step
        state.total[place] += step
        state.group_total[group] += step


@njit(cache=True)
def _try_swap(
    rng: np.random.Generator,
    state: State,
    prices: Prices,
    at: int,
    temperature: float,
    reach: int,
) -> None:
    """Let two experts of layer `at`, at most `reach` ranks of load apart, change places."""
    experts = state.place.shape[1]
    rank = int(rng.random() * experts)
    other = rank + int(rng.random() * (2 * reach + 1)) - reach
    if other < 0 or other >= experts:
        return
    e, f = prices.by_load[at, rank], prices.by_load[at, other]
    a, b = state.place[at, e], state.place[at, f]
    if a == b:
        return
    moved = prices.load[at, e] - prices.load[at, f]
    if _taken(rng, shift_price(state, prices, at, a, b, moved), temperature):
        state.place[at, e], state.place[at, f] = b, a
        state.heat[at, a] -= moved
        state.heat[at, b] += moved


@njit(cache=True)
def _try_move(
    rng: np.random.Generator, state: State, prices: Prices, caps: Caps, temperature: float
) -> None:
    """Move an expert; where the total of its new place is full, another layer's goes back."""
    layers, experts = state.place.shape
    at, e = int(rng.random() * layers), int(rng.random() * experts)
    a, b = state.place[at, e], int(rng.random() * state.total.size)
    if a == b or not has_room(state, caps, at, a, b):
        return
    price = shift_price(state, prices, at, a, b, prices.load[at, e])
    if total_has_room(state, caps, a, b):
        if _taken(rng, price, temperature):
            move(state, prices, caps, at, e, b)
        return
    to, f = int(rng.random() * layers), int(rng.random() * experts)
    # From a random expert on, the first one of the other layer that sits on b.
    for _ in range(experts):
        if state.place[to, f] == b:
            break
        f = f + 1 if f + 1 < experts else 0
    if to == at or state.place[to, f] != b or not has_room(state, caps, to, b, a):
        return
    price += shift_price(state, prices, to, b, a, prices.load[to, f])
    if _taken(rng, price, temperature):
        move(state, prices, caps, at, e, b)
        move(state, prices, caps, to, f, a)


@njit(cache=True)
def _try_exchange(
    rng: np.random.Generator,
    state: State,
    prices: Prices,
    caps: Caps,
    at: int,
    temperature: float,
) -> None:
    """Let two places of layer `at` exchange all their experts: no load changes, only costs do."""
    places = state.total.size
    a, b = int(rng.random() * places), int(rng.random() * places)
    heat_a, heat_b = state.heat[at, a], state.heat[at, b]
    more = state.slots[at, a] - state.slots[at, b]
    if more < 0:
        a, b, heat_a, heat_b, more = b, a, heat_b, heat_a, -more
    ga, gb = caps.group_of_place[a], caps.group_of_place[b]
    if a == b or state.total[b] + more > caps.place_total:
        return
    if ga != gb and (
        state.group_total[gb] + more > caps.group_total
        or state.group_slots[at, gb] + more > caps.group_layer
    ):
        return
    price = (heat_a - heat_b) * (prices.cost[at, b] - prices.cost[at, a])
    if not _taken(rng, price, temperature):
        return
    for e in range(state.place.shape[1]):
        if state.place[at, e] == a:
            state.place[at, e] = b
        elif state.place[at, e] == b:
            state.place[at, e] = a
    state.heat[at, a], state.heat[at, b] = heat_b, heat_a
    for place, step in ((a, -more), (b, more)):
        group = caps.group_of_place[place]
        state.slots[at, place] += step
        state.group_slots[at, group] += step
        state.total[place] += step
        state.group_total[group] += step


@njit(cache=True)
def anneal(
    rng: np.random.Generator,
    state: State,
    prices: Prices,
    caps: Caps,
    temperature: float,
    proposals: int,
    move_share: float,
) -> None:
    """Make `proposals` Metropolis steps at one temperature: swaps, moves and exchanges."""
    layers, experts = state.place.shape
    near = max(1, experts // 16)
    for block in range(proposals // experts + 1):
        # Layer after layer: what a block of steps reads stays in the cache.
        at = block % layers
        for _ in range(experts // 32 + 1):
            _try_exchange(rng, state, prices, caps, at, temperature)
        for _ in range(experts):
            kind = rng.random()
            if kind < move_share:
                _try_move(rng, state, prices, caps, temperature)
            elif kind < 0.5 + 0.5 * move_share:
                _try_swap(rng, state, prices, at, temperature, near)
            else:
                _try_swap(rng, state, prices, at, temperature, experts - 1)
