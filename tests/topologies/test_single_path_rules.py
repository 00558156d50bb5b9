"""D-mod-k, minimal, Valiant and adaptive routing against closed forms and slow twins."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import Cluster, LinkClass, Router, dragonfly, fat_tree, k_ary_fat_tree, rail
from topologies._adaptive_kernel import settle
from topologies._walk_kernel import detours
from topologies.memory import MAX_RESULTS, PathMemory
from topologies.paths import Paths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ends = tuple[NDArray[np.int64], NDArray[np.int64]]


def all_to_all(cluster: Cluster) -> Ends:
    """Return the ordered pairs of distinct GPUs."""
    src, dst = np.divmod(np.arange(cluster.gpus**2), cluster.gpus)
    return src[src != dst], dst[src != dst]


def loads(cluster: Cluster, rule: str, ends: Ends) -> dict[str, set[int]]:
    """Return the messages on links of each class when every pair exchanges one."""
    load = Router(cluster, rule).link_bytes(*ends, np.ones(len(ends[0]), dtype=np.int64))[0]
    return {
        kind.name: set(load[cluster.link_class == kind].tolist())
        for kind in LinkClass
        if (cluster.link_class == kind).any()
    }


def visited(cluster: Cluster, src: int, dst: int, paths: Paths, flow: int) -> list[int]:
    """Return the switches of a path, by their index."""
    links = paths.links[paths.indptr[flow] : paths.indptr[flow + 1]]
    nodes = cluster.link_dst[links[cluster.link_class[links] != LinkClass.NVLINK]]
    assert cluster.link_src[links[0]] == src
    assert nodes[-1] == dst
    return [int(node) - cluster.first_switch for node in nodes[:-1]]


def test_all_to_all_by_dmodk() -> None:
    """k=8: every host link carries 127 messages, edge-aggregation 124, aggregation-core 112."""
    # 124 destinations lie outside a leaf, 31 for each of its 4 uplinks, from 4 hosts: 124.
    # 112 lie outside a pod, 7 for each of its 16 cores, from 16 hosts: 112.
    cluster = k_ary_fat_tree(8)
    expected = {"HOST": {127}, "LOCAL": {124}, "GLOBAL": {112}}
    assert loads(cluster, "dmodk", all_to_all(cluster)) == expected


def test_all_to_all_by_hash_is_not_uniform() -> None:
    """The same traffic hashed collides: the exact figures above are no matter of course."""
    cluster = k_ary_fat_tree(8)
    assert len(loads(cluster, "hash", all_to_all(cluster))["GLOBAL"]) > 1


@pytest.mark.parametrize("k", [4, 8])
def test_dmodk_by_its_formula(k: int) -> None:
    """Destination d is reached through aggregation d mod k/2 and core (d div k/2) mod k/2."""
    cluster, half = k_ary_fat_tree(k), k // 2
    src, dst = all_to_all(cluster)
    paths = Router(cluster, "dmodk").paths(src, dst)
    leaves, pod = k * half, half * half
    for flow, (first, last) in enumerate(zip(src.tolist(), dst.tolist(), strict=True)):
        plane, core = last % half, last // half % half
        up = leaves + first // pod * half + plane
        down = leaves + last // pod * half + plane
        expected = [first // half, up, leaves + k * half + plane * half + core, down, last // half]
        if first // half == last // half:
            expected = expected[:1]
        elif first // pod == last // pod:
            expected = [first // half, up, last // half]
        assert visited(cluster, first, last, paths, flow) == expected


@pytest.mark.parametrize("k", [4, 6, 8])
def test_shifted_permutations_do_not_collide(k: int) -> None:
    """On a non-blocking tree no two flows of any shift meet on a link under D-mod-k."""
    cluster = k_ary_fat_tree(k)
    router, gpu = Router(cluster, "dmodk"), np.arange(cluster.gpus)
    for shift in range(1, cluster.gpus):
        one = np.ones(cluster.gpus, dtype=np.int64)
        assert router.link_bytes(gpu, (gpu + shift) % cluster.gpus, one).max() == 1
    hashed = Router(cluster, "hash").link_bytes(gpu, (gpu + k) % cluster.gpus, one)
    assert hashed.max() > 1


def test_shifts_fill_the_trunks_of_servers_with_eight_cards() -> None:
    """Between pods, D-mod-k spreads the 32 cards of a leaf evenly over its trunks."""
    cluster = fat_tree(
        pods=2,
        leaves_per_pod=2,
        servers_per_leaf=4,
        aggregations_per_pod=4,
        cores_per_aggregation=2,
    )
    gpu = np.arange(cluster.gpus)
    one = np.ones(cluster.gpus, dtype=np.int64)
    shifted = (gpu + cluster.gpus // 2) % cluster.gpus
    load = Router(cluster, "dmodk").link_bytes(gpu, shifted, one)[0]
    # 32 cards on 4 trunks of a leaf; 64 of a pod on 4 x 2 of its upward trunks.
    for kind, expected in ((LinkClass.LOCAL, 8), (LinkClass.GLOBAL, 8)):
        assert set(load[cluster.link_class == kind].tolist()) == {expected}
    busy = load / cluster.bandwidth_Bps
    assert busy.max() == pytest.approx(1 / 50e9, rel=1e-12)


def test_dmodk_spreads_rails_too() -> None:
    """Cards of one rail are numbered side by side, so a leaf's destinations use all spines."""
    cluster = rail(groups=2, servers_per_group=4, spines=4, rail_rule="sender")
    gpu = np.arange(cluster.gpus)
    shifted = (gpu + cluster.gpus // 2) % cluster.gpus
    load = Router(cluster, "dmodk").link_bytes(gpu, shifted, np.ones(len(gpu), dtype=np.int64))[0]
    assert set(load[cluster.link_class == LinkClass.GLOBAL].tolist()) == {1}


def small_dragonfly() -> Cluster:
    """Return the dragonfly p=h=2, a=4, g=9 of 72 hosts."""
    return dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1)


