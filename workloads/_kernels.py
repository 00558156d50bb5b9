"""Compiled loops over tokens; imported only when a trace is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def pick(
    rng: np.random.Generator,
    order: NDArray[np.int64],
    count: int,
    weight: NDArray[np.float64],
    picks: NDArray[np.int64],
) -> None:
    """Fill `picks` by systematic sampling in a fresh random order.

    Lay the weights end to end in random order: they reach from 0 to ``len(picks)``. The points
    u, u+1, ... with one uniform u in [0, 1) fall on each item with exactly its weight as
    probability, and on none twice since no weight exceeds 1.

    Parameters
    ----------
    rng
        Source of u and of the order.
    order
        int64, the items in its first `count` places; left in another order. A Fisher-Yates
        shuffle is uniform whatever order it starts from, so it need not be reset.
    count
        Items to pick from.
    weight
        float64 by item, each in [0, 1], summing to ``len(picks)`` over the items.
    picks
        int64: receives distinct items, in the order in which the points fell on them.
    """
    wanted = len(picks)
    found = 0
    point = rng.random()
    reached = 0.0
    for i in range(count):
        j = i + int(rng.random() * (count - i))
        item = order[j]
        order[j] = order[i]
        order[i] = item
        reached += weight[item]
        if reached > point:
            picks[found] = item
            found += 1
            point += 1.0
            if found == wanted:
                return
    # Rounding can leave the last point a hair beyond the end: it belongs to the last item.
    for i in range(count - 1, -1, -1):
        item = order[i]
        if weight[item] > 0.0 and not (picks[:found] == item).any():
            picks[found] = item
            found += 1
            if found == wanted:
                return


@njit(cache=True)
def choose(
    rng: np.random.Generator,
    weights: tuple[NDArray[np.float64], NDArray[np.float64]],
    used: int,
    scratch: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    chosen: NDArray[np.uint16],
) -> None:
    """Draw the choices of one token in one layer.

    Parameters
    ----------
    rng
        Source of all choices.
    weights
        float64 [groups] and [experts]: probability of a group, and of an expert given its group.
    used
        Groups the token may use.
    scratch
        int64: the groups and the experts in any order, room for the groups used, room for the
        choices.
    chosen
        uint16 [k]: receives the choices, in random order.
    """
    group_order, expert_order, usable, picks = scratch
    groups, top_k = len(weights[0]), len(chosen)
    size = len(weights[1]) // groups
    if groups > 1:
        pick(rng, group_order, groups, weights[0], usable[:used])
        for i in range(used):
            for j in range(size):
                expert_order[i * size + j] = usable[i] * size + j
    pick(rng, expert_order, used * size, weights[1], picks)
    for i in range(top_k):
        j = i + int(rng.random() * (top_k - i))
        chosen[i] = picks[j]
        picks[j] = picks[i]


@njit(cache=True)
def draw(
    rng: np.random.Generator,
    group_weight: NDArray[np.float64],
    groups_used: NDArray[np.int64],
    weight: NDArray[np.float64],
    topk: NDArray[np.uint16],
) -> None:
    """Fill `topk` token by token, so that a longer trace begins with the shorter one.

    Parameters
    ----------
    rng
        Source of all choices.
    group_weight
        float64 [layers, groups]: probability that a token may use the group.
    groups_used
        int64 [layers]: groups a token may use.
    weight
        float64 [layers, experts]: probability of an expert given that its group may be used.
    topk
        uint16 [tokens, layers, k]: receives the choices, in random order.
    """
    tokens, layers, top_k = topk.shape
    groups = group_weight.shape[1]
    group_order = np.arange(groups)
    expert_order = np.arange(weight.shape[1])
    usable = np.arange(groups)
    picks = np.empty(top_k, np.int64)
    for token in range(tokens):
        for layer in range(layers):
            choose(
                rng,
                (group_weight[layer], weight[layer]),
                groups_used[layer],
                (group_order, expert_order, usable, picks),
                topk[token, layer],
            )
