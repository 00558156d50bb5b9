"""The sorted-prefix flow against the naive binary program, brute force and its own certificate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from placement import (
    Ilp,
    IlpLoad,
    InfeasibleError,
    NaiveIlpLoad,
    PlacementProblem,
    evaluate,
    hops_over_optima,
)
from placement.highs import dual_bound, solve
from placement.hops import hop_optimum
from placement.prefix import Tiers, prefix_flow
from placement.solve import status_of
from workloads import ExpertProfile


def make_problem(
    cost: np.ndarray, counts: np.ndarray, layer_slots: int, server_slots: int
) -> PlacementProblem:
    """Build a top-1 problem with one GPU per server."""
    load = counts / counts.sum(axis=1, keepdims=True)
    return PlacementProblem(
        model="tiny",
        cost=cost,
        profile=ExpertProfile(load=load, source="test"),
        top_k=1,
        gpus_per_server=1,
        layer_slots=layer_slots,
        server_slots=server_slots,
    )


@st.composite
def problems(draw: st.DrawFn, experts: int = 6, layers: int = 3, servers: int = 4) -> object:
    """Random feasible problems whose costs often tie and whose caps often bind."""
    shape = draw(
        st.tuples(st.integers(1, layers), st.integers(1, experts), st.integers(1, servers))
    )
    layers, experts, servers = shape
    cost = draw(st.lists(st.integers(0, 4), min_size=layers * servers, max_size=layers * servers))
    counts = draw(st.lists(st.integers(1, 9), min_size=layers * experts, max_size=layers * experts))
    layer_slots = draw(st.integers(-(-experts // servers), experts))
    least = -(-layers * experts // servers)
    server_slots = draw(st.integers(least, least + 2))
    assume(servers * min(server_slots, layers * layer_slots) >= layers * experts)
    return make_problem(
        np.array(cost, dtype=float).reshape(layers, servers),
        np.array(counts, dtype=float).reshape(layers, experts),
        layer_slots,
        server_slots,
    )


def brute_force(problem: PlacementProblem, weights: np.ndarray) -> list[np.ndarray]:
    """Return every assignment [layers, experts] of least weighted cost that keeps both caps."""
    best, found = np.inf, []
    cells = problem.layers * problem.experts
    for choice in itertools.product(range(problem.servers), repeat=cells):
        server = np.array(choice).reshape(problem.layers, problem.experts)
        counts = np.array([np.bincount(row, minlength=problem.servers) for row in server])
        if counts.max() > problem.layer_slots or counts.sum(0).max() > problem.server_slots:
            continue
        cost = (weights * np.take_along_axis(problem.cost, server, axis=1)).sum()
        if cost < best - 1e-12:
            best, found = cost, []
        if cost <= best + 1e-12:
            found.append(server)
    return found


def hops_of(problem: PlacementProblem, server: np.ndarray) -> float:
    """Expected hops per token and layer of an assignment, the long way."""
    total = 0.0
    for layer in range(problem.layers):
        for expert in range(problem.experts):
            total += (
                problem.profile.load[layer, expert] * problem.cost[layer, server[layer, expert]]
            )
    return problem.top_k * total / problem.layers


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_flow_equals_the_naive_binary_program(problem: PlacementProblem) -> None:
    """Sorted prefixes with merged servers reach the cost of L*E*S binaries, both caps kept."""
    ours = IlpLoad()(problem)
    naive = NaiveIlpLoad(integer=True)(problem)
    assert ours.solve is not None
    assert naive.solve is not None
    assert ours.solve.objective_hops == pytest.approx(naive.solve.objective_hops, abs=1e-6)
    assert hops_of(problem, ours.server_of_expert) == pytest.approx(ours.solve.objective_hops)
    assert ours.solve.status == "optimal"


@settings(max_examples=40, deadline=None)
@given(problem=problems(experts=3, layers=2, servers=3))
def test_flow_equals_brute_force(problem: PlacementProblem) -> None:
    """No assignment at all is cheaper than the flow's, weighted or not."""
    load = problem.profile.load
    best = hops_of(problem, brute_force(problem, load)[0])
    assert evaluate(IlpLoad()(problem), problem).hops_per_token_layer == pytest.approx(best)
    optima = brute_force(problem, np.ones_like(load))
    hops = [hops_of(problem, server) for server in optima]
    assert hops_over_optima(problem) == pytest.approx((min(hops), max(hops)))
    blind = evaluate(Ilp()(problem), problem).hops_per_token_layer
    assert min(hops) - 1e-9 <= blind <= max(hops) + 1e-9


