"""Experts chosen together and after one another, against counts token by token."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import ExpertProfile, RoutingTrace, WorkloadError, affinity, coactivation


def drawn(tokens: int, layers: int, experts: int, top_k: int, seed: int) -> np.ndarray:
    """Draw distinct experts for every token and layer."""
    rng = np.random.default_rng(seed)
    picks = [[rng.permutation(experts)[:top_k] for _ in range(layers)] for _ in range(tokens)]
    return np.array(picks, dtype=np.uint8)


def slow_coactivation(choices: np.ndarray, experts: int) -> np.ndarray:
    """Count the pairs of every token's set, one by one."""
    tokens, layers, _ = choices.shape
    count = np.zeros((layers, experts, experts))
    for token, layer in product(range(tokens), range(layers)):
        chosen = choices[token, layer].tolist()
        for i, j in permutations(chosen, 2):
            count[layer, i, j] += 1
        for i in chosen:
            count[layer, i, i] += 1
    return count / tokens


def slow_affinity(choices: np.ndarray, experts: int) -> np.ndarray:
    """Count every choice with every choice of the next layer, one by one."""
    tokens, layers, top_k = choices.shape
    count = np.zeros((layers - 1, experts, experts))
    for token, layer in product(range(tokens), range(layers - 1)):
        for i, j in product(choices[token, layer], choices[token, layer + 1]):
            count[layer, i, j] += 1
    return count / (tokens * top_k * top_k)


def test_hand_example() -> None:
    """Two tokens, two layers, three experts, top-2."""
    choices = np.array([[[0, 1], [2, 0]], [[0, 2], [0, 1]]], dtype=np.uint8)
    together = coactivation(choices, 3)
    # Layer 0: {0, 1} and {0, 2}: expert 0 in both tokens, each other in one.
    assert together[0].tolist() == [[1.0, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]
    # Token 0 goes from 0, 1 to 0, 2; token 1 from 0, 2 to 0, 1: eight pairs in all.
    assert (affinity(choices, 3)[0] * 8).tolist() == [[2, 1, 1], [1, 0, 1], [1, 1, 0]]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32))
def test_equal_to_counting_one_by_one(tokens: int, layers: int, top_k: int, seed: int) -> None:
    """Both counts equal the slow ones, and their margins are the loads."""
    choices = drawn(tokens, layers, 6, top_k, seed)
    assert coactivation(choices, 6).tolist() == slow_coactivation(choices, 6).tolist()
    follow = affinity(choices, 6)
    assert follow.tolist() == slow_affinity(choices, 6).tolist()
    trace = RoutingTrace(topk=choices, experts=6, seq_lens=np.array([tokens]), source="drawn")
    load = ExpertProfile.from_trace(trace).load
    assert follow.sum(axis=2) == pytest.approx(load[:-1])
    assert follow.sum(axis=1) == pytest.approx(load[1:])
    assert coactivation(choices, 6).sum(axis=2) / top_k**2 == pytest.approx(load)


def test_the_slow_counts_tell_tokens_apart() -> None:
    """Counts of other tokens differ: the comparison can fail."""
    choices, other = drawn(9, 2, 6, 2, 0), drawn(9, 2, 6, 2, 1)
    assert coactivation(choices, 6).tolist() != slow_coactivation(other, 6).tolist()
    assert affinity(choices, 6).tolist() != slow_affinity(other, 6).tolist()


def test_wide_ids() -> None:
    """More than 256 experts come as uint16 and are counted under their own ids."""
    choices = np.array([[[299, 3]]], dtype=np.uint16)
    together = coactivation(choices, 300)
    assert np.argwhere(together[0]).tolist() == [[3, 3], [3, 299], [299, 3], [299, 299]]
    assert affinity(choices, 300).shape == (0, 300, 300)


def test_a_profile_keeps_choices_only_when_asked() -> None:
    """The trace's choices come along read-only, or not at all."""
    trace = RoutingTrace(
        topk=drawn(5, 2, 6, 2, 0), experts=6, seq_lens=np.array([5]), source="drawn"
    )
    assert ExpertProfile.from_trace(trace).choices is None
    profile = ExpertProfile.from_trace(trace, keep_choices=True)
    assert profile.choices is not None
    assert profile.choices.dtype == np.uint8
    assert profile.choices.tolist() == trace.topk.tolist()
    assert profile.load.tolist() == ExpertProfile.from_trace(trace).load.tolist()
    with pytest.raises(ValueError, match="read-only"):
        profile.choices[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (np.zeros((3, 2)), "integer ids .tokens, layers, k., none of them 0, got float64"),
        (np.zeros((0, 2, 1), dtype=int), r"none of them 0, got int64 \(0, 2, 1\)"),
        (np.zeros((3, 1, 1), dtype=int), "choices speak of 1 layers, expected 2 as in the load"),
        (np.array([[[0], [1]], [[1], [2]]]), "token 1, layer 1: expert id 2, expected 0..1"),
        (np.array([[[0], [-1]]]), "token 0, layer 1: expert id -1, expected 0..1"),
    ],
)
def test_choices_that_do_not_fit_the_loads(choices: Any, expected: str) -> None:
    """Each kind of bad choice is refused where it stands."""
    with pytest.raises(WorkloadError, match=expected):
        ExpertProfile(load=np.full((2, 2), 0.5), source="test", choices=choices)
