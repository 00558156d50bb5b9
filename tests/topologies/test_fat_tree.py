"""Fat-trees: published counts and distances, trunks, the sparse ring, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topologies import (
    Cluster,
    FatTree,
    LinkClass,
    Router,
    TopologyError,
    fat_tree,
    k_ary_fat_tree,
)

THREE_LEVELS: dict[str, Any] = {
    "pods": 4,
    "leaves_per_pod": 2,
    "servers_per_leaf": 4,
    "aggregations_per_pod": 2,
    "cores_per_aggregation": 2,
}


def mean_distance(cluster: Cluster) -> float:
    """Return the mean hops between distinct servers."""
    distance = Router(cluster).server_distance()
    return float(distance.sum() / (cluster.servers * (cluster.servers - 1)))


def neighbours(cluster: Cluster, switch: int, link_class: LinkClass) -> list[int]:
    """Return the switches that links of a class lead to, ascending."""
    out = cluster.link_src == cluster.first_switch + switch
    out &= cluster.link_class == link_class
    return sorted((cluster.link_dst[out] - cluster.first_switch).tolist())


def test_two_level_counts_of_radix_64() -> None:
    """64 leaves of 32 hosts under 32 spines: 2048 endpoints, 96 switches, 2048 cables."""
    # DeepSeek-V3 (ISCA'25), table 3; its 8 planes are 8 of these: 16384/768/16384.
    cluster = fat_tree(
        leaves_per_pod=64, servers_per_leaf=32, aggregations_per_pod=32, gpus_per_server=1
    )
    assert (cluster.gpus, cluster.switches, cluster.cables) == (2048, 96, 2048)


def test_three_level_counts_of_radix_64() -> None:
    """A 64-ary fat-tree has 65536 endpoints, 5120 switches and 131072 cables."""
    # DeepSeek-V3 (ISCA'25), table 3.
    cluster = k_ary_fat_tree(64)
    assert (cluster.gpus, cluster.switches, cluster.cables) == (65536, 5120, 131072)
    assert np.bincount(cluster.link_class).tolist() == [0, 131072, 131072, 131072]


def test_distances_of_a_large_tree_are_computed_for_the_leaves_asked() -> None:
    """On 65,536 hosts a leaf, a pod and a far pod are 2, 4 and 6 links away."""
    router = Router(k_ary_fat_tree(64))
    assert router.hops([0] * 4, [0, 31, 1023, 1024]).tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(("k", "mean"), [(4, 5.466667), (8, 5.716535)])
def test_mean_host_distance_of_k_ary_trees(k: int, mean: float) -> None:
    """Mean distance of distinct hosts, in links."""
    # k = 4: 16 hosts; of 15 others 1 at 2, 2 at 4, 12 at 6: (2 + 8 + 72) / 15 = 82/15.
    assert mean_distance(k_ary_fat_tree(k)) == pytest.approx(mean, abs=5e-7)


def test_mean_host_distance_of_a_leaf_spine() -> None:
    """8 racks of 4 servers: 3.806452 between distinct servers, 3.6875 with self."""
    # Of 31 others 3 at 2 and 28 at 4: 118/31; with self 118/32.
    cluster = fat_tree(
        leaves_per_pod=8, servers_per_leaf=4, aggregations_per_pod=4, gpus_per_server=1
    )
    assert mean_distance(cluster) == pytest.approx(118 / 31, abs=1e-12)
    assert Router(cluster).server_distance().mean() == 118 / 32


@pytest.mark.parametrize("k", [2, 4, 8])
def test_a_k_ary_tree_has_trunks_of_the_host_rate(k: int) -> None:
    """Without oversubscription every cable of a k-ary tree runs at the host's bandwidth."""
    cluster = k_ary_fat_tree(k, host_bandwidth_Bps=7e9)
    assert set(cluster.bandwidth_Bps.tolist()) == {7e9}


