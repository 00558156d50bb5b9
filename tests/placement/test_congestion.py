"""Least congestion against exhaustive search, the router's own bytes and slow twins."""

from __future__ import annotations

import itertools
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import DataParallel, InfeasibleError, Placement, PlacementError, PlacementProblem
from placement.congestion import _search_kernel as kernel
from placement.congestion.least import (
    CongestionProblem,
    LeastCongestion,
    least_gpu_load,
    least_replicas,
)
from placement.congestion.link_cost import LinkCost
from placement.congestion.relaxation import CongestionProgram, essential_rows
from topologies import Cluster, Router, ServerLinks, dragonfly, fat_tree, from_links, preset
from workloads import ExpertProfile, model
from workloads.readers import read_logical_count

if TYPE_CHECKING:
    from pathlib import Path

BYTES = (7408, 14336)


def leaf_spine(gpus_per_server: int = 2, **parameters: float) -> Cluster:
    """Two leaves of one server each, two spines."""
    return fat_tree(
        leaves_per_pod=2,
        servers_per_leaf=1,
        aggregations_per_pod=2,
        gpus_per_server=gpus_per_server,
        **parameters,
    )


def rails() -> Cluster:
    """Two servers of two GPUs, each GPU on a leaf of its own; the leaves form a ring."""
    ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    return from_links(ring, leaf_of_gpu=[0, 1, 2, 3], servers=ServerLinks(gpus_per_server=2))


CLUSTERS = {
    "leaf-spine": leaf_spine,
    "rails": rails,
    "one server": lambda: from_links(
        [], leaf_of_gpu=[0] * 4, servers=ServerLinks(gpus_per_server=4)
    ),
    "dragonfly": lambda: dragonfly(a=2, p=1, h=1, groups=3, gpus_per_server=2),
    "sparse tree": lambda: fat_tree(
        pods=4,
        leaves_per_pod=1,
        servers_per_leaf=2,
        aggregations_per_pod=1,
        cores_per_aggregation=2,
        gpus_per_server=1,
        reach=1,
    ),
}


def link_cost(cluster: Cluster, *, together: bool = False) -> LinkCost:
    """Price a cluster's links for 8 choices a token."""
    return LinkCost.of(
        Router(cluster),
        top_k=8,
        dispatch_bytes=BYTES[0],
        combine_bytes=BYTES[1],
        together=together,
    )


def routed_seconds(cluster: Cluster, gpu_load: np.ndarray) -> np.ndarray:
    """Send every GPU's share to and from every GPU through the router: [phases, links]."""
    origin, expert = (side.ravel() for side in np.indices((cluster.gpus, cluster.gpus)))
    choices = 8 * gpu_load[expert]  # one token a GPU: G * 8 * load / G from each origin
    router = Router(cluster)
    both = (
        router.link_bytes(origin, expert, choices * BYTES[0])[0],
        router.link_bytes(expert, origin, choices * BYTES[1])[0],
    )
    return np.stack(both) / cluster.bandwidth_Bps


def make_problem(
    cluster: Cluster,
    load: np.ndarray,
    *,
    layer_slots: int,
    server_slots: int | None = None,
    together: bool = False,
) -> CongestionProblem:
    """Build a problem whose only costs are those of the links."""
    load = np.atleast_2d(load)
    problem = PlacementProblem(
        model="tiny",
        cost=np.ones((len(load), cluster.servers)),
        profile=ExpertProfile(load=load / load.sum(axis=1, keepdims=True), source="test"),
        top_k=8,
        gpus_per_server=cluster.gpus_per_server,
        layer_slots=layer_slots,
        server_slots=server_slots or layer_slots * len(load),
    )
    return CongestionProblem.of(problem, link_cost(cluster, together=together))


def gpu_loads(placement: Placement, load: np.ndarray) -> np.ndarray:
    """Add up the slots of every GPU one by one: [layers, gpus]."""
    out = np.zeros((placement.layers, placement.gpus))
    slots = zip(placement.slot_layer, placement.slot_gpu, placement.slot_expert, strict=True)
    for layer, gpu, expert in slots:
        out[layer, gpu] += load[layer, expert] / placement.replicas[layer, expert]
    return out


