"""Compiled annealing of one layer's slots; imported only when a policy needs it."""

from __future__ import annotations

from math import inf, log
from typing import TYPE_CHECKING, NamedTuple

from numba import njit

from placement.search._tables_kernel import combined

if TYPE_CHECKING:
    import numpy as np

    from placement.search._tables_kernel import State, Terms, Tokens


class Schedule(NamedTuple):
    """One step of cooling.

    Attributes
    ----------
    temperature
        Rise of the value that a proposal may cause with probability 1 / e.
    load_price
        Price of load above hard caps, for the mean load of a place.
    count_price
        Price of a replica, or a move, too many.
    firm
        Whether nothing above a hard cap may grow, but load for fewer replicas or moves too many.
    proposals
        Swaps to propose.
    """

    temperature: float
    load_price: float
    count_price: float
    firm: bool
    proposals: int


@njit(cache=True)
def load_excess_change(terms: Terms, state: State, e: int, f: int) -> float:
    """Change of the load above the caps if items e and f change places."""
    a, b, change = state.place[e], state.place[f], 0.0
    for d in range(terms.cap.size):
        cap, shift = terms.cap[d], terms.load[d, e] - terms.load[d, f]
        had_a, had_b = state.heat[d, a], state.heat[d, b]
        change += max(0.0, had_a - shift - cap) + max(0.0, had_b + shift - cap)
        change -= max(0.0, had_a - cap) + max(0.0, had_b - cap)
    return change


@njit(cache=True)
def moved_change(terms: Terms, state: State, e: int, f: int) -> int:
    a, b, change = state.place[e], state.place[f], 0
    for i, old, new in ((e, a, b), (f, b, a)):
        if terms.previous[i] >= 0:
            change += int(terms.previous[i] != new) - int(terms.previous[i] != old)
    return change


@njit(cache=True)
def count_excess_change(terms: Terms, state: State, e: int, f: int) -> int:
    """Change of the replicas and moves too many if items e and f change places."""
    a, b, change = state.place[e], state.place[f], 0
    for i, old, new in ((e, a, b), (f, b, a)):
        x = terms.expert[i]
        if x >= 0:
            change += int(state.holds[x, new] >= terms.most_replicas)
            change -= int(state.holds[x, old] > terms.most_replicas)
    now = state.moved[0] - terms.most_moves
    change += max(0, now + moved_change(terms, state, e, f)) - max(0, now)
    return int(change)


@njit(cache=True)
def _copies_change(
    tokens: Tokens, terms: Terms, state: State, e: int, f: int, limit: float
) -> float:
    """Change of the combined copies if items e and f change places; infinity if above `limit`.

    Tokens of both items can only add to what the tables say, so that a single domain's step
    is refused without looking at them where the tables alone are above the limit.
    """
    a, b = state.place[e], state.place[f]
    cost_a, cost_b = terms.copy_cost[a], terms.copy_cost[b]
    domains = tokens.share.size
    for d in range(domains):
        state.change[d] = cost_b * (state.enters[d, e, b] - state.leaves[d, f])
        state.change[d] += cost_a * (state.enters[d, f, a] - state.leaves[d, e])
    if domains == 1 and state.change[0] * tokens.share[0] > limit:
        return inf
    low, high = min(e, f), max(e, f)
    pair = low * state.place.size + high
    for at in range(tokens.pair_start[pair], tokens.pair_start[pair + 1]):
        t = tokens.pair_token[at]
        d = tokens.domain[t]
        if state.reached[t, a] == 1:
            state.change[d] += cost_a
        if state.reached[t, b] == 1:
            state.change[d] += cost_b
    if domains == 1:
        return float(state.change[0] * tokens.share[0])
    return combined(tokens, terms, state, 1.0) - combined(tokens, terms, state, 0.0)


