"""EPLB: the published example, a slow readable twin, and figures on the recorded R1 loads."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import (
    Contiguous,
    InfeasibleError,
    Placement,
    PlacementError,
    PlacementProblem,
    evaluate,
)
from placement.field.eplb import Eplb, _replicated, doubled_cells, doubled_warning, eplb
from workloads import ExpertProfile, model, read_logical_count

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
)


def make_problem(load: np.ndarray, servers: int, gpus_per_server: int) -> PlacementProblem:
    """Build a problem without hops whose caps leave no slot to spare."""
    layers, experts = load.shape
    return PlacementProblem(
        model="test",
        cost=np.zeros((layers, servers)),
        profile=ExpertProfile.from_counts(load, source="test"),
        top_k=2,
        gpus_per_server=gpus_per_server,
        layer_slots=-(-experts // servers),
        server_slots=-(-layers * experts // servers),
    )


def gpu_loads(load: np.ndarray, phy2log: np.ndarray, gpus: int) -> np.ndarray:
    """Sum the shares of every GPU's slots, counting replicas afresh."""
    share = [
        [row[e] / list(slots).count(e) for e in slots]
        for row, slots in zip(load, phy2log, strict=True)
    ]
    return np.array(share).reshape(len(load), gpus, -1).sum(axis=2)


def test_published_example_hierarchical() -> None:
    """4 groups on 2 nodes give the slots and GPU loads of deepseek-ai/EPLB's README."""
    found = eplb(EXAMPLE, replicas=16, groups=4, nodes=2, gpus=8)
    assert found.phy2log.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    heat = gpu_loads(EXAMPLE, found.phy2log, 8)
    assert heat.tolist() == [
        [121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152],
        [173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5],
    ]
    assert (heat.max(axis=1) / heat.mean(axis=1)).round(3).tolist() == [1.208, 1.242]


def test_published_example_falls_back_to_global() -> None:
    """3 groups do not divide by 2 nodes: global balancing, the same as one group on one node."""
    found = eplb(EXAMPLE, replicas=16, groups=3, nodes=2, gpus=8)
    assert found.phy2log.tolist() == [
        [10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1],
        [1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7],
    ]
    flat = eplb(EXAMPLE, replicas=16, groups=1, nodes=1, gpus=8)
    assert flat.phy2log.tolist() == found.phy2log.tolist()


def slow_pack(weights: list[float], packs: int) -> list[list[int]]:
    """Pack items one by one, heaviest first, each to the lightest pack with room."""
    room = len(weights) // packs
    if room == 1:
        return [[i] for i in range(packs)]
    held: list[list[int]] = [[] for _ in range(packs)]
    for item in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        open_packs = [p for p in range(packs) if len(held[p]) < room]
        lightest = min(open_packs, key=lambda p: (sum(weights[i] for i in held[p]), p))
        held[lightest].append(item)
    return held


def slow_eplb(weights: list[float], slots: int, groups: int, nodes: int, gpus: int) -> list[int]:
    """Balance one layer with lists and dictionaries: a readable twin of `eplb`."""
    if groups % nodes:
        groups = nodes = 1
    size = len(weights) // groups
    runs = [list(range(g * size, (g + 1) * size)) for g in range(groups)]
    result = []
    for held in slow_pack([sum(weights[e] for e in run) for run in runs], nodes):
        experts = [e for g in held for e in runs[g]]
        copies, count = list(experts), dict.fromkeys(experts, 1)
        while len(copies) < slots // nodes:
            hottest = max(experts, key=lambda e: (weights[e] / count[e], -experts.index(e)))
            copies.append(hottest)
            count[hottest] += 1
        shares = [weights[e] / count[e] for e in copies]
        result += [copies[i] for pack in slow_pack(shares, gpus // nodes) for i in pack]
    return result


SHAPES = [(8, 8, 4, 2, 4), (8, 12, 4, 2, 4), (8, 16, 3, 2, 16), (12, 16, 4, 4, 8), (6, 12, 1, 1, 3)]
"""Experts, slots, groups, nodes, GPUs."""


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 3), st.integers(0, 2**32))
def test_equals_its_slow_twin(
    shape: tuple[int, int, int, int, int], layers: int, seed: int
) -> None:
    """Slot by slot as the twin places them, ties (integer loads) included."""
    experts, slots, groups, nodes, gpus = shape
    groups = groups if experts % groups == 0 else 1
    load = np.random.default_rng(seed).integers(0, 9, (layers, experts)) + 0.0
    found = eplb(load, replicas=slots, groups=groups, nodes=nodes, gpus=gpus)
    for row, placed in zip(load.tolist(), found.phy2log.tolist(), strict=True):
        assert placed == slow_eplb(row, slots, groups, nodes, gpus)


def test_the_twin_tells_orders_apart() -> None:
    """The twin, fed the loads in reverse, does not agree: the comparison can fail."""
    found = eplb(EXAMPLE, replicas=16, groups=4, nodes=2, gpus=8)
    assert found.phy2log[0].tolist() == slow_eplb(EXAMPLE[0].tolist(), 16, 4, 2, 8)
    assert found.phy2log[0].tolist() != slow_eplb(EXAMPLE[0, ::-1].tolist(), 16, 4, 2, 8)


