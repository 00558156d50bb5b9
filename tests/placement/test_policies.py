"""Policies by name, by hand, and against the certified optimum; test_conformance has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from placement import (
    POLICIES,
    InfeasibleError,
    PlacementError,
    PlacementProblem,
    apply_policy,
    evaluate,
    make_policy,
)
from placement.balance import Balanced
from placement.moves import Replace
from workloads import ExpertProfile, RoutingTrace

if TYPE_CHECKING:
    from placement import Policy

WITH_PARAMETERS = ("balanced", "balanced-gpu", "balanced-price", "replace", "replace-few")
ALL = (*POLICIES, *WITH_PARAMETERS)
BLIND_AND_SLOW = ("least-copies",)
REPLICAS = ("hottest",)


def policy_for(name: str, problem: PlacementProblem) -> Policy:
    """Make the policy; those with parameters get some that bind."""
    if name in POLICIES:
        return make_policy(name)
    if name.startswith("replace"):
        previous = make_policy("contiguous")(problem)
        return Replace(previous, max_moves=12 if name == "replace-few" else None, name=name)
    return Balanced(
        1.5,
        relax=True,
        scope="gpu" if name == "balanced-gpu" else "server",
        price=1.0 if name == "balanced-price" else None,
        proposals=50,
        name=name,
    )


@pytest.fixture(params=[0, 1, 2])
def problem(request: pytest.FixtureRequest) -> PlacementProblem:
    """A problem of 6 layers x 16 experts on 8 servers of 2 GPUs, both caps binding."""
    rng = np.random.Generator(np.random.PCG64(request.param))
    load = rng.pareto(1.5, (6, 16)) + 0.1
    load /= load.sum(axis=1, keepdims=True)
    return PlacementProblem(
        model="small",
        cost=rng.integers(0, 5, (6, 8)).astype(float),
        profile=ExpertProfile.from_trace(trace_of(load, rng), keep_choices=True),
        top_k=2,
        gpus_per_server=2,
        layer_slots=4,
        server_slots=12,
        n_group=8,
    )


def trace_of(load: np.ndarray[tuple[int, int]], rng: np.random.Generator) -> RoutingTrace:
    """Draw 400 tokens that choose two experts a layer, after one token for each expert."""
    layers, experts = load.shape
    topk = np.empty((400 + experts, layers, 2), dtype=np.int64)
    first = np.arange(experts)
    for layer, p in enumerate(load):
        topk[:experts, layer] = np.stack((first, (first + 1) % experts), axis=1)
        topk[experts:, layer] = [rng.choice(experts, 2, replace=False, p=p) for _ in range(400)]
    return RoutingTrace(topk=topk, experts=experts, seq_lens=np.array([len(topk)]), source="test")


@pytest.mark.parametrize("name", REPLICAS)
def test_first_slots_keep_the_caps(problem: PlacementProblem, name: str) -> None:
    """Replicas come on top: without them every cap holds, and none shares a GPU with another."""
    placement = apply_policy(name, problem)
    assert placement.policy == name
    assert (placement.replicas >= 1).all()
    cell = (placement.slot_layer * 16 + placement.slot_gpu) * 16 + placement.slot_expert
    assert len(np.unique(cell)) == len(cell)
    single = placement.replicas[placement.slot_layer, placement.slot_expert] == 1
    layer, server = placement.slot_layer[single], placement.slot_gpu[single] // 2
    assert np.bincount(layer * 8 + server).max() <= problem.layer_slots
    assert np.bincount(server).max() <= problem.server_slots


@pytest.mark.parametrize("name", [name for name in ALL if name not in (*REPLICAS, *BLIND_AND_SLOW)])
def test_nothing_beats_the_certified_optimum(problem: PlacementProblem, name: str) -> None:
    """ILPLoad's bound is below every policy's hops."""
    best = make_policy("ilp-load")(problem).solve
    assert best is not None
    assert best.bound_hops is not None
    hops = evaluate(policy_for(name, problem)(problem), problem).hops_per_token_layer
    assert hops >= best.bound_hops - 1e-9


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
