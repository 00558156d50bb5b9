"""Adding flows of many layers up: compiled loops over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@njit(cache=True)
def add_path_rows(
    rows: tuple[Any, ...],
    rank: NDArray[np.int64],
    indptr: NDArray[np.int64],
    links: NDArray[np.int32],
    out: NDArray[np.int64],
) -> None:
    """Add every flow's messages to the links of its pair's path in out [layers, links]."""
    start, src, dst, size = rows
    for layer in range(len(start) - 1):
        for row in range(start[layer], start[layer + 1]):
            pair = rank[src[row], dst[row]]
            for at in range(indptr[pair], indptr[pair + 1]):
                out[layer, links[at]] += size[row]


@njit(cache=True)
def add_split_rows(
    rows: tuple[Any, ...],
    rank: NDArray[np.int64],
    own: NDArray[np.int32],
    which: NDArray[np.int64],
    sums: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Add every flow's messages to its pair's own links, and to its pair of switches.

    Parameters
    ----------
    rows
        ``(indptr, src, dst, messages)``.
    rank
        int64 [gpus, gpus]: places of the pairs.
    own
        int32 [pairs, most]: links outside the fabric, then -1.
    which
        int64 [pairs]: the pair of switches, -1 for none.
    sums
        [layers, links] and [layers, pairs of switches], to be added to.
    """
    start, src, dst, size = rows
    out, volume = sums
    for layer in range(len(start) - 1):
        for row in range(start[layer], start[layer + 1]):
            pair = rank[src[row], dst[row]]
            for at in range(own.shape[1]):
                if own[pair, at] < 0:
                    break
                out[layer, own[pair, at]] += size[row]
            if which[pair] >= 0:
                volume[layer, which[pair]] += size[row]
