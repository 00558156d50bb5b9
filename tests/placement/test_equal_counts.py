"""Equal counts on every GPU keep the caps of any feasible problem."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement import PlacementProblem
from placement.field.equal import equal_counts
from placement.slots import place_on_gpus
from workloads import ExpertProfile


def make_problem(layers: int, experts: int, servers: int, inside: int) -> PlacementProblem:
    """Build a problem with the least caps that are feasible."""
    return PlacementProblem(
        model="test",
        cost=np.zeros((layers, servers)),
        profile=ExpertProfile(load=np.full((layers, experts), 1 / experts), source="test"),
        top_k=1,
        gpus_per_server=inside,
        layer_slots=-(-experts // servers),
        server_slots=-(-layers * experts // servers),
    )


def test_hand_example() -> None:
    """5 experts, 2 servers of 2 GPUs: one each, the fifth goes round from server to server."""
    counts = equal_counts(make_problem(5, 5, 2, 2))
    # GPUs 0, 1 are server 0's, 2, 3 server 1's; the turn is 0, 2, 1, 3, 0.
    assert counts.tolist() == [[2, 1, 1, 1], [1, 1, 2, 1], [1, 2, 1, 1], [1, 1, 1, 2], [2, 1, 1, 1]]


@given(st.integers(1, 7), st.integers(1, 40), st.integers(1, 6), st.integers(1, 5))
def test_counts_keep_the_tightest_caps(
    layers: int, experts: int, servers: int, inside: int
) -> None:
    """Every expert has a slot, and neither server nor GPU exceeds its cap."""
    problem = make_problem(layers, experts, servers, inside)
    counts = equal_counts(problem)
    assert counts.sum(axis=1).tolist() == [experts] * layers
    server = counts.reshape(layers, servers, inside).sum(axis=2)
    assert server.max() <= problem.layer_slots
    assert server.sum(axis=0).max() <= problem.server_slots
    assert counts.max() <= -(-problem.layer_slots // inside)
    assert counts.sum(axis=0).max() <= -(-problem.server_slots // inside)


def test_a_turn_that_restarts_would_break_the_cap() -> None:
    """The check above can fail: the first layer's counts repeated overfill server 0."""
    problem = make_problem(4, 5, 2, 2)
    restarted = np.tile(equal_counts(problem)[0], (4, 1))
    server = restarted.reshape(4, 2, 2).sum(axis=2)
    # 3 + 3 + 3 + 3 on server 0, which takes 10.
    assert server.sum(axis=0).tolist() == [12, 8]
    assert server.sum(axis=0).max() > problem.server_slots


def test_slots_and_their_experts() -> None:
    """By default slot e holds expert e; replicas are named."""
    problem = make_problem(1, 2, 2, 1)
    once = place_on_gpus(problem, np.array([[1, 0]]), policy="test")
    assert once.gpu_of_expert.tolist() == [[1, 0]]
    twice = place_on_gpus(problem, np.array([[1, 0, 0]]), np.array([[0, 1, 0]]), policy="test")
    assert twice.replicas.tolist() == [[2, 1]]
    with pytest.raises(ValueError, match="expert 1 has no slot"):
        place_on_gpus(problem, np.array([[1, 0]]), np.array([[0, 0]]), policy="test")
