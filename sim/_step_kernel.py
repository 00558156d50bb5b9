"""Who sends and receives: compiled loops over the rows of traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def survey(
    rows: tuple[Any, ...], gpus: int, table: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count int64 [layers, gpus]: rows a GPU sends, rows it receives, and those of its own.

    Adds the counts of all layers to `table` [gpus * gpus], if it is no empty array.
    """
    indptr, src, dst, count = rows
    layers = len(indptr) - 1
    sent = np.zeros((layers, gpus), np.int64)
    received = np.zeros((layers, gpus), np.int64)
    own = np.zeros((layers, gpus), np.int64)
    for layer in range(layers):
        for row in range(indptr[layer], indptr[layer + 1]):
            sent[layer, src[row]] += 1
            received[layer, dst[row]] += 1
            if src[row] == dst[row]:
                own[layer, dst[row]] += 1
            if len(table):
                table[np.int64(src[row]) * gpus + dst[row]] += count[row]
    return sent, received, own


@njit(cache=True)
def release(
    bounds: NDArray[np.int64],
    dst: NDArray[np.int32],
    left: NDArray[np.int64],
    senders: NDArray[np.int64],
    complete: NDArray[np.int64],
) -> int:
    """Count `senders` less for all that they send to; write down who waits for no other."""
    found = 0
    for sender in senders:
        for row in range(bounds[sender], bounds[sender + 1]):
            gpu = dst[row]
            left[gpu] -= 1
            if left[gpu] == 0:
                complete[found] = gpu
                found += 1
    return found


@njit(cache=True)
def add_weights(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    dst: NDArray[np.int32],
    count: NDArray[np.int64],
    weight: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return int64 [layers]: sums of `count` times ``weight[src, dst]``."""
    total = np.zeros(len(indptr) - 1, np.int64)
    for layer in range(len(total)):
        for row in range(indptr[layer], indptr[layer + 1]):
            total[layer] += count[row] * weight[src[row], dst[row]]
    return total


@njit(cache=True)
def most_weight(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    dst: NDArray[np.int32],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return float64 [layers]: the largest ``weight[src, dst]``, 0 where there is no row."""
    most = np.zeros(len(indptr) - 1)
    limit = weight.max()
    for layer in range(len(most)):
        for row in range(indptr[layer], indptr[layer + 1]):
            most[layer] = max(most[layer], weight[src[row], dst[row]])
            if most[layer] == limit:
                break
    return most