@njit(cache=True)
def _shift(tokens: Tokens, state: State, i: int, a: int, b: int) -> None:
    """Take item i from place a to b in the counters of its tokens."""
    state.place[i] = b
    for at in range(tokens.use_start[i], tokens.use_start[i + 1]):
        t = tokens.use_token[at]
        d = tokens.domain[t]
        state.reached[t, a] -= 1
        state.reached[t, b] += 1
        left, met = state.reached[t, a], state.reached[t, b]
        for j in tokens.item[t]:
            if left == 0:
                state.enters[d, j, a] += 1
            elif left == 1 and state.place[j] == a:
                state.leaves[d, j] += 1
            if met == 1:
                state.enters[d, j, b] -= 1
            elif met == 2 and j != i and state.place[j] == b:
                state.leaves[d, j] -= 1
        state.leaves[d, i] += int(met == 1) - int(left == 0)


@njit(cache=True)
def swap(tokens: Tokens, terms: Terms, state: State, e: int, f: int) -> None:
    """Let items e and f change places; `state.change` holds what that does to the copies."""
    a, b = state.place[e], state.place[f]
    state.moved[0] += moved_change(terms, state, e, f)
    for d in range(tokens.share.size):
        state.copies[d] += state.change[d]
    for d in range(terms.cap.size):
        shift = terms.load[d, e] - terms.load[d, f]
        state.heat[d, a] -= shift
        state.heat[d, b] += shift
    for i, old, new in ((e, a, b), (f, b, a)):
        if terms.expert[i] >= 0:
            state.holds[terms.expert[i], old] -= 1
            state.holds[terms.expert[i], new] += 1
        _shift(tokens, state, i, old, new)
    seat_e, seat_f = state.seat_of[e], state.seat_of[f]
    state.seat_of[e], state.seat_of[f] = seat_f, seat_e
    state.item_at[seat_e], state.item_at[seat_f] = f, e


@njit(cache=True)
def _proposal(rng: np.random.Generator, tokens: Tokens, state: State) -> tuple[int, int]:
    """Draw two items; every second time the second sits where one used with the first sits."""
    items = state.place.size
    e = int(rng.random() * items)
    uses = tokens.use_start[e + 1] - tokens.use_start[e]
    if rng.random() < 0.5 or uses == 0:
        return e, int(rng.random() * items)
    t = tokens.use_token[tokens.use_start[e] + int(rng.random() * uses)]
    p = state.place[tokens.item[t, int(rng.random() * tokens.item.shape[1])]]
    seats = state.first_seat[p + 1] - state.first_seat[p]
    return e, state.item_at[state.first_seat[p] + int(rng.random() * seats)]


@njit(cache=True)
def typical_change(
    rng: np.random.Generator, tokens: Tokens, terms: Terms, state: State, samples: int
) -> float:
    """Mean size of the change of the value by a random swap."""
    total, drawn = 0.0, 0
    for _ in range(samples):
        e, f = int(rng.random() * state.place.size), int(rng.random() * state.place.size)
        a, b = state.place[e], state.place[f]
        if a == b:
            continue
        change = _copies_change(tokens, terms, state, e, f, inf)
        change += terms.linear[e, b] - terms.linear[e, a]
        change += terms.linear[f, a] - terms.linear[f, b]
        if terms.load_price < inf:
            change += terms.load_price * load_excess_change(terms, state, e, f)
        total += abs(change)
        drawn += 1
    return total / max(1, drawn)


@njit(cache=True)
def anneal(
    rng: np.random.Generator,
    tokens: Tokens,
    terms: Terms,
    state: State,
    schedule: Schedule,
) -> None:
    """Propose swaps under Metropolis' rule at one temperature."""
    hard = terms.load_price == inf
    load_price = schedule.load_price if hard else terms.load_price
    for _ in range(schedule.proposals):
        e, f = _proposal(rng, tokens, state)
        a, b = state.place[e], state.place[f]
        if a == b or terms.expert[e] == terms.expert[f]:
            continue
        over, many = (
            load_excess_change(terms, state, e, f),
            count_excess_change(terms, state, e, f),
        )
        if schedule.firm and (many > 0 or (hard and many == 0 and over > 0.0)):
            continue
        rise = terms.linear[e, b] - terms.linear[e, a] + terms.linear[f, a] - terms.linear[f, b]
        rise += schedule.count_price * many + load_price * over
        limit = -schedule.temperature * log(1.0 - rng.random()) - rise
        if _copies_change(tokens, terms, state, e, f, limit) <= limit:
            swap(tokens, terms, state, e, f)
