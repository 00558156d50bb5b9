"""Policies that look at the tokens' choices: pairs, inter-layer affinity, cluster then map."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING

import numpy as np
import pytest

from placement import Contiguous, PlacementError, PlacementProblem, Policy, evaluate
from placement.field.affinity import InterLayerAffinity, kept_affinity, kept_affinity_bound
from placement.field.mapping import (
    ClusterThenMap,
    _flow,
    _mapped,
    communication,
    communication_bound,
    dependency,
)
from placement.field.pairs import CollaborativePairs, kept_pairs, kept_pairs_bound
from workloads import ExpertProfile, RoutingTrace, affinity, coactivation, model, read_trace

if TYPE_CHECKING:
    from pathlib import Path

POLICIES: list[Policy] = [CollaborativePairs(), InterLayerAffinity(), ClusterThenMap()]
NAMES = [policy.name for policy in POLICIES]


def make_trace(seed: int, *, tokens: int = 60, layers: int = 3, experts: int = 4) -> RoutingTrace:
    """Draw top-2 choices that drift: a token tends to stay near where it was."""
    rng = np.random.default_rng(seed)
    heat = rng.pareto(1.5, (layers, experts)) + 0.3
    turn = np.array([rng.permutation(experts) for _ in range(layers)])
    kind = rng.integers(0, experts, tokens)
    score = np.log(heat)[None] + rng.gumbel(size=(tokens, layers, experts))
    score[np.arange(tokens)[:, None], np.arange(layers), turn[:, kind].T] += 2.0
    topk = np.argsort(-score, axis=2)[:, :, :2]
    return RoutingTrace(topk=topk, experts=experts, seq_lens=np.array([tokens]), source="drawn")


def make_problem(trace: RoutingTrace, servers: int, inside: int) -> PlacementProblem:
    """Build a problem without hops, with the least caps that are feasible."""
    profile = ExpertProfile.from_trace(trace, keep_choices=True)
    return PlacementProblem(
        model="test",
        cost=np.zeros((trace.layers, servers)),
        profile=profile,
        top_k=trace.top_k,
        gpus_per_server=inside,
        layer_slots=-(-trace.experts // servers),
        server_slots=-(-trace.layers * trace.experts // servers),
    )


def equal_halves(experts: int) -> list[np.ndarray]:
    """Every way to give half of the experts to device 0 and half to device 1."""
    every = []
    for first in combinations(range(experts), experts // 2):
        device = np.ones(experts, dtype=int)
        device[list(first)] = 0
        every.append(device)
    return every


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
@pytest.mark.parametrize(
    ("experts", "servers", "inside"), [(12, 2, 3), (10, 4, 1), (7, 2, 2), (4, 2, 4)]
)
def test_equal_counts_keep_the_caps(
    policy: Policy, experts: int, servers: int, inside: int
) -> None:
    """Each expert once; the tightest caps hold on servers and GPUs; the report is honest."""
    problem = make_problem(make_trace(1, layers=5, experts=experts), servers, inside)
    placement = policy(problem)
    assert (placement.replicas == 1).all()
    gpus = servers * inside
    on_gpu = np.array([np.bincount(row, minlength=gpus) for row in placement.gpu_of_expert])
    on_server = on_gpu.reshape(5, servers, inside).sum(axis=2)
    assert on_gpu.max() - on_gpu.min() <= 1
    assert on_server.max() <= problem.layer_slots
    assert on_server.sum(axis=0).max() <= problem.server_slots
    assert placement.solve is not None
    assert (placement.solve.status, placement.solve.bound_hops) == ("heuristic", None)
    assert placement.solve.objective_hops == pytest.approx(
        evaluate(placement, problem).hops_per_token_layer
    )


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_same_problem_same_placement(policy: Policy) -> None:
    """A policy called twice places the same."""
    problem = make_problem(make_trace(2, experts=12), 2, 2)
    assert policy(problem) == policy(problem)


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_experts_may_be_renamed(policy: Policy) -> None:
    """Experts numbered otherwise end up beside the same neighbours."""
    for seed in range(100):
        trace = make_trace(seed, tokens=2000, experts=12)
        problem = make_problem(trace, 2, 2)
        if all(len(set(row)) == 12 for row in problem.profile.load.tolist()):
            break
    else:
        pytest.fail("no trace with distinct loads: equal ones go by expert id")
    turn = np.random.default_rng(0).permutation(12)
    renamed = make_problem(replace(trace, topk=turn[trace.topk]), 2, 2)
    assert (policy(renamed).gpu_of_expert[:, turn] == policy(problem).gpu_of_expert).all()


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_loads_alone_are_not_enough(policy: Policy) -> None:
    """One line says what is missing and how to give it."""
    problem = make_problem(make_trace(0), 2, 1)
    problem = replace(problem, profile=replace(problem.profile, choices=None))
    with pytest.raises(PlacementError) as error:
        policy(problem)
    assert "\n" not in str(error.value)
    for part in (f"policy '{policy.name}'", "'drawn' has loads only", "keep_choices=True"):
        assert part in str(error.value)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_the_best_there_are(seed: int) -> None:
    """On 8 experts and 2 GPUs no halves keep more pairs, and the bound is above."""
    trace = make_trace(seed, experts=8)
    problem = make_problem(trace, 1, 2)
    weight = coactivation(trace.topk, 8)
    device = CollaborativePairs()(problem).gpu_of_expert
    halves = equal_halves(8)
    kept = [[kept_pairs(row[None], half[None]) for half in halves] for row in weight]
    best = float(np.mean([max(row) for row in kept]))
    assert kept_pairs(weight, device) == pytest.approx(best)
    assert best <= kept_pairs_bound(weight, 2) + 1e-12
    # Independent of the weights: pairs of every token on one device, counted.
    counted = [
        device[layer, a] == device[layer, b]
        for token, layer in product(range(trace.tokens), range(3))
        for a, b in combinations(trace.topk[token, layer], 2)
    ]
    assert kept_pairs(weight, device) == pytest.approx(sum(counted) / trace.tokens / 3)
    # The enumeration is no rubber stamp: contiguous halves are worse.
    assert kept_pairs(weight, Contiguous()(make_problem(trace, 2, 1)).server_of_expert) < best


def affinity_of_all(follow: np.ndarray) -> float:
    """Try all placements of 3 layers x 4 experts in equal halves, the first layer up to names."""
    halves = equal_halves(4)
    first = [half for half in halves if half[0] == 0]
    return max(kept_affinity(follow, np.array(d)) for d in product(first, halves, halves))


@pytest.mark.parametrize("seed", range(4))
def test_affinity_is_the_best_there_is(seed: int) -> None:
    """On 3 layers of 4 experts and 2 GPUs no placement keeps more; the bound is above."""
    trace = make_trace(seed)
    follow = affinity(trace.topk, 4)
    device = InterLayerAffinity()(make_problem(trace, 2, 1)).gpu_of_expert
    best = affinity_of_all(follow)
    assert kept_affinity(follow, device) == pytest.approx(best)
    assert best <= kept_affinity_bound(follow, 2) + 1e-12
    counted = [
        device[layer, a] == device[layer + 1, b]
        for token, layer in product(range(trace.tokens), range(2))
        for a, b in product(trace.topk[token, layer], trace.topk[token, layer + 1])
    ]
    assert kept_affinity(follow, device) == pytest.approx(sum(counted) / len(counted))
    # The enumeration is no rubber stamp: contiguous halves are worse.
    alike = np.tile([0, 0, 1, 1], (3, 1))
    assert kept_affinity(follow, alike) < best


@pytest.mark.parametrize("seed", range(3))
def test_no_layer_alone_keeps_more_affinity(seed: int) -> None:
    """Whatever one layer is swapped for, its neighbours held, nothing is gained on servers."""
    trace = make_trace(seed, layers=7, experts=8)
    follow = affinity(trace.topk, 8)
    server = InterLayerAffinity(starts=1)(make_problem(trace, 2, 4)).server_of_expert
    kept = kept_affinity(follow, server)
    for layer, half in product(range(7), equal_halves(8)):
        other = server.copy()
        other[layer] = half
        assert kept_affinity(follow, other) <= kept + 1e-12


def test_dependency_is_what_it_says() -> None:
    """Shared predecessors and successors beyond chance, summed one by one."""
    follow = affinity(make_trace(0).topk, 4)
    load = follow.sum(axis=2)[1]
    expected = np.zeros((4, 4))
    for i, j, h in product(range(4), repeat=3):
        expected[i, j] += follow[0, h, i] * follow[0, h, j] / follow[0, h].sum()
        expected[i, j] += follow[1, i, h] * follow[1, j, h] / follow[1, :, h].sum()
    assert dependency(follow, 1) == pytest.approx(expected - 2 * np.outer(load, load))


@pytest.mark.parametrize("beta", [1.0, 1.2, 3.0])
def test_clusters_are_balanced_and_cannot_be_swapped_better(beta: float) -> None:
    """No cluster exceeds its cap, and no swap within the cap gathers more dependency."""
    trace = make_trace(4, tokens=200, experts=12)
    problem = make_problem(trace, 3, 1)
    follow = affinity(trace.topk, 12)
    placed = ClusterThenMap(beta=beta)(problem).gpu_of_expert
    packed = ClusterThenMap(beta=1.0)(problem).gpu_of_expert
    for layer, load in enumerate(problem.profile.load):
        weight = dependency(follow, layer)
        hottest = np.bincount(packed[layer], load).max()
        cap = max(beta / 3, hottest) + 1e-12
        device = placed[layer]
        assert np.bincount(device, load).max() <= cap
        kept = (weight * (device[:, None] == device)).sum()
        for a, b in combinations(range(12), 2):
            other = device.copy()
            other[[a, b]] = other[[b, a]]
            if np.bincount(other, load).max() <= cap:
                assert (weight * (other[:, None] == other)).sum() <= kept + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_no_layer_alone_maps_better(seed: int) -> None:
    """4 clusters on 2 servers of 2 GPUs: no one layer's other assignment communicates less."""
    trace = make_trace(seed, layers=8, experts=8)
    follow = affinity(trace.topk, 8)
    cluster = np.tile(np.arange(8) // 2, (8, 1))
    gpu = _mapped(_flow(follow, cluster, 4), np.full((8, 4), 2), gpus_per_server=2, inside=0.3)[
        :, np.arange(8) // 2
    ]
    cost = communication(follow, gpu, gpus_per_server=2, inside=0.3)
    for layer, turn in product(range(8), permutations(range(4))):
        other = gpu.copy()
        other[layer] = np.repeat(turn, 2)
        assert communication(follow, other, gpus_per_server=2, inside=0.3) >= cost - 1e-12
    # Identity numbers instead of the mapping do cost more: the check can fail.
    assert communication(follow, cluster, gpus_per_server=2, inside=0.3) > cost


@pytest.mark.parametrize("seed", range(3))
def test_communication_is_counted_and_bounded(seed: int) -> None:
    """Token by token the same cost, and no placement of 3 x 4 experts is below the bound."""
    trace = make_trace(seed)
    follow = affinity(trace.topk, 4)
    gpu = ClusterThenMap()(make_problem(trace, 2, 2)).gpu_of_expert
    costs = []
    for token, layer in product(range(trace.tokens), range(2)):
        for a, b in product(trace.topk[token, layer], trace.topk[token, layer + 1]):
            x, y = gpu[layer, a], gpu[layer + 1, b]
            costs.append(0.0 if x == y else 0.3 if x // 2 == y // 2 else 1.0)
    assert communication(follow, gpu, gpus_per_server=2, inside=0.3) == pytest.approx(
        np.mean(costs)
    )
    every = [np.array(p) for p in permutations(range(4))]
    bound = communication_bound(follow, servers=2, gpus_per_server=2, inside=0.3)
    for second, third in product(every, repeat=2):
        placed = np.array([np.arange(4), second, third])
        assert communication(follow, placed, gpus_per_server=2, inside=0.3) >= bound - 1e-12


@pytest.mark.parametrize("policy", [ClusterThenMap(beta=0.9), ClusterThenMap(inside=1.5)])
def test_bad_parameters(policy: ClusterThenMap) -> None:
    """A beta below 1 or an inside cost beyond 1 is refused."""
    with pytest.raises(PlacementError, match=r"beta must be at least 1 and inside in 0\.\.1"):
        policy(make_problem(make_trace(0), 2, 1))


def test_one_layer_has_no_neighbours() -> None:
    """A model of one MoE layer is placed; there is no transition to keep or to pay."""
    trace = make_trace(0, layers=1)
    for policy in POLICIES:
        assert (policy(make_problem(trace, 2, 1)).replicas == 1).all()
    follow = affinity(trace.topk, 4)
    assert (kept_affinity(follow, np.zeros((1, 4), int)), kept_affinity_bound(follow, 2)) == (0, 0)


def distinct_gpus(topk: np.ndarray, gpu: np.ndarray) -> float:
    """Mean distinct GPUs of a token and layer."""
    ordered = np.sort(gpu[np.arange(topk.shape[1])[:, None], topk], axis=2)
    return float(1 + (np.diff(ordered, axis=2) > 0).sum(axis=2).mean())


@pytest.mark.real_data
def test_on_recorded_traces(real_data: Path) -> None:
    """V2-Lite, 8 GPUs: judged on other blocks, each beats contiguous in what it is made for."""
    lite = model("DeepSeek-V2-Lite")
    folder = real_data / "deepseek-v2-lite-traces"
    topk = np.concatenate([read_trace(folder / f"{n}.npz", lite).topk for n in ("intent", "law")])
    fitted = np.arange(len(topk)) // 500 % 2 == 0
    train, judged = (
        RoutingTrace(topk=part, experts=64, seq_lens=np.array([len(part)]), source="blocks")
        for part in (topk[fitted], topk[~fitted])
    )
    problem = make_problem(train, 8, 1)
    runs = Contiguous()(problem).gpu_of_expert
    copies = distinct_gpus(judged.topk, runs)
    assert copies == pytest.approx(4.54, abs=0.02)
    pairs, chain, mapped = (policy(problem).gpu_of_expert for policy in POLICIES)
    # Grouping alone, without any cap on load, reaches what a capped search of copies does.
    assert distinct_gpus(judged.topk, pairs) < 0.72 * copies
    follow = affinity(judged.topk, 64)
    assert kept_affinity(follow, chain) > 2.5 * kept_affinity(follow, runs)
    assert communication(follow, mapped, gpus_per_server=1) < 0.85 * communication(
        follow, runs, gpus_per_server=1
    )
    assert evaluate(ClusterThenMap()(problem), problem).balance_gpu <= 1.1