def test_tables_agree() -> None:
    """The slots that log2phy lists hold the expert, as many as logcnt says, padded with -1."""
    found = eplb(EXAMPLE, replicas=16, groups=4, nodes=2, gpus=8)
    for layer, expert in product(range(2), range(12)):
        slots = np.flatnonzero(found.phy2log[layer] == expert).tolist()
        padding = [-1] * (found.log2phy.shape[2] - len(slots))
        assert found.log2phy[layer, expert].tolist() == slots + padding
        assert found.logcnt[layer, expert] == len(slots)


@pytest.mark.parametrize("seed", range(5))
def test_replica_counts_are_the_best_there_are(seed: int) -> None:
    """No other replica counts make the hottest replica lighter (all counts tried)."""
    weight = np.random.default_rng(seed).pareto(1.0, 4) + 0.1
    count = np.bincount(_replicated(weight[None], 8)[0], minlength=4)
    every = [c for c in product(range(1, 6), repeat=4) if sum(c) == 8]
    least = min(float((weight / c).max()) for c in every)
    assert float((weight / count).max()) == pytest.approx(least)
    # The brute force is no rubber stamp: even counts are worse.
    assert float((weight / 2).max()) > least


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"replicas": 11}, "11 slots cannot hold 12 experts"),
        ({"replicas": 20}, "20 slots of a layer do not divide by 8 GPUs; 24 would"),
        ({"nodes": 4, "gpus": 6, "replicas": 12}, "6 GPUs do not divide by 4 nodes; 8 would"),
        ({"groups": 8, "nodes": 2}, "12 experts do not divide by 8 groups; 16 would"),
        ({"groups": 0}, "must be at least 1, got 0, 2, 8"),
    ],
)
def test_what_does_not_divide_is_refused(wrong: dict[str, int], expected: str) -> None:
    """One line says what does not divide and what would."""
    with pytest.raises(PlacementError, match=expected):
        eplb(EXAMPLE, **({"replicas": 16, "groups": 4, "nodes": 2, "gpus": 8} | wrong))


def test_loads_must_have_layers() -> None:
    """A row of loads without a layer axis is refused."""
    with pytest.raises(PlacementError, match=r"load must be .layers, experts., got shape"):
        eplb(EXAMPLE[0], replicas=16, groups=4, nodes=2, gpus=8)


