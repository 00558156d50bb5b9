"""Hops counted from the tokens' choices: the compiled loop of a law."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def count_hops(
    topk: NDArray[Any],
    site_of_expert: NDArray[np.int32],
    stops: tuple[NDArray[np.int32], NDArray[np.int32]],
    distance: NDArray[np.int32],
) -> NDArray[np.int64]:
    """int64 [layers, 2]: network links between tokens' origins (collectors) and their experts.

    `stops` are sites [layers, tokens] of origins and collectors.
    """
    tokens, layers, k = topk.shape
    hops = np.zeros((layers, 2), np.int64)
    turned = distance.T.copy()
    for token in range(tokens):
        for layer in range(layers):
            away, home = distance[stops[0][layer, token]], turned[stops[1][layer, token]]
            out, back = np.int64(0), np.int64(0)
            for choice in range(k):
                site = site_of_expert[layer, topk[token, layer, choice]]
                out += away[site]
                back += home[site]
            hops[layer, 0] += out
            hops[layer, 1] += back
    return hops
