"""Solver limits: the best found comes back with a proven bound, and says what stopped it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from placement import (
    GreedyLoad,
    Ilp,
    IlpLoad,
    InfeasibleError,
    NaiveIlpLoad,
    PlacementProblem,
    SolveReport,
    evaluate,
)
from placement.balance import Balanced, layer_caps
from placement.hops import fractional, separate_bound
from placement.replicas import Replicated
from placement.search import LocalSearch
from placement.solve import limit_named
from workloads import ExpertProfile

if TYPE_CHECKING:
    from placement import Policy

INSTANT = 1e-9


def make_problem(seed: int, *, layers: int = 6, experts: int = 24) -> PlacementProblem:
    """Draw a skewed problem on four servers whose C_exp binds."""
    rng = np.random.Generator(np.random.PCG64(seed))
    load = rng.pareto(1.5, (layers, experts)) + 0.1
    return PlacementProblem(
        model="drawn",
        cost=rng.integers(0, 6, (layers, 4)).astype(float),
        profile=ExpertProfile(load=load / load.sum(axis=1, keepdims=True), source="test"),
        top_k=2,
        gpus_per_server=2,
        layer_slots=experts // 2,
        server_slots=layers * experts // 4,
    )


def check(report: SolveReport | None, optimum: float) -> None:
    """Hold objective and bound against an optimum that another solve found."""
    assert report is not None
    assert report.bound is not None
    assert report.bound <= optimum + 1e-9 <= report.objective + 2e-9


def known_optimum(problem: PlacementProblem) -> float:
    """Fewest hops, by the program as the paper writes it."""
    report = NaiveIlpLoad()(problem).solve
    assert report is not None
    assert report.status == "optimal"
    return report.objective_hops


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        (IlpLoad(time_limit_s=INSTANT), "time"),
        (NaiveIlpLoad(time_limit_s=INSTANT), "time"),
        (NaiveIlpLoad(integer=False, time_limit_s=INSTANT), "time"),
        (NaiveIlpLoad(node_limit=0), "nodes"),
    ],
)
def test_a_limit_that_leaves_no_time(policy: Policy, limit: str, seed: int) -> None:
    """Nothing was searched: a placement as good as greedy-load, its limit and an honest bound."""
    problem = make_problem(seed)
    placement = policy(problem)
    problem.check(placement)
    check(placement.solve, known_optimum(problem))
    assert placement.solve is not None
    assert (placement.solve.status, placement.solve.limit) == ("feasible", limit)
    hops = evaluate(placement, problem).hops_per_token_layer
    assert hops == pytest.approx(placement.solve.objective_hops, rel=1e-12)
    assert hops <= evaluate(GreedyLoad()(problem), problem).hops_per_token_layer + 1e-12
    bound = placement.solve.bound_hops
    assert bound is not None
    assert bound >= separate_bound(problem, problem.profile.load) - 1e-12


@pytest.mark.parametrize("seconds", [INSTANT, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2])
def test_any_time_limit(seconds: float) -> None:
    """Wherever the clock stops the solvers, the answer is a placement and its bound holds."""
    problem = make_problem(7, layers=12, experts=48)
    optimum = known_optimum(problem)
    for policy in (
        IlpLoad(time_limit_s=seconds),
        NaiveIlpLoad(time_limit_s=seconds),
        NaiveIlpLoad(integer=False, time_limit_s=seconds),
    ):
        placement = policy(problem)
        problem.check(placement)
        check(placement.solve, optimum)
        assert placement.solve is not None
        assert placement.solve.limit in (None, "time")


@pytest.mark.parametrize("nodes", [0, 1])
def test_node_limits(nodes: int) -> None:
    """With no node greedy-load's placement comes back; the root alone is enough here."""
    problem = make_problem(3)
    placement = NaiveIlpLoad(node_limit=nodes)(problem)
    check(placement.solve, known_optimum(problem))
    assert placement.solve is not None
    assert placement.solve.limit == (None if nodes else "nodes")


def test_the_unweighted_program_is_limited_too() -> None:
    """Its objective is its own cost, all experts alike, and so is its bound."""
    problem = make_problem(1)
    free, stopped = Ilp()(problem).solve, Ilp(time_limit_s=INSTANT)(problem).solve
    assert free is not None
    assert stopped is not None
    assert stopped.limit == "time"
    check(stopped, free.objective_hops)


def test_layers_alone_are_a_bound() -> None:
    """Two layers that want the same server: each alone gets it, together one must go far."""
    # Loads 0.75 and 0.25, servers at 0 and 4 hops, one expert a layer and server: 0.25 * 4 = 1.
    load = np.array([[0.75, 0.25], [0.75, 0.25]])
    problem = PlacementProblem(
        model="tiny",
        cost=np.array([[0.0, 4.0], [0.0, 4.0]]),
        profile=ExpertProfile(load=load, source="test"),
        top_k=1,
        gpus_per_server=1,
        layer_slots=1,
        server_slots=2,
    )
    assert separate_bound(problem, load) == 1.0
    # Two a server: alone all sit near, 0 hops; with C_exp 2 the second hottest is 0.25 * 4 / 1.
    assert separate_bound(replace(problem, layer_slots=2), load) == 0.0
    # Cheapest under C_exp 2: both 0.25 far, or one layer far: min(1 + 1, 4) / 2 layers.
    assert known_optimum(replace(problem, layer_slots=2)) == pytest.approx(1.0)


