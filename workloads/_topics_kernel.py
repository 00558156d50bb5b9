"""Compiled loops over tokens with topics; imported only when such a trace is drawn."""

from __future__ import annotations

from math import cos, pi
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from workloads._kernels import choose

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = 0.6180339887498949


@njit(cache=True)
def pick_topic(
    chance: NDArray[np.float64], side: NDArray[np.float64], point: float, swing: float
) -> int:
    """Return the topic at `point` of 0..1 when topics are laid end to end by their weights.

    Parameters
    ----------
    chance
        float64 [topics], summing to 1.
    side
        float64 [topics], 1 or -1: which way a topic's weight swings.
    point
        Uniform in [0, 1).
    swing
        Weights are ``chance * (1 + swing * side)``.
    """
    total = 0.0
    for i in range(len(chance)):
        total += chance[i] * (1.0 + swing * side[i])
    reached = 0.0
    last = 0
    for i in range(len(chance)):
        weight = chance[i] * (1.0 + swing * side[i])
        reached += weight
        if weight > 0.0:
            last = i
            if reached > point * total:
                return i
    return last


@njit(cache=True)
def draw_topics(
    rng: np.random.Generator,
    design: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]],
    topics: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    mixing: tuple[float, float, float, float],
    lengths: tuple[int, int],
    out: tuple[NDArray[np.uint16], NDArray[np.uint16]],
) -> None:
    """Fill choices token by token, so that a longer trace begins with the shorter one.

    Parameters
    ----------
    rng
        Source of all choices.
    design
        As for `workloads._kernels.draw`, each with an axis of topics in front: probability of a
        group, groups a token may use, probability of an expert given its group.
    topics
        float64: chances [domains, 2, topics]; 1 or -1 [topics], which way a topic drifts; shares
        of the sequences [domains].
    mixing
        Affinity, home, drift, and the tokens of a turn.
    lengths
        Tokens of a sequence, and how many of them come before decoding.
    out
        uint16 [tokens, layers, k] and [sequences]: receive choices, in random order, and domains.
    """
    topk, domains = out
    chance, side, shares = topics
    affinity, home, drift, period = mixing
    tokens, layers, top_k = topk.shape
    groups = np.arange(design[0].shape[2])
    picks = np.empty(top_k, np.int64)
    scratch = (groups, np.arange(design[2].shape[2]), groups.copy(), picks)
    own = np.zeros(2, np.int64)
    start = rng.random()
    domain = 0
    for token in range(tokens):
        sequence, at = divmod(token, lengths[0])
        swing = drift * cos(2.0 * pi * token / period)
        if at == 0:
            # Golden steps deal the domains out evenly, whatever the number of sequences.
            point = (start + sequence * _GOLDEN) % 1.0
            domain = pick_topic(shares, shares, point, 0.0)
            domains[sequence] = domain
            point = rng.random()
            for phase in range(2):
                own[phase] = pick_topic(chance[domain, phase], side, point, swing)
        phase = 0 if at < lengths[1] else 1
        topic = -1
        for layer in range(layers):
            if topic < 0 or rng.random() >= affinity:
                if rng.random() < home:
                    topic = own[phase]
                else:
                    topic = pick_topic(chance[domain, phase], side, rng.random(), swing)
            choose(
                rng,
                (design[0][topic, layer], design[2][topic, layer]),
                design[1][topic, layer],
                scratch,
                topk[token, layer],
            )