@pytest.mark.parametrize("ratios", [1.0, 2.0, [4.0, 1.5], (1.0, 3)])
@pytest.mark.parametrize("reach", [None, 1])
def test_bandwidth_up_is_bandwidth_down_over_the_oversubscription(
    ratios: Any, reach: int | None
) -> None:
    """At every leaf and aggregation switch: up * oversubscription = down."""
    cluster = fat_tree(**THREE_LEVELS, oversubscription=ratios, reach=reach)
    per_tier = [ratios, ratios] if isinstance(ratios, float) else list(ratios)
    src = cluster.link_src - cluster.first_switch
    # Leaves 0..7, aggregation switches 8..15; a larger node number is farther up, GPUs are below.
    upward = cluster.link_dst > cluster.link_src
    for switch in range(16):
        own = src == switch
        up = cluster.bandwidth_Bps[own & upward].sum()
        down = cluster.bandwidth_Bps[own & ~upward].sum()
        assert up * per_tier[switch // 8] == pytest.approx(down, rel=1e-12)


def test_two_level_oversubscription() -> None:
    """A 2:1 leaf of 4 servers x 8 cards at 50 GB/s sends 800 GB/s up over 4 trunks."""
    cluster = fat_tree(
        leaves_per_pod=3, servers_per_leaf=4, aggregations_per_pod=4, oversubscription=2.0
    )
    trunks = cluster.bandwidth_Bps[cluster.link_class == LinkClass.GLOBAL]
    assert set(trunks.tolist()) == {200e9}


def test_sparse_pods_share_cores_with_ring_neighbours_only() -> None:
    """Set q of the cores is cabled to pods q to q + reach, and to no other."""
    cluster = fat_tree(**THREE_LEVELS, reach=1)
    # 8 leaves, 8 aggregation switches (two a pod), then per set one core for each of 2 planes.
    assert cluster.switches == 8 + 8 + 4 * 2
    for core in range(16, 24):
        home, plane = divmod(core - 16, 2)
        pods = [home, (home + 1) % 4]
        expected = sorted(8 + 2 * pod + plane for pod in pods)
        assert neighbours(cluster, core, LinkClass.GLOBAL) == expected


def test_the_sparse_variant_has_as_many_cables() -> None:
    """Sharing the upward cables among sets changes where they lead, not their number."""
    full, sparse = fat_tree(**THREE_LEVELS), fat_tree(**THREE_LEVELS, reach=1)
    assert full.cables == sparse.cables == 32


def test_sparse_distances() -> None:
    """Pods two apart on a ring of four are 8 links away instead of 6."""
    # leaf-agg-core-agg-core-agg-leaf: 6 links between leaves, 8 with the host links.
    distance = Router(fat_tree(**THREE_LEVELS, reach=1)).server_distance()
    assert distance[0, [0, 1, 4, 8, 16, 24]].tolist() == [0, 2, 4, 6, 8, 6]


def test_sparse_two_level_distances() -> None:
    """On a ring of six leaves with reach 1 the leaf opposite is three leaves away."""
    cluster = fat_tree(
        leaves_per_pod=6, servers_per_leaf=1, aggregations_per_pod=2, gpus_per_server=1, reach=1
    )
    # A leaf apart costs two links (up, down), plus two host links.
    assert Router(cluster).server_distance()[0].tolist() == [0, 4, 6, 8, 6, 4]


def test_groups_and_racks() -> None:
    """Switches carry their pod, cores none; a leaf is a rack."""
    cluster = fat_tree(**THREE_LEVELS)
    pods = [pod for pod in range(4) for _ in range(2)]
    assert cluster.group_of_switch.tolist() == [*pods, *pods, -1, -1, -1, -1]
    assert cluster.rack_of_server.tolist() == [rack for rack in range(8) for _ in range(4)]


def test_default_rates() -> None:
    """Small messages take 2.8 us under a leaf, 3.7 us across leaves, 3.33 us over NVLink."""
    # DeepSeek-V3 (ISCA'25): InfiniBand 2.8 us same leaf, 3.7 us cross leaf, NVLink 3.33 us.
    cluster = fat_tree(leaves_per_pod=2, servers_per_leaf=2, aggregations_per_pod=2)
    latency = Router(cluster).path_latency([0, 0, 0], [8, 16, 1])
    assert latency.tolist() == pytest.approx([2.8e-6, 3.7e-6, 3.33e-6], rel=1e-12)
    assert set(cluster.bandwidth_Bps[cluster.nic_up].tolist()) == {50e9}
    assert set(cluster.bandwidth_Bps[cluster.nvlink_up].tolist()) == {450e9}


def test_a_cluster_can_be_rebuilt_from_its_parameters() -> None:
    """The parameters a cluster carries are complete."""
    cluster = fat_tree(**THREE_LEVELS, reach=1, oversubscription=[2.0, 1.0])
    again = fat_tree(**cluster.parameters)
    np.testing.assert_array_equal(cluster.link_dst, again.link_dst)
    np.testing.assert_array_equal(cluster.bandwidth_Bps, again.bandwidth_Bps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pods": 0}, "pods is 0; expected a whole number of at least 1"),
        ({"pods": 2.0}, "pods is 2.0; expected a whole number"),
        ({"pods": True}, "pods is True; expected a whole number"),
        ({"pods": 1}, "pods is 1 and cores_per_aggregation 2"),
        ({"cores_per_aggregation": 0}, "pods is 4 and cores_per_aggregation 0"),
        ({"oversubscription": 0}, "oversubscription is 0; expected a number from 0.001 to 1000"),
        ({"oversubscription": "a lot"}, "oversubscription names 5 tiers"),
        ({"oversubscription": [1.0]}, "names 1 tiers; expected one number or 2"),
        ({"oversubscription": [1.0, float("nan")]}, "oversubscription is nan"),
        ({"reach": 0}, "reach is 0; expected a whole number of at least 1"),
        ({"reach": 2}, "reach is 2, which spans all 4 pods; expected 1 to 1"),
        ({"pods": 3, "reach": 1}, "spans all 3 pods; expected none: the ring is too short"),
        ({"cores_per_aggregation": 3, "reach": 1}, "expected a multiple of reach \\+ 1 = 2"),
        ({"host_bandwidth_Bps": -1.0}, "host_bandwidth_Bps is -1.0"),
        ({"host_latency_s": float("inf")}, "host_latency_s is inf"),
        ({"cable_latency_s": 10**400}, "cable_latency_s is a number of more than 38 digits"),
        ({"cable_latency_s": 1.5}, "cable_latency_s is 1.5; expected a number from 0 to 1"),
        ({"host_bandwidth_Bps": 1e-9}, "host_bandwidth_Bps is 1e-09; expected a number from 1 to"),
        ({"oversubscription": 1e9}, "expected a number from 0.001 to 1000"),
        ({"pods": 10**5000}, "pods is a number of more than 38 digits; expected at most 4194304"),
        # 4 pods x 2 leaves x 4 servers x 10^6 GPUs.
        ({"gpus_per_server": 10**6}, "the cluster has 32000000 GPUs; expected at most 4194304"),
        # 256 GPUs have 512 host links and as many NVLinks; cables: 4 x 10^4 x (10^4 + 2).
        (
            {"aggregations_per_pod": 10**4, "cores_per_aggregation": 10**4},
            "the cluster has 800161024 links; expected at most 67108864",
        ),
        ({"gpus_per_server": 0}, "gpus_per_server is 0"),
        ({"spines": 3}, "unknown parameter 'spines'; allowed: gpus_per_server, "),
    ],
)
def test_refused_parameters(change: dict[str, Any], message: str) -> None:
    """Each wrong parameter is refused by name, with what was expected."""
    with pytest.raises(TopologyError, match=message):
        fat_tree(**{**THREE_LEVELS, **change})


def test_missing_parameter() -> None:
    """A parameter without default has to be given."""
    with pytest.raises(TopologyError, match="fat-tree: missing parameter 'servers_per_leaf'"):
        fat_tree(leaves_per_pod=2, aggregations_per_pod=2)


@pytest.mark.parametrize("k", [0, 3, "4"])
def test_k_must_be_even(k: Any) -> None:
    """An odd switch cannot be split in halves."""
    with pytest.raises(TopologyError, match="k is "):
        k_ary_fat_tree(k)


def test_levels() -> None:
    """One pod makes two levels, several make three."""
    two = FatTree(leaves_per_pod=2, servers_per_leaf=1, aggregations_per_pod=1)
    assert (two.levels, FatTree(**THREE_LEVELS).levels) == (2, 3)
