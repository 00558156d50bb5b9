"""Compiled checks and counts of choices; imported only when a trace is checked or counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@njit(cache=True)
def find_repeated(topk: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[int, int, int]:
    """Return token, layer and id of the first expert chosen twice; -1 thrice if there is none.

    Parameters
    ----------
    topk
        uint8 or uint16 [tokens, layers, k].
    """
    tokens, layers, top_k = topk.shape
    for token in range(tokens):
        for layer in range(layers):
            for a in range(1, top_k):
                expert = topk[token, layer, a]
                for b in range(a):
                    if topk[token, layer, b] == expert:
                        return token, layer, int(expert)
    return -1, -1, -1


@njit(cache=True)
def count_choices(topk: NDArray[np.uint8] | NDArray[np.uint16], counts: NDArray[np.int64]) -> None:
    """Add to `counts` [layers, experts] how often every expert was chosen.

    Parameters
    ----------
    topk
        uint8 or uint16 [tokens, layers, k], every id below the experts.
    counts
        int64 [layers, experts]: added to.
    """
    tokens, layers, top_k = topk.shape
    for token in range(tokens):
        for layer in range(layers):
            for choice in range(top_k):
                counts[layer, topk[token, layer, choice]] += 1