def test_a_bound_that_lies_is_caught() -> None:
    """The comparison fails on a bound above the optimum and on an objective below it."""
    problem = make_problem(2)
    report, optimum = IlpLoad()(problem).solve, known_optimum(problem)
    assert report is not None
    check(report, optimum)
    for lie in (
        {"objective": 1.02 * optimum, "bound": 1.01 * optimum},
        {"objective": 0.99 * optimum, "bound": 0.0},
    ):
        with pytest.raises(AssertionError):
            check(replace(report, status="feasible", **lie), optimum)
    assert fractional(np.array([1.0, 0.5]))
    assert not fractional(np.array([1.0, 2.0 - 1e-9]))


@pytest.mark.parametrize("seconds", [INSTANT, 1e-3, 1e-2])
@pytest.mark.parametrize("scope", ["server", "gpu"])
def test_balanced_keeps_its_caps_without_time(scope: str, seconds: float) -> None:
    """Stopped at once, hard and relaxed betas still hold and the bound is below a long search."""
    found = 0
    for seed in range(6):
        problem = make_problem(seed, layers=4, experts=16)
        for relax in (False, True):
            policy = Balanced(1.6, relax=relax, scope=scope, proposals=100)
            try:
                free = policy(problem).solve
            except InfeasibleError:
                continue
            placement = replace(policy, time_limit_s=seconds)(problem)
            problem.check(placement)
            assert free is not None
            assert placement.solve is not None
            assert placement.solve.bound_hops is not None
            assert placement.solve.bound_hops <= free.objective_hops + 1e-9
            assert placement.solve.limit in ((None, "time") if seconds > INSTANT else ("time",))
            found += 1
    assert found >= 6


def test_priced_balance_without_time() -> None:
    """With a price there is always a placement: it comes back with a finite bound."""
    problem = make_problem(5)
    free = Balanced(1.2, price=3.0, proposals=100)(problem).solve
    stopped = Balanced(1.2, price=3.0, proposals=100, time_limit_s=INSTANT)(problem).solve
    assert free is not None
    assert stopped is not None
    assert stopped.bound_hops is not None
    assert stopped.limit == "time"
    assert stopped.bound_hops <= free.objective_hops + 1e-9


def test_a_search_budget_is_not_a_time_limit() -> None:
    """The same stop is called ``time`` under a limit and ``budget`` without; optima have none."""
    assert limit_named("time", 20.0) == "time"
    assert limit_named("time", None) == "budget"
    assert limit_named("nodes", None) == "nodes"
    assert limit_named(None, None) is None
    done = SolveReport(status="optimal", objective=2.0, bound=2.0, seconds=4.1, limit="time")
    assert done.limit is None


def test_even_servers_keep_the_balanced_optimum() -> None:
    """Where all servers cost the same, a beta that the hop optimum meets changes nothing."""
    problem = replace(make_problem(4), cost=np.full((6, 4), 3.0))
    free = IlpLoad()(problem)
    load = problem.profile.load
    server = free.server_of_expert
    heat = [np.bincount(at, row, 4).max() * 4 for at, row in zip(server, load, strict=True)]
    placement = Balanced(max(heat) + 0.01)(problem)
    assert placement == free
    assert placement.solve is not None
    assert (placement.policy, placement.solve.status) == ("balanced", "optimal")


def test_a_previous_placement_does_not_loosen_the_bound() -> None:
    """Hops under beta are bounded as well with moves as without; no bound is above the best."""
    problem = make_problem(6)
    beta = float(layer_caps(problem, 1.0, relax=True).least.max()) * 4 + 0.05
    free = Balanced(beta, proposals=100)(problem)
    assert free.solve is not None and free.solve.bound is not None  # noqa: PT018
    alone = separate_bound(problem, problem.profile.load)
    assert free.solve.bound > alone + 1e-6
    for more in ({"max_moves": 3}, {"move_price": 0.01}):
        search = LocalSearch(
            beta=beta,
            scope="server",
            previous=free,
            proposals=50,
            **more,  # type: ignore[arg-type]
        )
        report = search(problem).solve
        assert report is not None and report.bound is not None  # noqa: PT018
        assert report.bound >= free.solve.bound - 1e-6
        assert report.bound <= free.solve.objective + 1e-9


def test_a_late_bound_is_looser_not_wrong() -> None:
    """With no time left, replicas' bound on the busiest GPU is below the tightened one."""
    problem = make_problem(8, layers=4, experts=8)
    policy = Replicated(8, steps=2000)
    late, free = replace(policy, time_limit_s=INSTANT).replicate(problem), policy.replicate(problem)
    assert (late.bound <= free.bound + 1e-9).all()
    assert (late.bound <= free.least + 1e-9).all()
    assert late.placement.solve is not None
    assert late.placement.solve.limit in (None, "time")
