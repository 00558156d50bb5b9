"""Routing groups kept whole, and the rules of serving engines."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from placement import (
    Contiguous,
    DataParallel,
    IlpLoad,
    InfeasibleError,
    Placement,
    PlacementError,
    PlacementProblem,
    RoundRobin,
    evaluate,
)
from placement.engines import ENGINES, accepting, engine, for_engine, refusal
from placement.groups import KeepGroups
from sim.messages import distinct_destinations
from workloads import ExpertProfile, SyntheticWorkload, draw_trace, model, stream


def make_problem(servers: int, groups: int | None, *, seed: int = 0) -> PlacementProblem:
    """Build 2 layers x 8 experts on `servers` servers of one GPU, every cap loose by two."""
    rng = np.random.Generator(np.random.PCG64(seed))
    load = rng.random((2, 8)) + 0.05
    return PlacementProblem(
        model="small",
        cost=rng.integers(0, 6, (2, servers)).astype(float),
        profile=ExpertProfile(load=load / load.sum(axis=1, keepdims=True), source="test"),
        top_k=2,
        gpus_per_server=1,
        layer_slots=-(-16 // servers),
        server_slots=-(-20 // servers),
        n_group=groups,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("servers", "groups"), [(2, 2), (2, 4), (4, 4)])
def test_groups_are_whole_and_no_whole_placement_is_cheaper(
    servers: int, groups: int, seed: int
) -> None:
    """Brute force over all assignments of whole groups finds nothing below the optimum."""
    problem = make_problem(servers, groups, seed=seed)
    placement = KeepGroups()(problem)
    home = placement.server_of_expert.reshape(2, groups, -1)
    assert (home == home[:, :, :1]).all()
    assert placement.solve is not None
    assert placement.solve.status == "optimal"
    hops = evaluate(placement, problem).hops_per_token_layer
    assert hops == pytest.approx(placement.solve.objective_hops)
    assert hops == pytest.approx(_brute_force(problem, servers, groups))


def _brute_force(problem: PlacementProblem, servers: int, groups: int) -> float:
    size = problem.experts // groups
    layers = []
    for layer in range(problem.layers):
        options = []
        for choice in itertools.product(range(servers), repeat=groups):
            counts = size * np.bincount(choice, minlength=servers)
            if counts.max() <= problem.layer_slots:
                server = np.repeat(choice, size)
                options.append((problem.profile.load[layer] @ problem.cost[layer, server], counts))
        layers.append(options)
    best = np.inf
    for combination in itertools.product(*layers):
        if sum(counts for _, counts in combination).max() <= problem.server_slots:
            best = min(best, sum(cost for cost, _ in combination))
    return problem.top_k * best / problem.layers


def test_a_group_shares_its_run_of_servers() -> None:
    """With more servers than groups, a group's experts stay on neighbouring servers, evenly."""
    problem = make_problem(8, 4)
    placement = KeepGroups()(replace(problem, layer_slots=1, server_slots=2))
    home = placement.server_of_expert.reshape(2, 4, 2) // 2
    assert (home == home[:, :, :1]).all()
    assert placement.solve is not None
    assert placement.solve.bound_hops is not None
    assert placement.solve.bound_hops <= placement.solve.objective_hops