def group_of(cluster: Cluster, gpu: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the group of every GPU."""
    return cluster.group_of_switch[cluster.leaf_of_gpu[gpu]]


def to_the_next_group(cluster: Cluster, copies: int) -> tuple[Ends, NDArray[np.int64]]:
    """Return all pairs from each group to the next, `copies` times, and their queue pairs."""
    src, dst = all_to_all(cluster)
    chosen = group_of(cluster, dst) == (group_of(cluster, src) + 1) % 9
    src, dst = np.tile(src[chosen], copies), np.tile(dst[chosen], copies)
    return (src, dst), np.repeat(np.arange(copies), len(src) // copies)


def saturation(cluster: Cluster, rule: str, ends: Ends, queue_pair: NDArray[np.int64]) -> float:
    """Return the share of the host rate at which the busiest link is full."""
    one = np.ones(len(ends[0]), dtype=np.int64)
    load = Router(cluster, rule).link_bytes(*ends, one, queue_pair=queue_pair)[0]
    sent = len(ends[0]) / cluster.gpus
    return sent / float(load.max())


def test_all_to_all_by_minimal() -> None:
    """p=h=2, a=4, g=9: 71 messages on a terminal link, 68 on a local, 64 on a global one."""
    cluster = small_dragonfly()
    expected = {"HOST": {71}, "LOCAL": {68}, "GLOBAL": {64}}
    assert loads(cluster, "minimal", all_to_all(cluster)) == expected


def test_traffic_to_the_next_group() -> None:
    """Minimal saturates at 1/(a p) = 0.125, Valiant at most at 1/2, UGAL above minimal."""
    cluster = small_dragonfly()
    found = {
        rule: saturation(cluster, rule, *to_the_next_group(cluster, 100))
        for rule in ("minimal", "valiant", "ugal")
    }
    assert found["minimal"] == 0.125
    # All 8 hosts of 9 groups cross two global links each, of 72: 2 on average, more on some.
    # No group is its own neighbour's detour, which leaves 7 of 8 links: 16/7, or 0.4375.
    assert 0.4 < found["valiant"] <= 0.4375
    assert 0.75 * found["valiant"] < found["ugal"] <= 0.5


def test_uniform_traffic() -> None:
    """Minimal and UGAL leave the hosts' links the busiest; Valiant crosses twice as many."""
    cluster = small_dragonfly()
    src, dst = all_to_all(cluster)
    found = {
        rule: saturation(cluster, rule, (src, dst), np.zeros(len(src), dtype=np.int64))
        for rule in ("minimal", "valiant", "ugal")
    }
    assert found["minimal"] == found["ugal"] == 1
    # 64 of 71 messages of a host cross 2 of the 8 / 8 links that are its own: 71 / 128.
    assert 0.4 < found["valiant"] < 71 / 128


def test_valiant_paths_visit_one_group_in_between() -> None:
    """A flow to another group crosses two global links by a third group; others stay minimal."""
    cluster = small_dragonfly()
    src, dst = all_to_all(cluster)
    paths = Router(cluster, "valiant", seed=4).paths(src, dst)
    minimal = Router(cluster, "minimal").paths(src, dst)
    middle = []
    for flow, (first, last) in enumerate(zip(src.tolist(), dst.tolist(), strict=True)):
        groups = [
            int(cluster.group_of_switch[switch])
            for switch in visited(cluster, first, last, paths, flow)
        ]
        if groups[0] == groups[-1]:
            span = slice(minimal.indptr[flow], minimal.indptr[flow + 1])
            own = slice(paths.indptr[flow], paths.indptr[flow + 1])
            assert paths.links[own].tolist() == minimal.links[span].tolist()
            continue
        crossed = [two for one, two in pairwise(groups) if one != two]
        assert len(crossed) == 2
        assert len({groups[0], *crossed}) == 3
        assert len(groups) <= 6
        middle.append(crossed[0])
    # 4608 flows over 9 groups: mean 512, deviation 21.3; five of them.
    assert np.abs(np.bincount(middle, minlength=9) - 512).max() < 107


def test_detours_are_drawn_evenly_from_the_other_groups() -> None:
    """The draw covers all groups but the flow's own two, each as often."""
    keys = np.random.default_rng(0).integers(0, 2**63, 30_000).astype(np.uint64)
    source, target = np.full(30_000, 5), np.full(30_000, 2)
    drawn = detours(keys, (source, target), 7)
    count = np.bincount(drawn, minlength=7)
    assert count[[2, 5]].tolist() == [0, 0]
    # Binomial(30000, 1/5): mean 6000, deviation 69.3; five of them.
    assert np.abs(count[[0, 1, 3, 4, 6]] - 6000).max() < 347
    assert (detours(keys, (source, source), 7) == -1).all()


def test_expected_valiant_distance() -> None:
    """Distances are the mean over all detours, each a shortest path in and one out."""
    cluster = small_dragonfly()
    group = cluster.group_of_switch
    minimal = Router(cluster).switch_hops(np.arange(36))
    found = Router(cluster, "valiant").server_distance()
    for first, last in ((0, 70), (5, 20), (33, 8), (3, 4)):
        start, stop = (int(cluster.leaf_of_gpu[gpu]) for gpu in (first, last))
        if group[start] == group[stop]:
            assert found[first, last] == minimal[start, stop] + 2
            continue
        lengths = []
        for via in set(range(9)) - {int(group[start]), int(group[stop])}:
            # One global link leads into the group, so the nearest of its switches is the entry.
            members = np.flatnonzero(group == via)
            entry = members[minimal[start, members].argmin()]
            lengths.append(minimal[start, entry] + minimal[entry, stop] + 2)
        assert found[first, last] == pytest.approx(np.mean(lengths), rel=1e-12)


def test_expected_distance_is_the_mean_over_draws() -> None:
    """Where parallel links tie, the mean over many queue pairs comes to the expectation."""
    cluster = dragonfly(a=3, p=1, h=2, groups=4, gpus_per_server=1)
    router = Router(cluster, "valiant", seed=2)
    src, dst = all_to_all(cluster)
    draws = 2_000
    paths = router.paths(
        np.tile(src, draws), np.tile(dst, draws), np.repeat(np.arange(draws), len(src))
    )
    mean = np.diff(paths.indptr).reshape(draws, -1).mean(axis=0)
    # A path's length spreads over 2 hops at most, so its mean by 1 / sqrt(2000); five of them.
    assert np.abs(mean - router.gpu_distance()[src, dst]).max() < 5 / draws**0.5


def test_ugal_distance_is_that_of_an_idle_fabric() -> None:
    """Without load UGAL stays minimal, and a single flow does."""
    cluster = small_dragonfly()
    router, minimal = Router(cluster, "ugal"), Router(cluster, "minimal")
    np.testing.assert_array_equal(router.server_distance(), minimal.server_distance())
    assert router.paths([0], [71]).links.tolist() == minimal.paths([0], [71]).links.tolist()
    assert not router.shortest


def test_ugal_chooses_by_layer_and_size() -> None:
    """A flow meets the flows of its own layer only, and large ones drive others off."""
    cluster = small_dragonfly()
    (src, dst), queue_pair = to_the_next_group(cluster, 2)
    router = Router(cluster, "ugal")
    together = router.hops(src, dst, layer=np.zeros(len(src), dtype=np.int64))
    apart = router.hops(src, dst, layer=np.arange(len(src)))
    assert apart.tolist() == Router(cluster).hops(src, dst).tolist()
    assert together.sum() > apart.sum()
    size = np.ones(len(src), dtype=np.int64)
    size[0] = 10**6
    weighed = router.paths(src, dst, queue_pair, size_bytes=size)
    assert weighed.links.tolist() != router.paths(src, dst, queue_pair).links.tolist()


def slow_settle(
    ways: list[list[list[int]]], size: list[float], order: list[int], rate: list[float]
) -> list[bool]:
    """Let flows choose twice, one after another, recounting all loads each time."""
    taken: dict[int, int] = {}
    for _ in range(2):
        for flow in order:
            load = [0.0] * len(rate)
            for other, way in taken.items():
                for link in ways[way][other]:
                    load[link] += (other != flow) * size[other] * rate[link]
            price = []
            for way in range(2):
                links = [link for link in ways[way][flow] if rate[link]]
                most = max((load[link] for link in links), default=0)
                price.append((len(links) + 2) * most)
            taken[flow] = int(price[1] < price[0])
    return [taken[flow] == 1 for flow in range(len(size))]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_adaptive_choice_equals_the_slow_twin(data: st.DataObject) -> None:
    """The compiled choice equals recounting every load; powers of two keep sums exact."""
    flows = data.draw(st.integers(1, 8))
    path = st.lists(st.integers(0, 5), unique=True, max_size=4)
    ways = [data.draw(st.lists(path, min_size=flows, max_size=flows)) for _ in range(2)]
    size = data.draw(st.lists(st.sampled_from([1.0, 2.0, 8.0]), min_size=flows, max_size=flows))
    rate = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=6, max_size=6))
    order = data.draw(st.permutations(range(flows)))
    arrays = tuple(
        (
            np.cumsum([0, *map(len, way)]),
            np.array([link for links in way for link in links], dtype=np.int32),
        )
        for way in ways
    )
    rows = np.array(size), np.zeros(flows, dtype=np.int64), np.array(order)
    found = settle(arrays, rows, np.array(rate), 2)
    assert found.tolist() == slow_settle(ways, size, order, rate)


def test_memory_forgets_the_oldest() -> None:
    """Paths are found once, found again when forgotten, and told apart by every array."""
    memory, found = PathMemory(), 0

    def find() -> Paths:
        nonlocal found
        found += 1
        return Paths(np.zeros(2, dtype=np.int64), np.zeros(0, dtype=np.int32))

    flows = [(np.array([at]), np.array([0])) for at in range(MAX_RESULTS + 1)]
    for rows in flows[:-1] * 2:
        memory.recall(rows, find)
    assert found == MAX_RESULTS
    memory.recall(flows[-1], find)
    memory.recall(flows[1], find)
    assert found == MAX_RESULTS + 1
    memory.recall(flows[0], find)
    memory.recall(flows[0][::-1], find)
    assert found == MAX_RESULTS + 2