def brute_force(
    cluster: Cluster, load: np.ndarray, *, gpu_slots: int, redundant: int, fabric: bool = False
) -> float:
    """Least sum of both phases' busiest-link times over all choices of replicas and places."""
    unit = np.stack([routed_seconds(cluster, row) for row in np.eye(cluster.gpus)])
    if fabric:
        unit = unit[:, :, cluster.link_class > 1]
    best = np.inf
    for extra in itertools.combinations_with_replacement(range(len(load)), redundant):
        slots = sorted([*range(len(load)), *extra])
        share = load[slots] / np.bincount(slots)[slots]
        for places in itertools.product(range(cluster.gpus), repeat=len(slots)):
            pairs = set(zip(slots, places, strict=True))
            if len(pairs) < len(slots) or np.bincount(places).max() > gpu_slots:
                continue
            gpu_load = np.bincount(places, share, cluster.gpus)
            seconds = np.tensordot(gpu_load, unit, axes=1)
            best = min(best, float(seconds.max(axis=1).sum()))
    return best


@pytest.mark.parametrize("name", CLUSTERS)
def test_link_costs_are_the_routers_bytes(name: str) -> None:
    """Every link's seconds equal those of the same traffic routed pair by pair."""
    cluster = CLUSTERS[name]()
    load = np.random.default_rng(1).dirichlet(np.ones(cluster.gpus))
    expected = routed_seconds(cluster, load)
    np.testing.assert_allclose(link_cost(cluster).seconds(load[None])[0], expected, rtol=1e-12)
    both = link_cost(cluster, together=True).seconds(load[None])[0, 0]
    np.testing.assert_allclose(both, expected.sum(axis=0), rtol=1e-12)


def test_the_routers_bytes_tell_loads_apart() -> None:
    """The oracle fails for the loads of two GPUs swapped."""
    cluster = leaf_spine()
    load = np.array([0.4, 0.3, 0.2, 0.1])
    swapped = link_cost(cluster).seconds(load[[1, 0, 2, 3]][None])[0]
    assert not np.allclose(swapped, routed_seconds(cluster, load))


def test_link_costs_refuse_single_paths() -> None:
    """Hashed flows have no linear cost; sizes must be positive."""
    with pytest.raises(PlacementError, match="need routing by 'shares', got 'hash'"):
        LinkCost.of(Router(leaf_spine(), "hash"), top_k=8, dispatch_bytes=1, combine_bytes=1)
    with pytest.raises(PlacementError, match="combine_bytes is 0"):
        LinkCost.of(Router(leaf_spine()), top_k=8, dispatch_bytes=1, combine_bytes=0)


def skewed(layers: int, experts: int, seed: int = 0) -> np.ndarray:
    """Loads with the skew of recorded ones."""
    return np.random.default_rng(seed).dirichlet(np.full(experts, 1.5), size=layers)


TINY_LOADS = st.lists(st.integers(1, 40), min_size=5, max_size=5).map(
    lambda counts: np.array(counts) / sum(counts)
)


@settings(deadline=None, max_examples=12)
@given(load=TINY_LOADS, ratio=st.sampled_from([1.0, 4.0]), fabric=st.booleans())
def test_bound_below_the_optimum(load: np.ndarray, ratio: float, fabric: bool) -> None:
    """bound <= exhaustive optimum <= what the search finds, on four GPUs."""
    cluster = leaf_spine(oversubscription=ratio)
    best = brute_force(cluster, load, gpu_slots=3, redundant=0, fabric=fabric)
    policy = LeastCongestion("fabric" if fabric else "all")
    result = policy.solve(make_problem(cluster, load, layer_slots=6))
    report = result.placement.solve
    assert report is not None
    assert (report.unit, report.bound is None) == ("seconds", False)
    assert report.objective * len(result.layers) == pytest.approx(result.objective_s, rel=1e-12)
    assert report.gap == pytest.approx(result.gap)
    assert result.bound_s <= best * (1 + 1e-9)
    assert result.objective_s >= best * (1 - 1e-9)