@pytest.mark.parametrize(("servers", "distinct"), [(4, 2.93), (8, 3.63), (16, 5.34)])
def test_tokens_meet_as_few_servers_as_whole_groups_allow(servers: int, distinct: float) -> None:
    """Under uniform traffic, R1 keeps the known distinct servers a token, from loads alone."""
    r1 = model("DeepSeek-R1")
    problem = PlacementProblem.build(
        r1,
        2 * (1 - np.eye(servers, dtype=int)),
        DataParallel(r1.layers, servers, 8),
        SyntheticWorkload(r1, 0).profile(512),
        gpus_per_server=8,
    )
    kept = KeepGroups()(problem)
    uniform = np.full((r1.layers, r1.experts), 1 / r1.experts)
    trace = draw_trace(uniform, r1, 400, stream(0, "trace"))
    # 23,200 (token, layer) pairs with a deviation below 0.9 each: 3 sigma is 0.018.
    _, met = distinct_destinations(trace, kept)
    assert met / (400 * r1.layers) == pytest.approx(distinct, abs=0.02)
    _, scattered = distinct_destinations(trace, RoundRobin()(problem))
    assert scattered / (400 * r1.layers) > distinct + 0.5


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (make_problem(2, None), "model 'small' has no routing groups"),
        (make_problem(3, 2), "3 servers cannot share 2 groups of 4 experts evenly"),
        (replace(make_problem(2, 2), layer_slots=4, server_slots=8), None),
        (replace(make_problem(4, 2), layer_slots=2, server_slots=4), None),
    ],
)
def test_what_cannot_be_kept_is_refused(problem: PlacementProblem, message: str | None) -> None:
    """One line says why groups cannot stay whole; tight caps that fit are kept."""
    if message is None:
        assert KeepGroups()(problem).solve is not None
        return
    with pytest.raises(PlacementError, match=message):
        KeepGroups()(problem)


def test_caps_that_hold_no_whole_groups_are_refused() -> None:
    """Three servers of three slots hold three groups of two experts, not four."""
    problem = replace(make_problem(3, 4), layer_slots=3, server_slots=6)
    with pytest.raises(InfeasibleError, match=r"hold 3 whole groups of 2 experts, 4 are .*1 do"):
        KeepGroups()(problem)


def by_hand(gpu_of_slot: list[int], expert_of_slot: list[int]) -> Placement:
    """A one-layer placement of 4 experts on 2 GPUs."""
    return Placement(
        model="small",
        layers=1,
        experts=4,
        gpus=2,
        gpus_per_server=1,
        slot_layer=np.zeros(len(gpu_of_slot), dtype=np.int32),
        slot_gpu=np.array(gpu_of_slot, dtype=np.int32),
        slot_expert=np.array(expert_of_slot, dtype=np.int32),
        policy="by hand",
    )


def test_engines_accept_by_their_own_rules() -> None:
    """Even, uneven, and doubled slots: who loads what, and why not."""
    even = by_hand([0, 0, 1, 1], [0, 1, 2, 3])
    uneven = by_hand([0, 0, 0, 1], [0, 1, 2, 3])
    doubled = by_hand([0, 0, 0, 1, 1, 1], [0, 1, 1, 2, 3, 0])
    assert accepting(even) == list(ENGINES)
    assert accepting(uneven) == ["omni"]
    assert accepting(doubled) == ["sglang", "vllm", "trtllm"]
    assert refusal(uneven, engine("sglang")) == (
        "layer 0: GPU 1 holds 1 slots and GPU 0 3; expected the same on every GPU"
    )
    assert refusal(doubled, engine("ascend")) == (
        "layer 0: GPU 0 holds expert 1 twice; expected once"
    )


def test_a_problem_with_an_engines_rules_gives_what_it_loads() -> None:
    """ILPLoad under the engine's rules is loaded by all; without them by few."""
    problem = replace(make_problem(2, None), gpus_per_server=2)
    assert accepting(IlpLoad()(problem)) == ["omni"]
    even = for_engine(problem, engine("sglang"))
    assert accepting(IlpLoad()(even)) == list(ENGINES)
    assert for_engine(problem, engine("omni")) is problem


def test_experts_that_do_not_divide() -> None:
    """The error says how many redundant experts would make the slots even."""
    problem = make_problem(3, None)
    with pytest.raises(InfeasibleError, match="8 experts do not divide by 3 GPUs; 1 redundant"):
        for_engine(problem, engine("vllm"))


def test_unknown_engine_lists_the_allowed() -> None:
    """The error names the engines there are."""
    with pytest.raises(PlacementError, match="unknown engine 'x'; allowed: sglang, vllm, trtllm"):
        engine("x")


def test_contiguous_is_loaded_everywhere() -> None:
    """What engines do by default, every engine loads."""
    assert accepting(Contiguous()(make_problem(4, None))) == list(ENGINES)
