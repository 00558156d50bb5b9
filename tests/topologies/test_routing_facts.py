"""Published figures of routing: ECMP utilisation, loads of an all-to-all, spread of the hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies import (
    Cluster,
    LinkClass,
    Router,
    RoutingError,
    ServerLinks,
    dragonfly,
    fat_tree,
    from_links,
    k_ary_fat_tree,
)
from topologies._kernels import _mix
from topologies.shares import distinct

if TYPE_CHECKING:
    from numpy.typing import NDArray


def all_to_all(cluster: Cluster) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ordered pairs of distinct GPUs."""
    src, dst = np.divmod(np.arange(cluster.gpus**2), cluster.gpus)
    return src[src != dst], dst[src != dst]


def loads_by_class(cluster: Cluster) -> dict[str, set[float]]:
    """Return the messages on links of each class when every pair exchanges one."""
    src, dst = all_to_all(cluster)
    load = Router(cluster).link_bytes(src, dst, np.ones(len(src)))[0]
    return {
        kind.name: set(np.round(load[cluster.link_class == kind], 9).tolist())
        for kind in LinkClass
        if (cluster.link_class == kind).any()
    }


def test_all_to_all_on_a_fat_tree() -> None:
    """k=8: 127 messages on a host link, 124 edge-aggregation, 112 aggregation-core."""
    # A host sends to 127; 3 share its leaf, so 4 hosts send 4 * 124 over 4 trunks; 12 more share
    # the pod: 16 * 112 over the 16 cores.
    expected = {"HOST": {127.0}, "LOCAL": {124.0}, "GLOBAL": {112.0}}
    assert loads_by_class(k_ary_fat_tree(8)) == expected


def test_all_to_all_on_a_dragonfly() -> None:
    """p=h=2, a=4, g=9: 71 messages on a terminal link, 68 on a local, 64 on a global one."""
    # 8 hosts send to 8 of the next group over one link: 64.
    expected = {"HOST": {71.0}, "LOCAL": {68.0}, "GLOBAL": {64.0}}
    assert loads_by_class(dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1)) == expected


def test_utilisation_of_a_ring_with_a_chord() -> None:
    """Ring of 5 plus link (1,3), capacity 100: the published utilisations of four demands."""
    cables = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)]
    cluster = from_links(cables, leaf_of_gpu=range(5), bandwidth_Bps=100.0)
    demands = [(0, 1, 20.0), (1, 0, 30.0), (0, 2, 40.0), (1, 4, 70.0)]
    src, dst, rate = (np.array(column) for column in zip(*demands, strict=True))
    used = Router(cluster).link_bytes(src, dst, rate)[0] / 100
    base = cluster.first_switch
    found = {
        (int(a) - base, int(b) - base): float(share)
        for a, b, share in zip(cluster.link_src, cluster.link_dst, used, strict=True)
        if a >= base and b >= base and share
    }
    # 1 -> 4 splits over 0 and 3: 35 each, by (1,0), (0,4) and by (1,3), (3,4).
    expected = {(0, 1): 0.6, (1, 0): 0.65, (1, 2): 0.4, (0, 4): 0.35, (1, 3): 0.35, (3, 4): 0.35}
    assert found == pytest.approx(expected, rel=1e-12)


def test_integers_under_shares_scale_by_layer() -> None:
    """Layers are kept apart, and a layer's bytes are the sum over its flows."""
    cluster = k_ary_fat_tree(4)
    src, dst = all_to_all(cluster)
    layer = np.arange(len(src)) % 3
    size = np.arange(len(src)) + 1
    router = Router(cluster)
    found = router.link_bytes(src, dst, size, layer=layer, layers=4)
    for at in range(4):
        chosen = layer == at
        alone = router.link_bytes(src[chosen], dst[chosen], size[chosen])[0]
        np.testing.assert_allclose(found[at], alone, rtol=1e-12, atol=1e-9)
    assert found.shape == (4, cluster.links)
    assert not found[3].any()


@pytest.mark.parametrize("rule", ["shares", "hash"])
def test_bytes_times_hops(rule: str) -> None:
    """Bytes on network links are bytes times hops, whatever the rule."""
    cluster = fat_tree(leaves_per_pod=3, servers_per_leaf=2, aggregations_per_pod=3)
    router = Router(cluster, rule)
    src, dst = all_to_all(cluster)
    size = np.arange(len(src)) + 1
    load = router.link_bytes(src, dst, size)[0]
    byte_hops = int((size * router.hops(src, dst)).sum())
    assert float((load * cluster.hop_weight).sum()) == pytest.approx(byte_hops, rel=1e-12)


