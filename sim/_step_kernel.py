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
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark bool [layers, gpus]: who sends, who receives, and who receives from others.

    Adds the counts of all layers to `table` [gpus * gpus], if it is no empty array.
    """
    indptr, src, dst, count = rows
    layers = len(indptr) - 1
    sends = np.zeros((layers, gpus), np.bool_)
    receives = np.zeros((layers, gpus), np.bool_)
    from_others = np.zeros((layers, gpus), np.bool_)
    for layer in range(layers):
        for row in range(indptr[layer], indptr[layer + 1]):
            sends[layer, src[row]] = True
            receives[layer, dst[row]] = True
            if src[row] != dst[row]:
                from_others[layer, dst[row]] = True
            if len(table):
                table[np.int64(src[row]) * gpus + dst[row]] += count[row]
    return sends, receives, from_others


@njit(cache=True)
def release(
    bounds: NDArray[np.int64],
    dst: NDArray[np.int32],
    left: NDArray[np.int64],
    sender: int,
    complete: NDArray[np.int64],
) -> int:
    """Count one sender less for all that `sender` sends to; write down who waits for no other."""
    found = 0
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
    for layer in range(len(most)):
        for row in range(indptr[layer], indptr[layer + 1]):
            most[layer] = max(most[layer], weight[src[row], dst[row]])
    return most
