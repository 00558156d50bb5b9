"""Bounds on what equal groups keep inside, against all partitions of tiny layers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.field.partition_bounds import between_bound, within_bound


def groupings(experts: int, groups: int) -> list[np.ndarray]:
    """Every way to give experts to numbered groups of (nearly) equal counts."""
    members = np.sort(np.arange(experts) % groups).tolist()
    return [np.array(g) for g in sorted(set(permutations(members)))]


def most_within(weight: np.ndarray, groups: int) -> float:
    """Try every grouping and sum the pairs inside."""
    experts = len(weight)
    return max(
        sum(weight[i, j] for i in range(experts) for j in range(i) if group[i] == group[j])
        for group in groupings(experts, groups)
    )


def most_between(weight: np.ndarray, groups: int) -> float:
    """Try every pair of groupings, the first up to the groups' names."""
    every = groupings(len(weight), groups)
    indicator = np.array([group[:, None] == np.arange(groups) for group in every]).astype(float)
    kept = np.einsum("aig,ij,bjg->ab", indicator, weight, indicator)
    return float(kept.max())


CASES = st.sampled_from([(4, 2), (6, 2), (6, 3), (5, 2), (6, 1), (5, 5), (6, 4)])


@settings(deadline=None, max_examples=30)
@given(CASES, st.integers(0, 2**32))
def test_no_grouping_beats_the_bounds(case: tuple[int, int], seed: int) -> None:
    """Random weights, some zero: every grouping stays below both bounds."""
    experts, groups = case
    rng = np.random.default_rng(seed)
    weight = rng.random((experts, experts)) ** 3 * (rng.random((experts, experts)) < 0.7)
    both = weight + weight.T
    assert most_within(both, groups) <= within_bound(both, groups) + 1e-9
    if len(groupings(experts, groups)) <= 120:
        assert most_between(weight, groups) <= between_bound(weight, groups) + 1e-9


@pytest.mark.parametrize("bound", [within_bound, between_bound])
def test_bounds_are_reached_by_planted_groups(bound: object) -> None:
    """Weight inside two planted groups of three only: the bound is exactly that weight."""
    weight = np.kron(np.eye(2), np.ones((3, 3)))
    kept = 6.0 if bound is within_bound else 18.0  # 2 x 3 pairs; 2 x 3 x 3 transitions
    assert bound(weight, 2) == pytest.approx(kept)  # type: ignore[operator]
    most = most_within if bound is within_bound else most_between
    assert most(weight, 2) == pytest.approx(kept)


def test_spectral_parts_bind() -> None:
    """Equal weights everywhere: one group keeps half the experts' pairs, and no bound says more."""
    flat = np.ones((6, 6))
    # Two groups of 3 keep 2 x 3 of the 15 pairs and half of the 36 transitions.
    assert within_bound(flat, 2) == pytest.approx(6.0)
    assert between_bound(flat, 2) == pytest.approx(18.0)
    # Best partners alone: a cycle 0 > 1 > 2 > ... gives every expert its successor, 6 in all,
    # but no two groups of 3 keep more than 4.
    cycle = np.roll(np.eye(6), 1, axis=1)
    assert most_between(cycle, 2) == pytest.approx(6.0)
    ring = cycle + cycle.T
    assert most_within(ring, 2) == pytest.approx(4.0)
    assert within_bound(ring, 2) < 6.0


def test_the_brute_force_can_refute_a_bound() -> None:
    """A tenth less than the planted weight is beaten: the comparison can fail."""
    weight = np.kron(np.eye(2), np.ones((3, 3)))
    assert most_within(weight, 2) > 0.9 * within_bound(weight, 2)
    assert most_between(weight, 2) > 0.9 * between_bound(weight, 2)