def test_policy_is_the_pure_function() -> None:
    """The policy places what `eplb` returns, nodes being servers, and reports its hops."""
    problem = make_problem(EXAMPLE, 2, 4)
    placement = Eplb(redundant=4, groups=4)(problem)
    found = eplb(EXAMPLE, replicas=16, groups=4, nodes=2, gpus=8).phy2log
    assert placement.slot_expert.reshape(2, 16).tolist() == found.tolist()
    assert placement.slot_gpu.reshape(2, 16)[0].tolist() == (np.arange(16) // 2).tolist()
    assert placement.solve is not None
    assert (placement.solve.status, placement.solve.gap) == ("heuristic", None)
    assert placement == Eplb(redundant=4, groups=4)(problem)
    everywhere = eplb(EXAMPLE, replicas=16, groups=1, nodes=1, gpus=8).phy2log
    for policy in (Eplb(redundant=4), Eplb(redundant=4, groups=4, hierarchical=False)):
        assert policy(problem).slot_expert.reshape(2, 16).tolist() == everywhere.tolist()


def test_the_policy_knows_the_models_groups() -> None:
    """Without groups of its own it takes the problem's, unless told to balance globally."""
    flat = make_problem(EXAMPLE, 2, 4)
    grouped = replace(flat, n_group=4)
    assert Eplb(redundant=4)(grouped) == Eplb(redundant=4, groups=4)(flat)
    assert Eplb(redundant=4, hierarchical=False)(grouped) == Eplb(redundant=4)(flat)
    assert Eplb(redundant=4)(grouped) != Eplb(redundant=4)(flat)


def test_hierarchical_keeps_groups_on_a_server() -> None:
    """Experts of one group, replicas included, share a server."""
    placement = Eplb(redundant=4, groups=4)(make_problem(EXAMPLE, 2, 4))
    server = placement.slot_gpu // 4
    for layer, group in product(range(2), range(4)):
        mine = (placement.slot_layer == layer) & (placement.slot_expert // 3 == group)
        assert len(set(server[mine].tolist())) == 1


def test_policy_without_redundant_slots_keeps_both_caps() -> None:
    """One slot per expert, equal on all GPUs."""
    problem = make_problem(EXAMPLE, 2, 2)
    placement = Eplb()(problem)
    assert (placement.replicas == 1).all()
    held = np.bincount(placement.slot_layer * 4 + placement.slot_gpu)
    assert held.tolist() == [3] * 8


def test_policy_says_how_many_redundant_slots_would_divide() -> None:
    """12 experts and 1 redundant slot on 8 GPUs: 4 would do."""
    with pytest.raises(PlacementError, match="do not divide by 8 GPUs; redundant=4 would"):
        Eplb(redundant=1)(make_problem(EXAMPLE, 2, 4))
    with pytest.raises(PlacementError, match="redundant is -4, below 0"):
        Eplb(redundant=-4)(make_problem(EXAMPLE, 2, 4))


def test_doubled_cells_are_counted() -> None:
    """GPU 0 holds expert 0 thrice and GPU 1 expert 1 twice in layer 1: two cells."""
    placement = Placement(
        model="test",
        layers=2,
        experts=2,
        gpus=2,
        gpus_per_server=1,
        slot_layer=np.array([0, 0, 1, 1, 1, 1, 1]),
        slot_gpu=np.array([0, 1, 0, 0, 0, 1, 1]),
        slot_expert=np.array([0, 1, 0, 0, 0, 1, 1]),
        policy="test",
    )
    assert doubled_cells(placement) == 2


def test_the_policy_doubles_where_the_balancer_does() -> None:
    """Two hot experts of two replicas on 2 GPUs: each goes twice to the GPU that had it first.

    Replicas weigh 5, 5, 5, 5, 1, 1; the third finds both GPUs equal and takes GPU 0 again.
    """
    placement = Eplb(redundant=2)(make_problem(np.array([[10.0, 10, 1, 1]]), 1, 2))
    assert placement.replicas.tolist() == [[2, 2, 1, 1]]
    assert doubled_cells(placement) == 2
    assert doubled_warning(placement) == (
        "policy 'eplb': 2 of 2 (layer, GPU) cells hold an expert twice, a slot wasted in each; "
        "ascend and omni would not load it, policy 'replicated' avoids it"
    )
    assert doubled_warning(Eplb()(make_problem(EXAMPLE, 2, 2))) is None


def test_more_replicas_than_gpus_are_refused_by_the_policy() -> None:
    """The balancer gives 5 replicas on 4 GPUs; the policy says which expert gets them."""
    lopsided = np.array([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    assert eplb(lopsided, replicas=8, groups=1, nodes=1, gpus=4).logcnt[1].tolist() == [5, 1, 1, 1]
    with pytest.raises(
        InfeasibleError, match="layer 1: expert 0 gets 5 replicas on 4 GPUs, expected at most one"
    ) as caught:
        Eplb(redundant=4)(make_problem(lopsided, 1, 4))
    assert "\n" not in str(caught.value)
    # However even the loads, 20 slots are more than 4 experts on each of 4 GPUs.
    with pytest.raises(InfeasibleError, match=r"20 slots .* redundant is at most 12"):
        Eplb(redundant=16)(make_problem(np.ones((1, 4)), 1, 4))
    assert (Eplb(redundant=12)(make_problem(np.ones((1, 4)), 1, 4)).replicas == 4).all()


def r1_problem(data: Path, servers: int, gpus_per_server: int, load: str) -> PlacementProblem:
    """Build a problem of the recorded R1 loads, without hops."""
    profile = read_logical_count(data / "deepseek-r1-loads" / f"{load}.json", model("DeepSeek-R1"))
    return make_problem(profile.load, servers, gpus_per_server)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("redundant", "hierarchical", "balance", "digits"),
    [(0, True, 1.34, 2), (0, False, 1.10, 2), (32, True, 1.32, 2), (32, False, 1.007, 3)],
)
def test_balance_on_recorded_loads(
    real_data: Path, redundant: int, *, hierarchical: bool, balance: float, digits: int
) -> None:
    """R1 decode 1000/1000 on 32 GPUs of 4 nodes: the known balances (FACTS, section 5)."""
    problem = r1_problem(real_data, 4, 8, "decode_in1000out1000")
    policy = Eplb(redundant=redundant, groups=8, hierarchical=hierarchical)
    assert round(evaluate(policy(problem), problem).balance_gpu, digits) == balance


@pytest.mark.real_data
def test_linear_slots_on_recorded_loads(real_data: Path) -> None:
    """Without a balancer 2.88; no map of 8 experts a GPU is better than 1.05 (FACTS, section 5)."""
    problem = r1_problem(real_data, 32, 1, "decode_in1000out1000")
    assert round(evaluate(Contiguous()(problem), problem).balance_gpu, 2) == 2.88
    load = np.sort(problem.profile.load, axis=1)
    # The hottest expert sits with 7 others, at best the coldest.
    least = np.maximum(1 / 32, load[:, -1] + load[:, :7].sum(axis=1))
    assert round(float(least.mean() * 32), 2) == 1.05


@pytest.mark.real_data
def test_replicas_twice_on_a_gpu(real_data: Path) -> None:
    """EPLB doubles an expert in 100 of 1,856 layer-GPU cells (FACTS, section 5)."""
    problem = r1_problem(real_data, 4, 8, "prefill_in1024")
    assert doubled_cells(Eplb(redundant=32, groups=8)(problem)) == 100


def test_fast_enough_for_a_large_deployment() -> None:
    """58 layers, 512 slots on 256 GPUs in at most 0.15 s, best of five."""
    load = np.random.default_rng(0).pareto(1.5, (58, 256))
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        eplb(load, replicas=512, groups=1, nodes=1, gpus=256)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) <= 0.15
