"""One conformance suite over every policy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement import (
    POLICIES,
    InfeasibleError,
    PlacementError,
    PlacementProblem,
    evaluate,
    make_policy,
)
from workloads import ExpertProfile

BLIND_TO_COST = ("contiguous", "round-robin", "random")


@pytest.fixture(params=[0, 1, 2])
def problem(request: pytest.FixtureRequest) -> PlacementProblem:
    """A problem of 6 layers x 16 experts on 8 servers of 2 GPUs, both caps binding."""
    rng = np.random.Generator(np.random.PCG64(request.param))
    load = rng.pareto(1.5, (6, 16)) + 0.1
    return PlacementProblem(
        model="small",
        cost=rng.integers(0, 5, (6, 8)).astype(float),
        profile=ExpertProfile(load=load / load.sum(axis=1, keepdims=True), source="test"),
        top_k=2,
        gpus_per_server=2,
        layer_slots=4,
        server_slots=12,
    )


@pytest.mark.parametrize("name", POLICIES)
def test_placement_is_valid_and_keeps_the_caps(problem: PlacementProblem, name: str) -> None:
    """Every expert once; no server above C_layer or C_exp; GPUs of a server filled in turn."""
    placement = make_policy(name)(problem)
    assert placement.policy == name
    assert (placement.replicas == 1).all()
    counts = np.array(
        [np.bincount(row, minlength=problem.servers) for row in placement.server_of_expert]
    )
    assert counts.max() <= problem.layer_slots
    assert counts.sum(axis=0).max() <= problem.server_slots
    on_gpu = np.array([np.bincount(row, minlength=16) for row in placement.gpu_of_expert])
    assert on_gpu.max() <= -(-problem.layer_slots // 2)
    assert on_gpu.sum(axis=0).max() <= -(-problem.server_slots // 2)


@pytest.mark.parametrize("name", POLICIES)
def test_same_problem_same_placement(problem: PlacementProblem, name: str) -> None:
    """A policy called twice, or made twice, places the same."""
    assert make_policy(name)(problem) == make_policy(name)(problem)


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_beats_the_certified_optimum(problem: PlacementProblem, name: str) -> None:
    """ILPLoad's bound is below every policy's hops."""
    best = make_policy("ilp-load")(problem).solve
    assert best is not None
    assert best.bound_hops is not None
    hops = evaluate(make_policy(name)(problem), problem).hops_per_token_layer
    assert hops >= best.bound_hops - 1e-9


@pytest.mark.parametrize("name", [n for n in POLICIES if n not in BLIND_TO_COST])
def test_renaming_servers_changes_no_cost(problem: PlacementProblem, name: str) -> None:
    """Servers in another order give the same hops on the cost the policy minimises."""
    if name in {"greedy", "greedy-load"}:
        # Greedy breaks ties by server index, so only distinct costs are invariant.
        rng = np.random.Generator(np.random.PCG64(5))
        problem = replace(problem, cost=problem.cost + rng.random(problem.cost.shape))
    turn = np.random.Generator(np.random.PCG64(7)).permutation(problem.servers)
    renamed = replace(problem, cost=problem.cost[:, turn])
    flat = ExpertProfile(load=np.full((6, 16), 1 / 16), source="test")
    blind = name in {"greedy", "ilp"}
    judge = replace(problem, profile=flat) if blind else problem
    judge_renamed = replace(renamed, profile=flat) if blind else renamed
    before = evaluate(make_policy(name)(problem), judge).hops_per_token_layer
    after = evaluate(make_policy(name)(renamed), judge_renamed).hops_per_token_layer
    assert after == pytest.approx(before)


@pytest.mark.parametrize("name", ["greedy-load", "ilp-load"])
def test_renaming_experts_changes_no_cost(problem: PlacementProblem, name: str) -> None:
    """Load-aware policies do not care how experts are numbered."""
    turn = np.random.Generator(np.random.PCG64(7)).permutation(problem.experts)
    renamed = replace(
        problem, profile=ExpertProfile(load=problem.profile.load[:, turn], source="test")
    )
    before = evaluate(make_policy(name)(problem), problem).hops_per_token_layer
    assert evaluate(make_policy(name)(renamed), renamed).hops_per_token_layer == pytest.approx(
        before
    )


def test_ties_go_to_balance() -> None:
    """Where every server costs the same, ILPLoad balances the load."""
    load = np.array([[0.4, 0.3, 0.2, 0.1]])
    problem = PlacementProblem(
        model="tie",
        cost=np.ones((1, 2)),
        profile=ExpertProfile(load=load, source="test"),
        top_k=1,
        gpus_per_server=1,
        layer_slots=2,
        server_slots=2,
    )
    # 0.4 + 0.1 on one server and 0.3 + 0.2 on the other.
    assert evaluate(make_policy("ilp-load")(problem), problem).balance_server == pytest.approx(1.0)


def test_greedy_keeps_room_for_the_layers_to_come() -> None:
    """A cheap server is left alone where filling it would strand a later layer."""
    problem = PlacementProblem(
        model="corner",
        cost=np.array([[0.0, 1.0, 9.0], [0.0, 1.0, 9.0]]),
        profile=ExpertProfile(load=np.full((2, 3), 1 / 3), source="test"),
        top_k=1,
        gpus_per_server=1,
        layer_slots=2,
        server_slots=2,
    )
    # Layer 0 may take both slots of server 0, but then one of server 1 and none of server 2
    # would leave 1 + 2 slots for the 3 experts of layer 1: that just fits.
    placement = make_policy("greedy")(problem)
    assert placement.server_of_expert.tolist() == [[0, 0, 1], [1, 2, 2]]


def test_unknown_policy_lists_the_allowed() -> None:
    """The error names what exists and how to bring one's own."""
    with pytest.raises(PlacementError, match=r"unknown policy 'magic'; allowed: contiguous, .*or"):
        make_policy("magic")


@pytest.mark.parametrize("name", ["no.such:Thing", "math:nothing", "math:pi", "builtins:dict"])
def test_own_policy_that_is_none(name: str) -> None:
    """A class that cannot be imported, made or called is one clear line."""
    with pytest.raises(PlacementError, match=f"policy '{name}'"):
        make_policy(name)


class Careless:
    """A user's policy that puts everything on server 0."""

    name = "careless"

    def __call__(self, problem: PlacementProblem) -> object:
        """Overfill one server."""
        server = np.zeros((problem.layers, problem.experts), dtype=int)
        return problem.place(server, policy=self.name)


def test_own_policy_that_breaks_a_cap_is_refused(problem: PlacementProblem) -> None:
    """A placement beyond the caps names the cap, the layer and the server."""
    with pytest.raises(InfeasibleError, match="layer 0 puts 16 experts on server 0, which takes 4"):
        Careless()(problem)