@settings(deadline=None, max_examples=6)
@given(load=TINY_LOADS.map(lambda load: load[:4] / load[:4].sum()))
def test_bound_below_the_optimum_with_a_replica(load: np.ndarray) -> None:
    """bound <= exhaustive optimum over replicas and places <= what the search finds."""
    cluster = leaf_spine()
    best = brute_force(cluster, load, gpu_slots=2, redundant=1)
    result = LeastCongestion(redundant=1).solve(make_problem(cluster, load, layer_slots=4))
    assert result.bound_s <= best * (1 + 1e-9)
    assert result.objective_s >= best * (1 - 1e-9)


@pytest.mark.parametrize("ratio", [1.0, 4.0])
@pytest.mark.parametrize("seed", range(5))
def test_search_finds_small_optima(seed: int, ratio: float) -> None:
    """Without replicas the exhaustive optimum is found, up to the 0.1 % at which search stops."""
    cluster, load = leaf_spine(oversubscription=ratio), skewed(1, 5, seed)[0]
    best = brute_force(cluster, load, gpu_slots=3, redundant=0)
    result = LeastCongestion().solve(make_problem(cluster, load, layer_slots=6))
    assert result.objective_s <= max(best, 1.0011 * result.bound_s) * (1 + 1e-9)


def test_exhaustive_search_sees_a_worse_placement() -> None:
    """The oracle is no constant: forcing two experts together costs more."""
    load = np.array([0.4, 0.4, 0.1, 0.1])
    cluster = leaf_spine()
    free = brute_force(cluster, load, gpu_slots=2, redundant=0)
    together = routed_seconds(cluster, np.array([0.8, 0.2, 0.0, 0.0])).max(axis=1).sum()
    assert free < together


