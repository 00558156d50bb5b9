"""Compiled tables of one layer's local search: what a swap of two slots would change.

A free slot is an item without expert, load or tokens, so that a move into it is a swap too.
Swapping changes the copies of tokens that use one of the two items only, and two tables give
that change without looking at tokens: ``enters[i, p]``, the tokens of item i with nothing on
place p, and ``leaves[i]``, those with nothing else on the place of i. Tokens that use both items
are in ``leaves`` but keep their copies: they are put right from a list per pair.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tokens(NamedTuple):
    """Which items the tokens use.

    Attributes
    ----------
    item
        int32 [tokens, k].
    domain
        int64 [tokens].
    share
        float64 [domains]: one over the tokens of a domain.
    use_start, use_token
        int64 [items + 1], int32 [tokens * k]: the tokens of every item, ascending.
    pair_start, pair_token
        int64 [items * items + 1], int32: the tokens of items i < j from ``i * items + j`` on.
    """

    item: NDArray[np.int32]
    domain: NDArray[np.int64]
    share: NDArray[np.float64]
    use_start: NDArray[np.int64]
    use_token: NDArray[np.int32]
    pair_start: NDArray[np.int64]
    pair_token: NDArray[np.int32]


class Terms(NamedTuple):
    """Cost terms and caps of a layer; free slots are items without load, tokens or expert.

    Attributes
    ----------
    linear
        float64 [items, places].
    copy_cost
        float64 [places]: what a token's copy to a place costs; not negative.
    deviation
        Weight of the standard deviation over domains; infinity: the worst domain counts alone.
    load
        float64 [load domains, items], with places of mean load 1.
    cap
        float64 [load domains]: most load of a place.
    load_price
        What a mean load of a place above the caps adds to the value; infinity: caps are hard.
    expert
        int64 [items]: below 0 for a free slot.
    most_replicas
        Most slots of one expert on a place.
    previous
        int64 [items]: the place an item comes from, below 0 for none.
    most_moves
        Most items away from there.
    """

    linear: NDArray[np.float64]
    copy_cost: NDArray[np.float64]
    deviation: float
    load: NDArray[np.float64]
    cap: NDArray[np.float64]
    load_price: float
    expert: NDArray[np.int64]
    most_replicas: int
    previous: NDArray[np.int64]
    most_moves: int


class State(NamedTuple):
    """An arrangement and its sums; all arrays are changed in place.

    Attributes
    ----------
    place
        int64 [items].
    first_seat, item_at, seat_of
        int64 [places + 1], [items], [items]: the seats of a place and who has them.
    reached
        uint8 [tokens, places]: items of the token there.
    enters, leaves
        int32 [domains, items, places], [domains, items]: see the module.
    copies
        float64 [domains]: sum over tokens of the cost of their copies.
    heat
        float64 [load domains, places].
    holds
        int16 [experts, places]: slots of an expert.
    moved
        int64 [1]: items away from their previous place.
    change
        float64 [domains]: change of `copies` that the step at hand would make.
    """

    place: NDArray[np.int64]
    first_seat: NDArray[np.int64]
    item_at: NDArray[np.int64]
    seat_of: NDArray[np.int64]
    reached: NDArray[np.uint8]
    enters: NDArray[np.int32]
    leaves: NDArray[np.int32]
    copies: NDArray[np.float64]
    heat: NDArray[np.float64]
    holds: NDArray[np.int16]
    moved: NDArray[np.int64]
    change: NDArray[np.float64]


@njit(cache=True)
def index_tokens(
    item: NDArray[np.int32], items: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """List the tokens of every item and of every pair of items, see `Tokens`."""
    tokens, top_k = item.shape
    use = np.zeros(items + 1, np.int64)
    pair = np.zeros(items * items + 1, np.int64)
    for t in range(tokens):
        for x in range(top_k):
            use[item[t, x] + 1] += 1
            for y in range(top_k):
                if item[t, x] < item[t, y]:
                    pair[item[t, x] * items + item[t, y] + 1] += 1
    use, pair = np.cumsum(use), np.cumsum(pair)
    use_token, pair_token = np.empty(use[-1], np.int32), np.empty(pair[-1], np.int32)
    use_next, pair_next = use.copy(), pair.copy()
    for t in range(tokens):
        for x in range(top_k):
            i = item[t, x]
            use_token[use_next[i]] = t
            use_next[i] += 1
            for y in range(top_k):
                j = item[t, y]
                if i < j:
                    pair_token[pair_next[i * items + j]] = t
                    pair_next[i * items + j] += 1
    return use, use_token, pair, pair_token


@njit(cache=True)
def sum_up(tokens: Tokens, terms: Terms, state: State) -> None:
    """Fill all sums of `state` from the places of its items."""
    _sum_items(terms, state)
    state.copies[:] = 0.0
    state.change[:] = 0.0
    state.reached[:] = 0
    state.enters[:] = 0
    state.leaves[:] = 0
    for t in range(len(tokens.item)):
        d, reached = tokens.domain[t], state.reached[t]
        for i in tokens.item[t]:
            reached[state.place[i]] += 1
        for p in range(len(reached)):
            if reached[p] > 0:
                state.copies[d] += terms.copy_cost[p]
        for i in tokens.item[t]:
            state.leaves[d, i] += int(reached[state.place[i]] == 1)
            for p in range(len(reached)):
                state.enters[d, i, p] += int(reached[p] == 0)


@njit(cache=True)
def _sum_items(terms: Terms, state: State) -> None:
    """Fill what needs no tokens: seats, loads, replicas and moves."""
    state.heat[:] = 0.0
    state.holds[:] = 0
    state.moved[0] = 0
    seat = state.first_seat.copy()
    for i in range(state.place.size):
        p = state.place[i]
        state.seat_of[i] = seat[p]
        state.item_at[seat[p]] = i
        seat[p] += 1
        for d in range(terms.cap.size):
            state.heat[d, p] += terms.load[d, i]
        if terms.expert[i] >= 0:
            state.holds[terms.expert[i], p] += 1
        if terms.previous[i] >= 0 and terms.previous[i] != p:
            state.moved[0] += 1


@njit(cache=True)
def combined(tokens: Tokens, terms: Terms, state: State, pending: float) -> float:
    """Copies per token, over domains: the worst, or the mean plus the weighted deviation.

    The copies are those of `state` plus `pending`, 0 or 1, times the change at hand.
    """
    domains = tokens.share.size
    if domains == 1:
        return float((state.copies[0] + pending * state.change[0]) * tokens.share[0])
    total, square, worst = 0.0, 0.0, -inf
    for d in range(domains):
        mean = (state.copies[d] + pending * state.change[d]) * tokens.share[d]
        total += mean
        square += mean * mean
        worst = max(worst, mean)
    if terms.deviation == inf:
        return worst
    mean = total / domains
    return mean + terms.deviation * sqrt(max(0.0, square / domains - mean * mean))


@njit(cache=True)
def over_caps(terms: Terms, state: State) -> float:
    """Load above the caps, summed over places and load domains."""
    over = 0.0
    for d in range(terms.cap.size):
        for heat in state.heat[d]:
            over += max(0.0, heat - terms.cap[d])
    return over


@njit(cache=True)
def value_of(tokens: Tokens, terms: Terms, state: State) -> float:
    """Copies, linear cost and priced load of the arrangement."""
    value = combined(tokens, terms, state, 0.0)
    for i in range(state.place.size):
        value += terms.linear[i, state.place[i]]
    if terms.load_price < inf:
        value += terms.load_price * over_caps(terms, state)
    return value


@njit(cache=True)
def excess_of(terms: Terms, state: State) -> float:
    """Load above hard caps, replicas too many and moves too many, summed."""
    excess = max(0.0, float(state.moved[0] - terms.most_moves))
    if terms.load_price == inf:
        excess += over_caps(terms, state)
    for held in state.holds.ravel():
        excess += max(0.0, float(held - terms.most_replicas))
    return excess