def test_bytes_times_hops_on_a_large_tree() -> None:
    """100,000 random flows between 512 leaves put bytes times hops on the links."""
    cluster = fat_tree(
        pods=32,
        leaves_per_pod=16,
        servers_per_leaf=4,
        aggregations_per_pod=16,
        cores_per_aggregation=16,
    )
    router = Router(cluster)
    src, dst = np.random.default_rng(0).integers(0, cluster.gpus, (2, 100_000))
    load = router.link_bytes(src, dst, np.ones(100_000))[0]
    crossed = int(router.hops(src, dst).sum())
    assert float(load @ cluster.hop_weight) == pytest.approx(crossed, rel=1e-12)


@given(st.lists(st.integers(0, 50)))
def test_marking_and_sorting_agree(keys: list[int]) -> None:
    """Distinct keys and places do not depend on the range that decides how they are found."""
    array = np.array(keys, dtype=np.int64)
    marked, sorted_ = distinct(array, 51), distinct(array, 2**40)
    for mine, other in zip(marked, sorted_, strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(marked[0][marked[1]], array)


def test_hash_spreads_queue_pairs_about_evenly() -> None:
    """16,000 flows between two pods of a k=8 tree use all 16 paths about equally."""
    cluster = k_ary_fat_tree(8)
    flows = 16_000
    load = Router(cluster, "hash", seed=1).link_bytes(
        np.zeros(flows, dtype=np.int64),
        np.full(flows, 127),
        np.ones(flows, dtype=np.int64),
        queue_pair=np.arange(flows),
    )[0]
    up = (cluster.link_class == LinkClass.GLOBAL) & (cluster.link_dst > cluster.link_src)
    used = load[up][load[up] > 0]
    # Binomial(16000, 1/16): mean 1000, standard deviation 30.6; five of them.
    assert len(used) == 16
    assert np.abs(used - 1000).max() < 153


def test_parallel_cables_share_a_hop_evenly() -> None:
    """A next hop over two cables draws as many flows as one over a single cable."""
    cluster = from_links([(0, 1), (0, 1), (0, 2), (1, 3), (2, 3)], leaf_of_gpu=[0, 3])
    flows = 8_000
    load = Router(cluster, "hash").link_bytes(
        np.zeros(flows, dtype=np.int64),
        np.ones(flows, dtype=np.int64),
        np.ones(flows, dtype=np.int64),
        queue_pair=np.arange(flows),
    )[0]
    # Links 4, 6 and 8 leave switch 0. Binomial(8000, 1/4 and 1/2): deviations 38.7 and 44.7.
    assert np.abs(load[[4, 6, 8]] - [2000, 2000, 4000]).max() < 224


def test_a_flow_keeps_its_path() -> None:
    """A path depends on seed, ends and queue pair alone, not on the other flows asked for."""
    cluster = k_ary_fat_tree(8)
    src, dst = all_to_all(cluster)
    paths = Router(cluster, "hash", seed=7).paths(src, dst)
    again = Router(cluster, "hash", seed=7)
    for flow in (0, 500, 16_000):
        alone = again.paths(src[flow : flow + 1], dst[flow : flow + 1], [0]).links
        np.testing.assert_array_equal(
            alone, paths.links[paths.indptr[flow] : paths.indptr[flow + 1]]
        )
    other = Router(cluster, "hash", seed=8).paths(src, dst)
    assert (other.links != paths.links).any()


def test_the_mixer_is_splitmix64() -> None:
    """The first outputs from state 1234567 are the published ones."""
    step = 0x9E3779B97F4A7C15
    states = [(1234567 + at * step) % 2**64 for at in range(3)]
    found = [int(_mix(np.uint64(state))) for state in states]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_inside_a_server() -> None:
    """Two GPUs of a server use its NVLink alone, a GPU to itself nothing."""
    cluster = from_links([], leaf_of_gpu=[0] * 4, servers=ServerLinks(gpus_per_server=2))
    router = Router(cluster, "hash")
    paths = router.paths([0, 1, 1], [1, 1, 2])
    assert paths.indptr.tolist() == [0, 2, 2, 4]
    expected = [cluster.nvlink_up[0], cluster.nvlink_down[1], cluster.nic_up[1]]
    assert paths.links.tolist() == [*map(int, expected), int(cluster.nic_down[2])]
    assert router.hops([0, 1, 1], [1, 1, 2]).tolist() == [0, 0, 2]
    assert router.server_distance("links").tolist() == [[0, 2], [2, 0]]
    assert router.server_distance("router").tolist() == [[0, 0], [0, 0]]


def test_servers_on_several_leaves() -> None:
    """Cards of one server on two leaves: pairs have hops, servers their mean."""
    cluster = from_links([(0, 1)], leaf_of_gpu=[0, 1, 0, 1], servers=ServerLinks(gpus_per_server=2))
    router = Router(cluster)
    assert router.hops([0, 0, 0], [1, 2, 3]).tolist() == [0, 2, 3]
    # Cards of one place are 2 links apart, of different places 3: two pairs of GPUs each.
    assert router.server_distance().tolist() == [[0, 2.5], [2.5, 0]]
    assert router.gpu_distance()[0].tolist() == [0, 0, 2, 3]


@pytest.mark.parametrize("rule", ["shares", "hash"])
def test_nothing_to_route(rule: str) -> None:
    """No flows give no bytes, hops, latencies or links."""
    router = Router(k_ary_fat_tree(4), rule)
    assert not router.link_bytes([], [], [], layers=2).any()
    assert len(router.hops([], [])) == len(router.path_latency([], [])) == 0


def test_shares_have_no_single_path() -> None:
    """A single path cannot be asked of the splitting rule."""
    with pytest.raises(RoutingError, match="a single path was asked of rule 'shares'; use 'hash'"):
        Router(k_ary_fat_tree(4)).paths([0], [1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"src": [16]}, "src holds 16; expected 0 to 15"),
        ({"dst": [-1]}, "dst holds -1; expected 0 to 15"),
        ({"src": [0.0]}, "src is float64"),
        ({"src": [0, 1]}, "src has 2 entries and dst 1"),
        ({"size_bytes": [1.5]}, "size_bytes holds float64; single-path rules take whole bytes"),
        ({"size_bytes": [-1]}, "negative or infinite"),
        ({"size_bytes": [np.nan]}, "negative or infinite"),
        ({"size_bytes": 3}, "size_bytes has the shape"),
        ({"layer": [1]}, "layer holds 1; expected 0 to 0"),
        ({"layer": [0, 0]}, "layer has 2 entries; expected 1"),
        ({"queue_pair": [0, 0]}, "queue_pair has 2 entries; expected 1"),
    ],
)
def test_refused_flows(arguments: dict[str, Any], message: str) -> None:
    """Flows between GPUs that do not exist, or of impossible size, are refused."""
    router = Router(k_ary_fat_tree(4), "hash")
    flows: dict[str, Any] = {"src": [0], "dst": [1], "size_bytes": [1], **arguments}
    with pytest.raises(RoutingError, match=message):
        router.link_bytes(**flows)


def test_refused_rules() -> None:
    """Unknown rules, seeds, conventions and switches are refused with what is allowed."""
    cluster = k_ary_fat_tree(4)
    with pytest.raises(
        RoutingError, match="unknown routing rule 'best'; allowed: dmodk, hash, minimal"
    ):
        Router(cluster, "best")
    with pytest.raises(RoutingError, match="seed is -1"):
        Router(cluster, "hash", seed=-1)
    with pytest.raises(RoutingError, match="convention 'miles'; allowed: links, router"):
        Router(cluster).server_distance("miles")  # type: ignore[arg-type]
    with pytest.raises(RoutingError, match="switches holds 20; expected 0 to 19"):
        Router(cluster).switch_hops([20])


def test_a_switch_without_cables_has_no_route() -> None:
    """A spare switch may stand in the cluster, but no distance to it is invented."""
    cluster = from_links([(0, 1)], leaf_of_gpu=[0, 1], group_of_switch=[0, 0, 0])
    router = Router(cluster)
    assert router.hops([0], [1]).tolist() == [3]
    assert router.server_distance().tolist() == [[0, 3], [3, 0]]
    with pytest.raises(RoutingError, match="no route"):
        router.switch_hops([2])
