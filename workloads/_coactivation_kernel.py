"""Compiled counts of experts chosen together and after one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@njit(cache=True)
def count_together(
    choices: NDArray[np.uint8] | NDArray[np.uint16], count: NDArray[np.int64]
) -> None:
    """Add to `count` [layers, E, E] every ordered pair of a token's choices, with themselves.

    Parameters
    ----------
    choices
        uint8 or uint16 [tokens, layers, k].
    count
        int64 [layers, E, E]: added to.
    """
    tokens, layers, top_k = choices.shape
    for token in range(tokens):
        for layer in range(layers):
            for a in range(top_k):
                for b in range(top_k):
                    count[layer, choices[token, layer, a], choices[token, layer, b]] += 1


@njit(cache=True)
def count_followers(
    choices: NDArray[np.uint8] | NDArray[np.uint16], count: NDArray[np.int64]
) -> None:
    """Add to `count` [layers - 1, E, E] every choice at a layer with every one at the next.

    Parameters
    ----------
    choices
        uint8 or uint16 [tokens, layers, k].
    count
        int64 [layers - 1, E, E]: added to.
    """
    tokens, layers, top_k = choices.shape
    for token in range(tokens):
        for layer in range(layers - 1):
            for a in range(top_k):
                for b in range(top_k):
                    count[layer, choices[token, layer, a], choices[token, layer + 1, b]] += 1
