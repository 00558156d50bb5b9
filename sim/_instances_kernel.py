"""What an instance puts on links: compiled loops over the pairs of its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def count_pairs(rows: tuple[Any, ...], ranks: int) -> NDArray[np.int64]:
    """Return int64 [ranks * ranks, layers]: messages of every pair, layers side by side."""
    indptr, src, dst, count = rows
    layers = len(indptr) - 1
    messages = np.zeros((ranks * ranks, layers), np.int64)
    for layer in range(layers):
        for row in range(indptr[layer], indptr[layer + 1]):
            messages[np.int64(src[row]) * ranks + dst[row], layer] += count[row]
    return messages


@njit(cache=True)
def add_pairs(
    messages: NDArray[np.int64],
    pairs: NDArray[np.int64],
    paths: tuple[Any, ...],
    out: NDArray[np.int64],
) -> None:
    """Add the messages of every pair to the links of its path in out [links, layers].

    Pair by pair, so that all layers of a link are added in one sweep.

    Parameters
    ----------
    messages
        int64 [ranks * ranks, layers].
    pairs
        int64 [pairs]: rows of `messages`.
    paths
        ``(indptr, links)`` of the pairs.
    out
        The array to be added to.
    """
    indptr, links = paths
    layers = messages.shape[1]
    for at in range(len(pairs)):
        row = messages[pairs[at]]
        for place in range(indptr[at], indptr[at + 1]):
            link = out[links[place]]
            for layer in range(layers):
                link[layer] += row[layer]


@njit(cache=True)
def most_seconds(
    messages: NDArray[np.int64], pairs: NDArray[np.int64], seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return float64 [layers]: the most seconds [pairs] of those that send in the layer."""
    most = np.zeros(messages.shape[1])
    for at in range(len(pairs)):
        for layer in range(len(most)):
            if messages[pairs[at], layer] > 0 and seconds[at] > most[layer]:
                most[layer] = seconds[at]
    return most
