"""Counting messages: the compiled loops over tokens and their choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def count_pairs(
    topk: NDArray[Any],
    gpu_of_expert: NDArray[np.int32],
    gpu_of_token: NDArray[np.int32],
    gpus: int,
    outward: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Count the messages between tokens' and experts' GPUs, `outward` from the tokens.

    Two stable counting sorts a layer, by destination and then by source, bring equal pairs
    together in O(choices + GPUs), without a table of GPU pairs.

    Returns
    -------
    indptr int64 [layers + 1], src int32 [rows], dst int32 [rows], count int64 [rows]
        Rows ascend by (layer, src, dst).
    """
    tokens, layers, k = topk.shape
    choices = tokens * k
    src = np.empty(choices, np.int32)
    dst = np.empty(choices, np.int32)
    rows_src = np.empty(layers * choices, np.int32)
    rows_dst = np.empty(layers * choices, np.int32)
    rows_count = np.empty(layers * choices, np.int64)
    indptr = np.zeros(layers + 1, np.int64)
    rows = 0
    for layer in range(layers):
        for token in range(tokens):
            own = gpu_of_token[layer, token]
            for choice in range(k):
                other = gpu_of_expert[layer, topk[token, layer, choice]]
                at = token * k + choice
                src[at] = own if outward else other
                dst[at] = other if outward else own
        by_dst = _counting_sort(np.arange(choices), dst, gpus)
        for at in _counting_sort(by_dst, src, gpus):
            again = rows > indptr[layer]
            if again and rows_src[rows - 1] == src[at] and rows_dst[rows - 1] == dst[at]:
                rows_count[rows - 1] += 1
            else:
                rows_src[rows] = src[at]
                rows_dst[rows] = dst[at]
                rows_count[rows] = 1
                rows += 1
        indptr[layer + 1] = rows
    return indptr, rows_src[:rows].copy(), rows_dst[:rows].copy(), rows_count[:rows].copy()


@njit(cache=True)
def _counting_sort(
    order: NDArray[np.int64], key: NDArray[np.int32], keys: int
) -> NDArray[np.int64]:
    """Sort `order` stably by ``key[order]``."""
    place = np.zeros(keys + 1, np.int64)
    for value in key:
        place[value + 1] += 1
    for value in range(keys):
        place[value + 1] += place[value]
    result = np.empty_like(order)
    for at in order:
        result[place[key[at]]] = at
        place[key[at]] += 1
    return result


@njit(cache=True)
def count_experts(topk: NDArray[Any], experts: int) -> NDArray[np.int64]:
    """int64 [layers, experts]: how often every expert was chosen."""
    tokens, layers, k = topk.shape
    load = np.zeros((layers, experts), np.int64)
    for token in range(tokens):
        for layer in range(layers):
            for choice in range(k):
                load[layer, topk[token, layer, choice]] += 1
    return load


@njit(cache=True)
def count_distinct(topk: NDArray[Any], site_of_expert: NDArray[np.int32], sites: int) -> int:
    """Count the distinct sites of every token and layer, summed."""
    tokens, layers, k = topk.shape
    visit = np.zeros(sites, np.int64)
    number = 0
    distinct = 0
    for token in range(tokens):
        for layer in range(layers):
            number += 1
            for choice in range(k):
                site = site_of_expert[layer, topk[token, layer, choice]]
                if visit[site] != number:
                    visit[site] = number
                    distinct += 1
    return distinct
