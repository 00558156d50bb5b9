"""ExpertProfile: normalisation, counting, and what it refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import ExpertProfile, RoutingTrace, WorkloadError


def test_counts_are_normalised_layer_by_layer() -> None:
    """Loads are counts over the layer's sum."""
    profile = ExpertProfile.from_counts(np.array([[1, 3], [5, 0]]), source="test")
    # 1/4, 3/4 and 5/5, 0/5.
    assert profile.load.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert (profile.layers, profile.experts, profile.source) == (2, 2, "test")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[1.0, 1.0], [np.nan, 1.0]], "count of layer 1, expert 0 is nan"),
        ([[1.0, np.inf]], "count of layer 0, expert 1 is inf"),
        ([[1, 1], [2, -3]], "count of layer 1, expert 1 is -3.0"),
        ([[1, 1], [0, 0]], "count of layer 1 is zero for all 2 experts"),
        ([[1e308, 1e308]], "layer 0 sum beyond"),
        ([1, 2], "expected .layers, experts., got shape"),
        ([[]], "expected .layers, experts., got shape"),
        ([["1", "2"]], "integers or floats"),
        ([[True, False]], "integers or floats"),
        ([[1 + 1j, 2]], "integers or floats"),
    ],
)
def test_bad_counts_name_layer_and_expert(counts: Any, expected: str) -> None:
    """Each kind of bad count is refused where it stands."""
    with pytest.raises(WorkloadError, match=expected):
        ExpertProfile.from_counts(np.array(counts), source="test")


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ([[0.5, 0.5], [0.5, 0.4]], "layer 1 sums to 0.9: expected 1"),
        ([[1.5, -0.5]], "expert 1 is -0.5"),
        ([[0.0, 0.0]], "zero for all"),
    ],
)
def test_loads_are_probabilities(load: Any, expected: str) -> None:
    """A profile made from loads directly is checked as well."""
    with pytest.raises(WorkloadError, match=expected):
        ExpertProfile(load=np.array(load), source="test")


def test_loads_are_read_only_copies() -> None:
    """Writing to the caller's array afterwards does not reach the profile."""
    load = np.array([[0.5, 0.5]])
    profile = ExpertProfile(load=load, source="test")
    load[0, 0] = 1.0
    assert profile.load[0, 0] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        profile.load[0, 0] = 1.0


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32))
def test_a_trace_is_counted_as_a_slow_loop_counts_it(tokens: int, layers: int, seed: int) -> None:
    """Loads of a trace equal a dictionary count, choice by choice."""
    rng = np.random.default_rng(seed)
    topk = np.array([[rng.permutation(5)[:2] for _ in range(layers)] for _ in range(tokens)])
    trace = RoutingTrace(topk=topk, experts=5, seq_lens=np.array([tokens]), source="drawn")
    profile = ExpertProfile.from_trace(trace)
    for layer in range(layers):
        counted = Counter(int(e) for token in topk for e in token[layer])
        expected = [counted[e] / (2 * tokens) for e in range(5)]
        assert profile.load[layer].tolist() == expected
    assert profile.source == "drawn"
