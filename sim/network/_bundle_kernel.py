"""Which flows take the same way between their own links, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE = -1


@njit(cache=True)
def distinct_rows(
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    link: NDArray[np.int32],
    fraction: NDArray[np.float64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the distinct rows begin[i]:end[i] of (link, fraction) as they first occur.

    Returns
    -------
    int32 [rows]
        The number of every row; -1 for empty ones.
    int64 [distinct]
        The row at which every number first occurs.
    """
    rows = len(begin)
    number = np.full(rows, NONE, dtype=np.int32)
    first = np.empty(rows, dtype=np.int64)
    size = 16
    while size < 2 * rows:
        size *= 2
    table = np.full(size, NONE, dtype=np.int32)
    found = 0
    for row in range(rows):
        if begin[row] == end[row]:
            continue
        slot = _hash(begin[row], end[row], link) % np.uint64(size)
        while True:
            other = table[slot]
            if other == NONE:
                table[slot] = found
                first[found] = row
                number[row] = found
                found += 1
                break
            if _equal(begin, end, (row, first[other]), link, fraction):
                number[row] = other
                break
            slot = (slot + np.uint64(1)) % np.uint64(size)
    return number, first[:found].copy()


@njit(cache=True)
def _hash(begin: int, end: int, link: NDArray[np.int32]) -> np.uint64:
    """FNV-1a over the links."""
    state = np.uint64(0xCBF29CE484222325)
    for at in range(begin, end):
        state = (state ^ np.uint64(link[at])) * np.uint64(0x100000001B3)
    return state ^ (state >> np.uint64(29))


@njit(cache=True)
def _equal(
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    pair: tuple[int, int],
    link: NDArray[np.int32],
    fraction: NDArray[np.float64],
) -> bool:
    one, other = pair
    if end[one] - begin[one] != end[other] - begin[other]:
        return False
    for at in range(end[one] - begin[one]):
        here, there = begin[one] + at, begin[other] + at
        if link[here] != link[there] or fraction[here] != fraction[there]:
            return False
    return True