@settings(deadline=None, max_examples=40)
@given(load=TINY_LOADS, redundant=st.integers(0, 3))
def test_least_replicas_is_least(load: np.ndarray, redundant: int) -> None:
    """The greedy choice reaches the exhaustive least of the largest load per replica."""
    replicas = least_replicas(load, redundant, 4)
    choices = itertools.combinations_with_replacement(range(5), redundant)
    counts = (1 + np.bincount(list(extra), minlength=5) for extra in choices)
    best = min((load / count).max() for count in counts if count.max() <= 4)
    assert replicas.sum() == 5 + redundant
    assert (load / replicas).max() == pytest.approx(best, rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(load=TINY_LOADS, gpu_slots=st.integers(2, 5))
def test_least_gpu_load_bounds_every_packing(load: np.ndarray, gpu_slots: int) -> None:
    """No packing of five experts on three GPUs has a lighter fullest GPU."""
    best = min(
        np.bincount(places, load).max()
        for places in itertools.product(range(3), repeat=5)
        if np.bincount(places).max() <= gpu_slots
    )
    bound = least_gpu_load(load, np.ones(5, dtype=np.int64), 3, gpu_slots)
    assert load.max() <= bound <= best * (1 + 1e-12)


@pytest.mark.parametrize("redundant", [0, 4])
@pytest.mark.parametrize("links", ["all", "fabric"])
def test_caps_hold_and_replicas_keep_apart(links: str, redundant: int) -> None:
    """Both caps hold per server and GPU, no GPU has an expert twice, the report is the truth."""
    cluster = dragonfly(a=2, p=1, h=1, groups=3, gpus_per_server=2)
    load = skewed(6, 24)
    slots = 24 + redundant
    layer_slots, server_slots = ceil(2 * slots / 6), ceil(6 * slots / 6)
    problem = make_problem(cluster, load, layer_slots=layer_slots, server_slots=server_slots)
    policy = LeastCongestion(links, redundant=redundant)
    result = policy.solve(problem)
    placed = result.placement
    flat = placed.slot_layer * 12 + placed.slot_gpu
    per_gpu = np.bincount(flat, minlength=72).reshape(6, 12)
    per_server = per_gpu.reshape(6, 6, 2).sum(axis=2)
    assert per_gpu.sum(axis=1).tolist() == [slots] * 6
    assert per_gpu.max() <= ceil(layer_slots / 2)
    assert per_gpu.sum(axis=0).max() <= ceil(server_slots / 2)
    assert per_server.max() <= layer_slots
    assert per_server.sum(axis=0).max() <= server_slots
    assert len(np.unique(flat * 24 + placed.slot_expert)) == 6 * slots
    for layer, row in zip(result.layers, gpu_loads(placed, problem.profile.load), strict=True):
        seconds = routed_seconds(cluster, row)
        seconds = seconds * (cluster.link_class > 1) if links == "fabric" else seconds
        assert layer.objective_s == pytest.approx(seconds.max(axis=1).sum(), rel=1e-12)
        assert layer.bound_s <= layer.objective_s * (1 + 1e-9)
        for phase, link in enumerate(layer.busiest_links):
            assert seconds[phase, link] == pytest.approx(seconds[phase].max(), rel=1e-12)
    assert policy(problem) == placed


def test_hot_expert_pins_its_own_links() -> None:
    """A hot expert's network card bounds the layer, is named, and only replicas relieve it."""
    # 60 % on one of four GPUs: its card takes in 0.6 * 1/2 of all choices, the fabric far less.
    load = np.array([0.6, 0.1, 0.1, 0.1, 0.1])
    cluster = leaf_spine()
    problem = make_problem(cluster, load, layer_slots=6)
    (layer,) = LeastCongestion().solve(problem).layers
    placed = LeastCongestion()(problem)
    gpu = int(placed.slot_gpu[placed.slot_expert == 0][0])
    assert layer.pinned_expert == 0
    assert layer.busiest_links == (cluster.nic_down[gpu], cluster.nic_up[gpu])
    # Dispatch: 4 tokens x 8 choices x 0.6 x 1/2 x 7408 B over 50 GB/s; combine likewise.
    assert layer.objective_s == pytest.approx(32 * 0.6 / 2 * sum(BYTES) / 50e9, rel=1e-9)
    assert layer.gap == 0.0
    (relieved,) = LeastCongestion(redundant=1).solve(problem).layers
    assert relieved.objective_s == pytest.approx(layer.objective_s / 2, rel=1e-9)


def test_phases_together() -> None:
    """Together, a link's bytes of both directions add up before the busiest link is taken."""
    cluster, load = leaf_spine(), skewed(2, 8)
    problem = make_problem(cluster, load, layer_slots=8, together=True)
    result = LeastCongestion().solve(problem)
    for layer, row in zip(
        result.layers, gpu_loads(result.placement, problem.profile.load), strict=True
    ):
        seconds = routed_seconds(cluster, row).sum(axis=0)
        assert layer.objective_s == pytest.approx(seconds.max(), rel=1e-12)
        assert len(layer.busiest_links) == 1


@pytest.mark.parametrize(("scope", "places"), [("server", 2), ("gpu", 4)])
def test_beta_caps_loads(scope: str, places: int) -> None:
    """With beta no server (GPU) takes more than beta times the mean, and bounds stay below."""
    load = skewed(4, 16)
    problem = make_problem(leaf_spine(), load, layer_slots=16)
    result = LeastCongestion("fabric", beta=1.05, scope=scope).solve(problem)
    taken = gpu_loads(result.placement, problem.profile.load)
    taken = taken.reshape(4, places, -1).sum(axis=2)
    assert taken.max() <= 1.05 / places * (1 + 1e-9)
    assert result.bound_s <= result.objective_s * (1 + 1e-9)


def test_a_full_layer_gives_the_hottest_company() -> None:
    """C_layer 4 is 2 experts for each of a server's 2 GPUs: with 8 experts none sits alone."""
    # The hottest expert takes 0.4, the others 0.6 / 7: together 4 x 0.4857 = 1.943 x the mean.
    load = np.append(0.4, np.full(7, 0.6 / 7))
    problem = make_problem(leaf_spine(), load, layer_slots=4, server_slots=8)
    with pytest.raises(InfeasibleError, match=r"is impossible.*; beta 1\.943 or"):
        LeastCongestion(beta=1.8, scope="gpu")(problem)
    # With room for all on a GPU it may sit alone.
    loose = make_problem(leaf_spine(), load, layer_slots=8)
    LeastCongestion(beta=1.8, scope="gpu")(loose)


@pytest.mark.parametrize("seed", [0, 2**60])
def test_any_seed_places(seed: int) -> None:
    """Seeds near 64 bits are seeds as others: caps are kept, and the same seed gives the same."""
    problem = make_problem(leaf_spine(), skewed(2, 8), layer_slots=4)
    placement = LeastCongestion(seed=seed)(problem)
    problem.check(placement)
    assert LeastCongestion(seed=seed)(problem) == placement


def test_impossible_beta_names_layer_expert_and_cure() -> None:
    """The message names the hottest expert, the least beta and the replicas that would do."""
    # Mean per GPU 1/4: expert 1 of layer 1 alone is at 0.6 * 4 = 2.4 x the mean; cut in 3 it fits
    # 1.5 x the mean, so 1.5 needs one replica more, and 1.1 two.
    load = np.array([[0.2] * 5, [0.1, 0.6, 0.1, 0.1, 0.1]])
    problem = make_problem(leaf_spine(), load, layer_slots=6)
    with pytest.raises(
        InfeasibleError, match=r"layer 1: beta 1.1 per gpu .* expert 1 .* beta 2.4 or 2 redundant"
    ):
        LeastCongestion(beta=1.1, scope="gpu")(problem)


def test_refusals() -> None:
    """Unknown options, a problem without links, other links and short slots: one line each."""
    with pytest.raises(PlacementError, match="links is 'some'; allowed: all, fabric"):
        LeastCongestion("some")
    with pytest.raises(PlacementError, match="scope is 'rack'; allowed: server, gpu"):
        LeastCongestion(scope="rack")
    with pytest.raises(PlacementError, match="redundant is -1"):
        LeastCongestion(redundant=-1)
    with pytest.raises(PlacementError, match=r"beta is 0\.5"):
        LeastCongestion(beta=0.5)
    problem = make_problem(leaf_spine(), skewed(1, 8), layer_slots=4)
    with pytest.raises(InfeasibleError, match="for 9 slots a layer: 1 slots are missing"):
        LeastCongestion(redundant=1)(problem)
    with pytest.raises(PlacementError, match="links of 6 servers of 2 GPUs"):
        CongestionProblem.of(problem, link_cost(CLUSTERS["dragonfly"]()))
    plain = PlacementProblem(
        model="tiny",
        cost=problem.cost,
        profile=problem.profile,
        top_k=8,
        gpus_per_server=2,
        layer_slots=4,
        server_slots=4,
    )
    with pytest.raises(PlacementError, match="needs a CongestionProblem"):
        LeastCongestion()(plain)


def test_bounds_come_in_order() -> None:
    """A smaller least GPU load after a larger one is refused: the cached bounds would not hold."""
    program = CongestionProgram(link_cost(leaf_spine()), fabric_only=False)
    high = program.bound(0.5).bound_s
    with pytest.raises(PlacementError, match="ascending order"):
        program.bound(0.4)
    fresh = CongestionProgram(link_cost(leaf_spine()), fabric_only=False)
    assert fresh.bound(0.4).bound_s < high


def test_essential_rows_drop_only_what_is_dominated() -> None:
    """Equal and smaller rows of a phase go; the maximum over rows stays, whatever the loads."""
    rng = np.random.default_rng(3)
    cost = rng.integers(0, 4, size=(40, 3)).astype(float)
    phase = rng.integers(0, 2, size=40)
    kept = essential_rows(cost, phase)
    assert len(kept) < 40
    for load in rng.dirichlet(np.ones(3), size=50):
        for at in (0, 1):
            mine = kept[phase[kept] == at]
            everything = (cost[phase == at] @ load).max()
            assert (cost[mine] @ load).max() == pytest.approx(everything, rel=1e-12)


@pytest.mark.parametrize("inside", [False, True])
def test_kernel_keeps_its_books(inside: bool) -> None:
    """The excess that the kernel returns is that of a slow recount, and never above the start."""
    cluster = CLUSTERS["dragonfly"]()
    links = link_cost(cluster)
    load = skewed(1, 24)[0]
    rng = np.random.default_rng(5)
    expert = np.concatenate([np.arange(24), [0, 0, 1]])
    gpu = np.concatenate([np.arange(24) % 12, [5, 7, 8]])
    replicas = np.bincount(expert)
    own = links.own_cost / (links.own_cost[:, 0].max() * 0.08)
    rows = links.fabric_cost / (links.fabric_cost.max() * 0.16)

    def recount() -> float:
        gpu_load = np.bincount(gpu, load[expert] / replicas[expert], 12)
        server = gpu_load.reshape(6, 2).sum(axis=1)
        times = own[:, 0] * gpu_load + own[:, 1] * np.repeat(server, 2) + own[:, 2]
        fabric = rows @ np.bincount(links.class_of_gpu, gpu_load)
        caps = 10 * (np.concatenate([gpu_load / 0.1, server / 0.18]) - 1)
        over = np.concatenate([times.ravel() - 1, fabric - 1, caps])
        return float((np.maximum(over, 0) ** 2).sum())

    on_gpu = np.bincount(gpu, minlength=12)
    on_server = on_gpu.reshape(6, 2).sum(axis=1)
    counts = (on_gpu, on_gpu * 0, on_gpu + 2, on_server, on_server * 0, on_server + 3)
    before = recount()
    left = kernel.search(
        (gpu, expert, replicas),
        load,
        (own, rows, links.class_of_gpu, 2, 0.1, 0.18),
        counts,
        rng.integers(1, 2**60, size=1).astype(np.uint64),
        (1e-5, 1e-9, 4000, float(load.max())),
        inside,
    )
    assert left == pytest.approx(recount(), rel=1e-6)
    assert 0 < left < before
    assert np.array_equal(replicas, np.bincount(expert, minlength=24))
    assert np.array_equal(counts[0], np.bincount(gpu, minlength=12))
    assert len(set(zip(gpu.tolist(), expert.tolist(), strict=True))) == 27
    # The recount tells: one slot elsewhere gives another excess.
    gpu[0] = (gpu[0] + 6) % 12
    assert left != pytest.approx(recount(), rel=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "redundant"), [("ep72", 0), ("ep144", 0), ("facts-fat-tree", 32)])
def test_recorded_loads_come_within_three_percent(
    real_data: Path, name: str, redundant: int
) -> None:
    """Recorded R1 loads, all links: gap to the bound at most 3 %."""
    r1 = model("DeepSeek-R1")
    cluster = preset(name).spec.build()
    slots = r1.experts + redundant
    problem = PlacementProblem.build(
        r1,
        Router(cluster).server_distance(),
        DataParallel(r1.layers, cluster.servers, 8),
        read_logical_count(real_data / "deepseek-r1-loads" / "decode_in1000out1000.json", r1),
        gpus_per_server=8,
        layer_slots=ceil(2 * slots / cluster.servers),
        server_slots=ceil(r1.layers * slots / cluster.servers),
    )
    result = LeastCongestion(redundant=redundant).solve(
        CongestionProblem.of(problem, link_cost(cluster))
    )
    assert result.gap <= 0.03
    assert all(layer.bound_s <= layer.objective_s * (1 + 1e-9) for layer in result.layers)
    assert any(layer.pinned_expert is not None for layer in result.layers)