def test_brute_force_would_notice_a_wrong_answer() -> None:
    """An assignment that swaps hot and cold costs more than the brute-force optimum."""
    # Two servers at 0 and 2 hops, loads 3/4 and 1/4: hot near costs 1/4 * 2 = 0.5, swapped 1.5.
    problem = make_problem(np.array([[0.0, 2.0]]), np.array([[3.0, 1.0]]), 1, 1)
    best = brute_force(problem, problem.profile.load)
    assert [server.tolist() for server in best] == [[[0, 1]]]
    assert hops_of(problem, best[0]) == pytest.approx(0.5)
    assert hops_of(problem, np.array([[1, 0]])) == pytest.approx(1.5)


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_bound_is_a_certificate(problem: PlacementProblem) -> None:
    """The bound never exceeds the objective, and any other multipliers bound from below too."""
    optimum = hop_optimum(problem, problem.profile.load)
    assert optimum.bound_hops <= optimum.objective_hops + 1e-9
    flow = prefix_flow(
        -np.sort(-problem.profile.load, axis=1),
        Tiers.of(problem.cost),
        layer_slots=problem.layer_slots,
        server_slots=problem.server_slots,
    )
    result = solve(flow.program)
    assert result.objective is not None
    rng = np.random.Generator(np.random.PCG64(0))
    for _ in range(5):
        anything = rng.normal(size=flow.program.row_lower.size)
        # A capacity row has no cost above its cap: its multiplier must not be positive.
        anything = np.where(
            flow.program.row_lower < flow.program.row_upper, -abs(anything), anything
        )
        assert dual_bound(flow.program, anything) <= result.objective + 1e-9


def test_a_solver_that_lies_is_caught() -> None:
    """Wrong multipliers prove less than the optimum, and that is reported as a gap."""
    # Each layer wants both experts on its free server; two slots a server allow just that
    # for one of the layers: the multipliers of the shared caps carry the proof.
    problem = make_problem(np.array([[0.0, 2.0], [0.0, 2.0]]), np.array([[3.0, 1.0]] * 2), 2, 2)
    flow = prefix_flow(problem.profile.load, Tiers.of(problem.cost), layer_slots=2, server_slots=2)
    result = solve(flow.program)
    assert result.objective is not None
    lie = dual_bound(flow.program, np.zeros(flow.program.row_lower.size))
    assert status_of(result.objective + flow.constant, result.bound + flow.constant) == "optimal"
    assert status_of(result.objective + flow.constant, lie + flow.constant) == "feasible"


def test_equal_servers_merge_and_are_dealt_within_both_caps() -> None:
    """Twelve equal servers are one class, dealt in a turn that goes on from layer to layer."""
    rng = np.random.Generator(np.random.PCG64(1))
    problem = make_problem(np.ones((5, 12)), rng.integers(1, 9, (5, 30)).astype(float), 3, 13)
    assert len(Tiers.of(problem.cost).class_size) == 1
    counts = np.zeros((5, 12), dtype=int)
    for layer, row in enumerate(IlpLoad()(problem).server_of_expert):
        counts[layer] = np.bincount(row, minlength=12)
    assert counts.max() <= 3
    # 150 experts on 12 servers: 12 or 13 each.
    assert set(counts.sum(axis=0)) == {12, 13}


def test_costs_that_differ_by_rounding_are_one_tier() -> None:
    """Sums of thirds in another order do not make another tier."""
    cost = np.array([[0.1 + 0.2, 0.3]])
    assert cost[0, 0] != cost[0, 1]
    assert len(Tiers.of(cost).class_size) == 1


@pytest.mark.parametrize(
    ("layer_slots", "server_slots", "message"),
    [
        (1, 9, "layer_slots too small: 2 servers hold 2 experts, 4 are to be placed, 2 slots"),
        (4, 2, "server_slots too small: 2 servers hold 4 experts, 8 are to be placed, 4 slots"),
    ],
)
def test_caps_that_cannot_hold_the_experts(
    layer_slots: int, server_slots: int, message: str
) -> None:
    """The error says which cap is short and how many slots are missing."""
    with pytest.raises(InfeasibleError, match=message):
        make_problem(np.zeros((2, 2)), np.ones((2, 4)), layer_slots, server_slots)
