"""Redundant slots: counts, places, caps and bounds against brute force; recorded R1 loads."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import (
    Attention,
    DataParallel,
    InfeasibleError,
    Pipelined,
    Placement,
    PlacementError,
    PlacementProblem,
    evaluate,
)
from placement.field.eplb import Eplb
from placement.replicas._bound_kernel import pair_bound
from placement.replicas._search_kernel import deal, replica_counts
from placement.replicas.bounds import balance_bound, hops_bound
from placement.replicas.problem import ReplicaProblem
from placement.replicas.replicated import Replicated
from placement.replicas.rules import (
    LeastHops,
    evaluate_replicas,
    gpu_load,
    layer_hops,
    make_rule,
    replica_flows,
)
from placement.replicas.slot_price import kv_tokens
from topologies import Router, preset
from workloads import ExpertProfile, MoEModel, model, read_logical_count

if TYPE_CHECKING:
    from pathlib import Path

TREE = np.array([[0, 2, 4, 4], [2, 0, 4, 4], [4, 4, 0, 2], [4, 4, 2, 0]])
"""Four servers on two leaves."""

Rule = Literal["equal", "nearest", "lp"]


def make_problem(
    load: np.ndarray, distance: np.ndarray, attention: type[Pipelined | DataParallel], inside: int
) -> ReplicaProblem:
    """Build a problem of a model with as many experts as the loads have."""
    layers, experts = load.shape
    shape = MoEModel("test", layers, tuple(range(layers)), experts, 2, 0, 8, 8)
    mode: Attention = attention(layers, len(distance), inside)
    profile = ExpertProfile(load / load.sum(axis=1, keepdims=True), "test")
    problem = PlacementProblem.build(shape, distance, mode, profile, gpus_per_server=inside)
    return ReplicaProblem.of(problem, distance, mode)


def skewed(seed: int, layers: int, experts: int) -> np.ndarray:
    """Draw loads of which a few are far above the mean."""
    return np.random.default_rng(seed).pareto(1.2, (layers, experts)) + 0.1


def every_placement(problem: ReplicaProblem, room: int) -> list[Placement]:
    """All placements of a one-layer problem with `room` different experts on every GPU."""
    base = problem.problem
    gpus = base.servers * base.gpus_per_server
    sets = list(combinations(range(base.experts), room))
    return [
        Placement(
            model="test",
            layers=1,
            experts=base.experts,
            gpus=gpus,
            gpus_per_server=base.gpus_per_server,
            slot_layer=np.zeros(gpus * room, dtype=np.int32),
            slot_gpu=np.repeat(np.arange(gpus), room),
            slot_expert=np.array(held).ravel(),
            policy="brute force",
        )
        for held in product(sets, repeat=gpus)
        if len({e for one in held for e in one}) == base.experts
    ]


def priced(placement: Placement, problem: ReplicaProblem, rule: str) -> tuple[float, float]:
    """Busiest GPU over the mean, and hops of a token."""
    flows = replica_flows(placement, problem, make_rule(rule))
    heat = gpu_load(placement, flows)
    return float(heat.max() * placement.gpus), float(layer_hops(placement, problem, flows)[0])


def doubled(placement: Placement) -> bool:
    """Whether some GPU holds an expert twice in a layer."""
    slots = zip(placement.slot_layer, placement.slot_gpu, placement.slot_expert, strict=True)
    return len(set(slots)) < len(placement.slot_layer)


TINY = [
    (seed, rule, attention)
    for seed in (0, 1, 2, 4)
    for rule, attention in (
        ("equal", Pipelined),
        ("nearest", DataParallel),
        ("nearest", Pipelined),
    )
]


@pytest.mark.parametrize(("seed", "rule", "attention"), TINY)
def test_both_stages_equal_brute_force(
    seed: int, rule: Rule, attention: type[Pipelined | DataParallel]
) -> None:
    """4 experts, 4 GPUs of 2 slots: of all 6^4 placements none is lighter, none cheaper."""
    problem = make_problem(skewed(seed, 1, 4), TREE, attention, 1)
    all_ = [priced(p, problem, rule) for p in every_placement(problem, 2)]
    least = min(load for load, _ in all_)
    found = Replicated(4, rule=rule).replicate(problem)
    assert found.least[0] == pytest.approx(least, rel=1e-9)
    assert found.bound[0] <= least * (1 + 1e-9)
    for cap in (least, least * 1.1, least * 1.5):
        fewest = min(hops for load, hops in all_ if load <= cap * (1 + 1e-9))
        policy = Replicated(4, rule=rule, cap=cap * (1 + 1e-8))
        placement = policy(problem)
        load, hops = priced(placement, problem, rule)
        assert load <= cap * (1 + 1e-7)
        assert hops == pytest.approx(fewest, rel=1e-9)
        report = placement.solve
        assert report is not None
        assert report.objective_hops == pytest.approx(hops, rel=1e-9)
        assert report.bound_hops is not None
        assert report.bound_hops <= fewest * (1 + 1e-9)
    # The brute force tells the worst from the best.
    assert max(load for load, _ in all_) > least * 1.01
    assert max(hops for _, hops in all_) > fewest + 1e-6


def test_annealing_is_no_proof() -> None:
    """An instance where it misses the fewest hops by 2 %: it says feasible, its bound holds."""
    problem = make_problem(skewed(3, 1, 4), TREE, Pipelined, 1)
    all_ = [priced(p, problem, "equal") for p in every_placement(problem, 2)]
    cap = 1.1 * min(load for load, _ in all_)
    fewest = min(hops for load, hops in all_ if load <= cap)
    report = Replicated(4, cap=cap)(problem).solve
    assert report is not None
    assert report.bound_hops is not None
    assert report.bound_hops <= fewest <= report.objective_hops <= 1.025 * fewest
    assert report.status == "feasible"


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_the_best_there_are(seed: int) -> None:
    """Water-filling gives the least largest load / count, no count above the GPUs."""
    load = skewed(seed, 1, 4)[0]
    count = replica_counts(load, 9, 3)
    every = [c for c in product(range(1, 4), repeat=4) if sum(c) == 9]
    largest = {c: float((load / c).max()) for c in every}
    assert tuple(count) in largest
    assert largest[tuple(count)] == pytest.approx(min(largest.values()))
    assert max(largest.values()) > min(largest.values())


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 7), st.integers(1, 6), st.integers(0, 2**32), st.data())
def test_dealing_never_doubles(gpus: int, room: int, seed: int, data: st.DataObject) -> None:
    """Whatever the counts, down to every expert on every GPU, each fills its slots once a GPU."""
    experts = data.draw(st.integers(room, gpus * room))
    load = np.random.default_rng(seed).integers(0, 5, experts).astype(np.float64)
    count = replica_counts(load, gpus * room, gpus)
    order = np.argsort(-load / count, kind="stable")
    slot = deal(load / count, count, order, (gpus, room))
    assert np.bincount(slot.ravel(), minlength=experts).tolist() == count.tolist()
    assert all(len(set(row)) == room for row in slot.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_pair_bound_is_below_brute_force(seed: int) -> None:
    """Two slots a GPU: the bound never exceeds the best of all placements."""
    load = skewed(seed, 1, 5)
    problem = make_problem(load, TREE[:4, :4], Pipelined, 1)
    weight = problem.problem.profile.load * 4
    least = min(priced(p, problem, "equal")[0] for p in every_placement(problem, 2))
    plain = float(balance_bound(weight / 4, 8, 4, np.array([np.inf]))[0])
    paired = pair_bound(weight[0], 4, plain, least)
    assert plain <= paired <= least * (1 + 1e-9)
    # Fed a placement's load that is not the least, it stays below the least all the same.
    assert pair_bound(weight[0], 4, plain, least * 2) <= least * (1 + 1e-9)


def test_pair_bound_sees_more_than_the_hottest_slot() -> None:
    """6 experts of 2/3 and 2 of 0 on 4 GPUs: 6 slots do not fit beside cold ones.

    Without redundant slots, mean 1, hottest 2/3: four GPUs take six experts, so two share one:
    4/3. The bound before knows of 1 only.
    """
    load = np.array([2 / 3] * 6 + [0.0] * 2)
    assert pair_bound(load, 4, 1.0, 2.0) == pytest.approx(4 / 3, abs=1e-3)


def test_bounds_without_redundant_slots_count_what_sits_beside() -> None:
    """3 slots a GPU, none redundant: the hottest expert sits with at least the two coldest."""
    load = np.array([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    # (0.5 + 0.1 + 0.1) x 2 GPUs.
    assert balance_bound(load, 6, 2, np.array([np.inf])).tolist() == pytest.approx([1.4])
    # With two redundant slots the hottest is halved: only the mean is left.
    assert balance_bound(load, 8, 2, np.array([np.inf])).tolist() == pytest.approx([1.0])


def test_hops_bound_by_hand() -> None:
    """Fabric of two leaves, data-parallel, one GPU a server: an expert everywhere costs nothing."""
    problem = make_problem(np.array([[3.0, 1.0]]), TREE, DataParallel, 1)
    # One replica: mean of 0, 2, 4, 4 there and back = 5 hops a choice; two: on both leaves 2;
    # three: 1; four: 0. Five slots: 3/4 x 1 or so: the first expert gets 4, the second 1.
    bound = hops_bound(problem.problem, problem, 5, np.array([10.0]))
    assert bound == pytest.approx(2 * (0.75 * 0 + 0.25 * 5))
    # Pipelined, one origin: no GPU above 1 x the mean means every server alike.
    piped = make_problem(np.array([[1.0, 1, 1, 1]]), TREE, Pipelined, 1)
    even = hops_bound(piped.problem, None, 4, np.array([1.0]))
    assert even == pytest.approx(2 * piped.problem.cost.mean())


@pytest.mark.parametrize("rule", ["equal", "nearest", "lp"])
def test_valid_deterministic_and_evaluated_under_its_rule(rule: Rule) -> None:
    """No doubles, equal slots, the same again, and the report is what the evaluation says."""
    problem = make_problem(skewed(5, 3, 12), TREE, DataParallel, 2)
    policy = Replicated(4, rule=rule, steps=3_000)
    found = policy.replicate(problem)
    for placement in (found.lightest, found.placement):
        assert not doubled(placement)
        held = np.bincount(placement.slot_layer * 8 + placement.slot_gpu)
        assert held.tolist() == [2] * 24
    assert found.placement == policy(problem)
    runs = LeastHops(tuple(found.cap)) if rule == "lp" else make_rule(rule)
    judged = evaluate_replicas(found.placement, problem, runs)
    report = found.placement.solve
    assert report is not None
    assert judged.hops_per_token_layer == pytest.approx(report.objective_hops, rel=1e-6)
    heat = gpu_load(found.placement, replica_flows(found.placement, problem, runs))
    assert (heat.max(axis=1) * 8 <= found.cap * (1 + 1e-6)).all()
    assert (found.bound <= found.least * (1 + 1e-9)).all()
    light = evaluate_replicas(found.lightest, problem, make_rule(rule))
    assert light.balance_gpu == pytest.approx(found.least.mean(), rel=1e-6)


def test_lp_is_as_light_as_the_others() -> None:
    """Fractions chosen freely balance at least as well as equal or nearest ones."""
    problem = make_problem(skewed(6, 2, 10), TREE, DataParallel, 1)
    least = {
        rule: Replicated(2, rule=rule, steps=3_000).replicate(problem).least
        for rule in ("equal", "nearest", "lp")
    }
    assert (least["lp"] <= least["equal"] + 1e-7).all()
    assert (least["lp"] <= least["nearest"] + 1e-7).all()


def test_costs_are_enough_under_equal() -> None:
    """A problem without origins gives the same placement under `equal`, and is refused else."""
    problem = make_problem(skewed(7, 2, 12), TREE, Pipelined, 1)
    policy = Replicated(4, steps=2_000)
    placement = policy(problem.problem)
    assert placement == policy(problem)
    assert placement.solve is not None
    known = evaluate(placement, problem.problem).hops_per_token_layer
    assert placement.solve.objective_hops == pytest.approx(known)
    with pytest.raises(PlacementError, match="'nearest' needs to know where tokens come from"):
        replace(policy, rule="nearest")(problem.problem)


def test_nothing_to_gain_is_called_optimal() -> None:
    """Data-parallel on a symmetric fabric: under `equal` every placement costs the same."""
    problem = make_problem(skewed(8, 2, 12), TREE, DataParallel, 1)
    report = Replicated(4, steps=2_000)(problem).solve
    assert report is not None
    # 2 choices, mean of 0, 2, 4, 4 there and back.
    assert report.objective_hops == pytest.approx(2 * 5.0)
    assert report.status == "optimal"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Replicated(3), "12 experts and 3 redundant slots must divide by 4 GPUs; redundant=0 or 4"),
        (Replicated(-4), "-4 redundant slots must divide by 4 GPUs; redundant=0 would"),
        (Replicated(40), "52 slots for 12 experts need more replicas of an expert than the 4 GPUs"),
        (Replicated(4, rule="best"), "rule is 'best', allowed: equal, nearest, lp"),  # type: ignore[arg-type]
        (Replicated(4, cap=(2.0,)), "1 caps for 2 layers"),
        (Replicated(4, cap=1.0, steps=500), r"layer 0: no GPU above 1.0000 x the mean was asked"),
    ],
)
def test_bad_input_is_one_line(policy: Replicated, expected: str) -> None:
    """What does not divide, does not fit or is not reached is refused, with what would do."""
    load = skewed(9, 2, 12)
    load[:, 0] = 60.0
    problem = make_problem(load, TREE, Pipelined, 1)
    with pytest.raises(PlacementError, match=expected):
        policy(problem)
    assert issubclass(InfeasibleError, PlacementError)


def test_every_expert_on_every_gpu() -> None:
    """As many redundant slots as there can be: perfect balance."""
    problem = make_problem(skewed(9, 2, 12), TREE, Pipelined, 1)
    found = Replicated(36).replicate(problem)
    assert found.least == pytest.approx(1.0)
    assert (found.placement.replicas == 4).all()


def test_relaxed_layers_keep_to_the_least_found() -> None:
    """A cap below what a layer reaches is raised there, and only there."""
    load = np.ones((2, 12))
    # Six replicas of 200 / 3 on four GPUs: two of them on two, 133 of a mean of 102.5.
    load[0, :2] = 200.0
    problem = make_problem(load, TREE, Pipelined, 1)
    found = Replicated(4, cap=1.1, relax=True, steps=3_000).replicate(problem)
    assert found.least[0] == pytest.approx((400 / 3 + 2) / 102.5, rel=0.01)
    assert found.cap[0] == found.least[0]
    assert found.cap[1] == pytest.approx(1.1)


def test_out_of_time_says_so_and_is_still_valid() -> None:
    """No time at all: the start is returned, with its bound."""
    problem = make_problem(skewed(11, 3, 12), TREE, Pipelined, 1)
    placement = Replicated(4, time_limit_s=0.0)(problem)
    assert placement.solve is not None
    assert placement.solve.limit == "time"
    assert placement.solve.bound_hops is not None
    assert not doubled(placement)


def test_price_of_a_slot() -> None:
    """R1 in FP8: 2.55 GB over 58 layers displace 36,349 tokens of cache (FACTS section 3)."""
    r1 = model("DeepSeek-R1")
    assert kv_tokens(r1, bytes_per_parameter=1) == 36_349
    # The scales of 128 x 128 blocks: 58 x 44,050,944 / 70,272.
    assert kv_tokens(r1) == 36_358
    halved = kv_tokens(r1, slots_per_gpu=0.5, bytes_per_parameter=1, kv_bytes=70_272 * 2)
    assert halved == 36_349 // 4


@pytest.mark.real_data
@pytest.mark.parametrize(("attention", "rule"), [(Pipelined, "equal"), (DataParallel, "nearest")])
def test_better_than_eplb_on_recorded_loads(
    real_data: Path, attention: type[Pipelined | DataParallel], rule: Rule
) -> None:
    """R1 decode on EP32, 288 slots: at EPLB's balance in every layer, fewer hops; no doubles."""
    r1 = model("DeepSeek-R1")
    file = real_data / "deepseek-r1-loads" / "decode_in1000out1000.json"
    load = read_logical_count(file, r1).load[::6]
    distance = Router(preset("ep32").spec.build()).server_distance().astype(np.int64)
    problem = make_problem(load, distance, attention, 8)
    theirs = Eplb(redundant=32, hierarchical=False)(problem.problem)
    runs = make_rule(rule)
    cap = gpu_load(theirs, replica_flows(theirs, problem, runs)).max(axis=1) * 32
    found = Replicated(32, rule=rule, cap=tuple(cap.tolist())).replicate(problem)
    ours, before = (evaluate_replicas(p, problem, runs) for p in (found.placement, theirs))
    assert ours.balance_gpu <= before.balance_gpu
    assert ours.hops_per_token_layer < before.hops_per_token_layer
    assert not doubled(found.placement)
    assert found.least.mean() < 1.003
