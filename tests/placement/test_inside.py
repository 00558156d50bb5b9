"""Experts dealt to GPUs inside their servers, against brute force."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import PlacementError, PlacementProblem, evaluate
from placement.balance.inside import spread, spread_gpus
from workloads import ExpertProfile

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_problem(
    counts: Sequence[Sequence[float]], gpus: int, layer_slots: int, server_slots: int
) -> PlacementProblem:
    """Build a problem of two servers that cost the same."""
    load = np.array(counts, dtype=float)
    return PlacementProblem(
        model="tiny",
        cost=np.zeros((len(load), 2)),
        profile=ExpertProfile(load=load / load.sum(axis=1, keepdims=True), source="test"),
        top_k=1,
        gpus_per_server=gpus,
        layer_slots=layer_slots,
        server_slots=server_slots,
    )


def least_busiest(load: np.ndarray, gpus: int, slots: int) -> float:
    """Lightest busiest GPU over every way to deal one server's experts of one layer."""
    best = np.inf
    for choice in itertools.product(range(gpus), repeat=len(load)):
        if np.bincount(choice, minlength=gpus).max() <= slots:
            best = min(best, np.bincount(choice, load, gpus).max())
    return float(best)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=10, max_size=10),
    gpus=st.integers(2, 3),
    layer_slots=st.integers(7, 9),
    on_first=st.integers(3, 7),
)
def test_one_layer_is_dealt_best(
    counts: list[int], gpus: int, layer_slots: int, on_first: int
) -> None:
    """With totals free, branch and bound ends at the best of all dealings and says so."""
    problem = make_problem([counts], gpus, layer_slots, 10)
    server = (np.arange(10) >= on_first)[None].astype(int)
    dealt = spread_gpus(problem, server)
    slots = -(-layer_slots // gpus)
    best = max(
        least_busiest(problem.profile.load[0, server[0] == s], gpus, slots) for s in range(2)
    )
    if slots * gpus >= 10:
        assert dealt.busiest[0] == pytest.approx(best)
        assert dealt.proven.all()
    assert dealt.bound[0] <= best + 1e-12
    assert (dealt.gpu // gpus == server).all()


def test_brute_force_would_notice_a_wrong_answer() -> None:
    """The oracle finds a better dealing than longest processing time, and feels the slots."""
    # 5, 5, 4, 4, 3, 3 on 2 GPUs, at most 3 each: {5, 4, 3} twice = 12. With 7, 6, 5, 4, 4, 4 the
    # rule deals {7, 4, 4} = 15 and {6, 5, 4} = 15. 9, 1, 1, 1 with 2 slots: {9, 1} = 10, else 9.
    assert least_busiest(np.array([5.0, 5, 4, 4, 3, 3]), 2, 3) == 12
    assert least_busiest(np.array([7.0, 6, 5, 4, 4, 4]), 2, 3) == 15
    assert least_busiest(np.array([9.0, 1, 1, 1]), 2, 2) == 10
    assert least_busiest(np.array([9.0, 1, 1, 1]), 2, 3) == 9
    # Longest processing time deals 3, 3, 2, 2, 2 as {3, 2, 2} = 7; {3, 3} and {2, 2, 2} are 6.
    assert least_busiest(np.array([3.0, 3, 2, 2, 2]), 2, 3) == 6
    problem = make_problem([[3, 3, 2, 2, 2, 1]], 2, 6, 6)
    assert spread_gpus(problem, np.array([[0, 0, 0, 0, 0, 1]])).busiest[0] == pytest.approx(6 / 13)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), gpus=st.sampled_from([2, 3, 4]), layer_slots=st.integers(8, 12))
def test_caps_and_servers_are_kept(seed: int, gpus: int, layer_slots: int) -> None:
    """Totals that leave no room still fit; nobody changes server; the bound is a bound."""
    rng = np.random.Generator(np.random.PCG64(seed))
    problem = make_problem(rng.pareto(1.0, (12, 16)) + 0.01, gpus, layer_slots, 96)
    near = rng.integers(16 - layer_slots, layer_slots + 1, 6)
    server = np.ones((12, 16), dtype=int)
    for at, size in enumerate(np.concatenate((near, 16 - near))):
        server[at, rng.permutation(16)[:size]] = 0
    dealt = spread_gpus(problem, server)
    assert (dealt.gpu // gpus == server).all()
    counts = np.array([np.bincount(row, minlength=2 * gpus) for row in dealt.gpu])
    assert counts.max() <= -(-layer_slots // gpus)
    assert counts.sum(axis=0).max() == 96 / gpus
    assert (dealt.bound <= dealt.busiest).all()
    heat = np.array(
        [
            np.bincount(row, load, 2 * gpus)
            for row, load in zip(dealt.gpu, problem.profile.load, strict=True)
        ]
    )
    assert dealt.busiest == pytest.approx(heat.max(axis=1))


def test_spread_keeps_hops_and_cools_gpus() -> None:
    """A placement dealt anew has the same servers and a better GPU balance."""
    rng = np.random.Generator(np.random.PCG64(1))
    problem = make_problem(rng.pareto(1.5, (8, 32)) + 0.1, 4, 16, 128)
    server = np.argsort(rng.random((8, 32)), axis=1) % 2
    before = problem.place(server, policy="mine")
    after = spread(problem, before)
    assert (after.server_of_expert == before.server_of_expert).all()
    assert after.policy == "mine"
    assert evaluate(after, problem).balance_gpu < evaluate(before, problem).balance_gpu
    assert spread(problem, before) == after


def test_servers_that_break_caps_are_refused() -> None:
    """The error names the cap, what there is and what fits."""
    problem = make_problem([[1, 1, 1, 1]], 2, 2, 2)
    with pytest.raises(PlacementError, match="break layer_slots: 3 experts, at most 2 fit"):
        spread_gpus(problem, np.array([[0, 0, 0, 1]]))
    with pytest.raises(PlacementError, match=r"outside 0\.\.1"):
        spread_gpus(problem, np.array([[0, 0, 1, 2]]))
