"""Compiled repair of one layer's slots: the swaps that take most load off hot places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

from placement.search._anneal_kernel import (
    count_excess_change,
    load_excess_change,
    moved_change,
    swap,
)

if TYPE_CHECKING:
    from placement.search._tables_kernel import State, Terms, Tokens

_ROUNDING = 1e-12
_FREE = 1e-3
"""Moves that a swap counts which makes none: far less than one, so that it comes first."""


@njit(cache=True)
def mend(tokens: Tokens, terms: Terms, state: State) -> None:
    """Swap until no load is above its cap, or no swap lowers what is above.

    The swap with the most excess removed by a move comes first; replicas too many never grow.
    """
    while True:
        best, first, second = 0.0, -1, -1
        for e in range(state.place.size):
            if terms.expert[e] < 0 or not _too_hot(terms, state, state.place[e]):
                continue
            for f in range(state.place.size):
                if state.place[e] == state.place[f] or terms.expert[e] == terms.expert[f]:
                    continue
                less = -load_excess_change(terms, state, e, f)
                if less <= _ROUNDING or count_excess_change(terms, state, e, f) > 0:
                    continue
                gain = less / max(_FREE, float(moved_change(terms, state, e, f)))
                if gain > best:
                    best, first, second = gain, e, f
        if first < 0:
            return
        swap(tokens, terms, state, first, second)


@njit(cache=True)
def _too_hot(terms: Terms, state: State, place: int) -> bool:
    hot = False
    for d in range(terms.cap.size):
        hot = hot or bool(state.heat[d, place] > terms.cap[d])
    return hot
