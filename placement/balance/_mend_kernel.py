"""Compiled repair of a placement: few moves that bring every load below its cap."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from placement.balance._search_kernel import has_room, move, shift_price, total_has_room

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.balance._search_kernel import Caps, Prices, State

_ROUNDING = 1e-12
_FREE = 1e-3
"""What a change without any move counts as, in moves: it comes before those that make some."""
NOBODY = -1


class Step(NamedTuple):
    """A change of one or two experts, and the excess that it takes away by the move.

    Expert `expert` of layer `at` goes to `there`; `other` of layer `to` takes the way back, with
    `other` below 0 if none has to.
    """

    gain: float
    expert: int
    there: int
    to: int
    other: int


@njit(cache=True)
def mend(state: State, prices: Prices, caps: Caps, home: NDArray[np.int64]) -> None:
    """Change places, most excess removed a move first, until none is too hot or nothing helps.

    The hottest place sends an expert away: in a swap within the layer; to a place with room; or
    there against an expert of another layer, which had best leave a hot place too. The total
    excess falls with every change, so that the loop ends.

    Parameters
    ----------
    state
        The placement, changed in place.
    prices
        Costs of zero, and a weight of one on load above the caps.
    home
        int64 [layers, experts]: places that count as unmoved.
    """
    stuck = np.zeros(state.heat.shape, dtype=np.bool_)
    while True:
        at, a = _hottest(state, prices, stuck)
        if at == NOBODY:
            return
        step = _best_step(state, prices, caps, home, at, a)
        if step.expert == NOBODY:
            stuck[at, a] = True
            continue
        stuck[:] = False
        move(state, prices, caps, at, step.expert, step.there)
        if step.other != NOBODY:
            move(state, prices, caps, step.to, step.other, a)


@njit(cache=True)
def _hottest(state: State, prices: Prices, stuck: NDArray[np.bool_]) -> tuple[int, int]:
    """Layer and place farthest above its cap, of those not stuck."""
    worst, at, a = _ROUNDING, NOBODY, NOBODY
    for layer in range(state.heat.shape[0]):
        for place in range(state.heat.shape[1]):
            over = state.heat[layer, place] - prices.cap[layer]
            if over > worst and not stuck[layer, place]:
                worst, at, a = over, layer, place
    return at, a


@njit(cache=True)
def _moves(state: State, home: NDArray[np.int64], layer: int, expert: int, there: int) -> int:
    """Moves more if the expert goes there: -1, 0 or 1."""
    own = home[layer, expert]
    return int(there != own) - int(state.place[layer, expert] != own)


@njit(cache=True)
def _best_step(
    state: State, prices: Prices, caps: Caps, home: NDArray[np.int64], at: int, a: int
) -> Step:
    """Find what takes most excess away by the move, from place `a` of layer `at`."""
    load, place = prices.load[at], state.place[at]
    gain, to, back = _ways_back(state, prices, caps, home, at, a)
    best = Step(0.0, NOBODY, NOBODY, NOBODY, NOBODY)
    for e in range(len(place)):
        if place[e] != a:
            continue
        for f in range(len(place)):
            b = place[f]
            if b == a:
                continue
            less = -shift_price(state, prices, at, a, b, load[e] - load[f])
            more = _moves(state, home, at, e, b) + _moves(state, home, at, f, a)
            rate = less / max(_FREE, float(more))
            if less > _ROUNDING and rate > best.gain:
                best = Step(rate, e, b, at, f)
        for b in range(len(gain)):
            if gain[b] == -inf or not has_room(state, caps, at, a, b):
                continue
            less = gain[b] - shift_price(state, prices, at, a, b, load[e])
            more = _moves(state, home, at, e, b)
            if back[b] != NOBODY:
                more += _moves(state, home, to[b], back[b], a)
            rate = less / max(_FREE, float(more))
            if less > _ROUNDING and rate > best.gain:
                best = Step(rate, e, b, to[b], back[b])
    return best


@njit(cache=True)
def _ways_back(
    state: State, prices: Prices, caps: Caps, home: NDArray[np.int64], at: int, a: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """For every place, the best expert of another layer to send from there to `a`.

    Returns
    -------
    Excess it takes away [places], minus infinity where none may go; its layer and number, below
    0 where none has to go as the totals have room.
    """
    layers, experts = state.place.shape
    gain = np.full(state.total.size, -inf)
    to, back = np.full(gain.size, NOBODY), np.full(gain.size, NOBODY)
    score = gain.copy()
    for b in range(gain.size):
        if b != a and total_has_room(state, caps, a, b):
            gain[b] = score[b] = 0.0
    for layer in range(layers):
        for f in range(experts):
            b = state.place[layer, f]
            if layer == at or b == a or not has_room(state, caps, layer, b, a):
                continue
            less = -shift_price(state, prices, layer, b, a, prices.load[layer, f])
            value = less - _FREE * _moves(state, home, layer, f, a)
            if value > score[b]:
                score[b], gain[b], to[b], back[b] = value, less, layer, f
    return gain, to, back
