"""Leaf-spine, multi-plane and scale-up fabrics: counts, twins and what a message crosses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topologies import (
    BUILDERS,
    Cluster,
    LinkClass,
    Router,
    TopologyError,
    fat_tree,
    leaf_spine,
    multi_plane,
    rail,
    scale_up,
)
from topologies.validation import frozen_arrays

SMALL: dict[str, dict[str, Any]] = {
    "leaf-spine": {"leaves": 4, "servers_per_leaf": 2, "spines": 2},
    "multi-plane": {"planes": 4, "leaves": 2, "servers_per_leaf": 3, "spines": 2},
    "scale-up": {"domains": 4, "spines": 2, "gpus_per_server": 12, "domains_per_group": 2},
}


def assert_same_fabric(one: Cluster, other: Cluster) -> None:
    """Check that two clusters have the same arrays."""
    arrays, expected = frozen_arrays(one), frozen_arrays(other)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("oversubscription", [1.0, 2.0])
def test_a_leaf_spine_is_a_two_level_tree(oversubscription: float) -> None:
    """With one cable a spine it is the fat-tree of one pod, array by array."""
    one = leaf_spine(leaves=5, servers_per_leaf=3, spines=4, oversubscription=oversubscription)
    other = fat_tree(
        leaves_per_pod=5,
        servers_per_leaf=3,
        aggregations_per_pod=4,
        oversubscription=oversubscription,
    )
    assert_same_fabric(one, other)
    with pytest.raises(AssertionError):
        assert_same_fabric(one, leaf_spine(leaves=5, servers_per_leaf=3, spines=4, host="xdr"))


def test_mean_distances_of_a_leaf_spine() -> None:
    """8 racks of 4 servers: 3.806452 between distinct servers, 3.6875 with self."""
    # Of 31 others 3 at 2 links and 28 at 4: 118/31; with self 118/32.
    cluster = leaf_spine(leaves=8, servers_per_leaf=4, spines=4)
    distance = Router(cluster).server_distance()
    assert distance.sum() / (32 * 31) == pytest.approx(3.806452, abs=5e-7)
    assert distance.mean() == 3.6875


def test_parallel_cables_share_the_trunk() -> None:
    """Twice the cables, half the width each, the same distances."""
    one, two = (leaf_spine(**SMALL["leaf-spine"], cables_per_spine=n) for n in (1, 2))
    assert (one.cables, two.cables) == (8, 16)
    widths = [c.bandwidth_Bps[c.link_class == LinkClass.GLOBAL] for c in (one, two)]
    # 2 servers of 8 cards at 50 GB/s down: 800 GB/s up over 2 or 4 cables.
    assert [set(width.tolist()) for width in widths] == [{400e9}, {200e9}]
    np.testing.assert_array_equal(Router(one).server_distance(), Router(two).server_distance())


def test_published_counts_of_radix_64() -> None:
    """Two levels: 2048 endpoints, 96 switches, 2048 cables; 8 planes of them 16384/768/16384."""
    # DeepSeek-V3 (ISCA'25), table 3.
    one = leaf_spine(leaves=64, servers_per_leaf=32, spines=32, gpus_per_server=1)
    assert (one.gpus, one.switches, one.cables) == (2048, 96, 2048)
    planes = multi_plane(planes=8, leaves=64, servers_per_leaf=32, spines=32)
    assert (planes.gpus, planes.switches, planes.cables) == (16384, 768, 16384)


@pytest.mark.parametrize("rule", ["sender", "receiver"])
def test_a_plane_per_card_is_the_rail_fabric(rule: str) -> None:
    """With as many planes as cards, arrays equal those of rails with planes."""
    shape: dict[str, Any] = {"spines": 3, "rail_rule": rule, "gpus_per_server": 4}
    one = multi_plane(planes=4, leaves=2, servers_per_leaf=5, **shape)
    other = rail(groups=2, servers_per_group=5, planes=True, **shape)
    assert_same_fabric(one, other)
    assert one.rail_rule == other.rail_rule


def test_planes_of_several_cards() -> None:
    """4 planes and 8 cards: cards 1 and 5 share a leaf, and no cable leaves a plane."""
    cluster = multi_plane(**SMALL["multi-plane"])
    assert (cluster.gpus, cluster.switches, cluster.cables) == (48, 8 + 8, 16)
    leaf = cluster.leaf_of_gpu.reshape(2, 3, 8)
    assert (leaf[0] == [0, 1, 2, 3] * 2).all()
    assert (leaf[1] == [4, 5, 6, 7] * 2).all()
    # 3 servers x 2 cards at 50 GB/s over 2 spines.
    between = cluster.link_class == LinkClass.GLOBAL
    assert set(cluster.bandwidth_Bps[between].tolist()) == {150e9}
    ends = np.stack([cluster.link_src, cluster.link_dst])[:, between] - cluster.first_switch
    plane = np.where(ends < 8, ends % 4, (ends - 8) // 2)
    assert (plane[0] == plane[1]).all()


def test_messages_change_the_plane_inside_a_server_only_where_they_must() -> None:
    """Card 1 to card 5 of another server stays on its plane; card 1 to card 2 is forwarded."""
    cluster = multi_plane(**SMALL["multi-plane"])
    src, dst = [1, 1, 1], [8 + 5, 8 + 2, 8 + 6]
    for rule, out, into in (("sender", [1, 2, 6], dst), ("receiver", src, [13, 9, 9])):
        found = Router(cluster, rail_rule=rule).cards(src, dst)
        assert [side.tolist() for side in found] == [out, into]


def test_a_domain_is_one_server() -> None:
    """NVL72: 72 GPUs at zero hops, 18 cards on each of 4 rails of a group."""
    cluster = scale_up(domains=4, spines=2)
    assert (cluster.gpus, cluster.servers, cluster.gpus_per_server) == (288, 4, 72)
    assert (cluster.switches, cluster.cables) == (4 * 4 + 2, 16 * 2)
    assert np.bincount(cluster.leaf_of_gpu).tolist() == [18] * 16
    # Tray 2 holds GPUs 8 to 11, on rails 0 to 3.
    assert cluster.leaf_of_gpu[8:12].tolist() == [0, 1, 2, 3]
    assert set(cluster.bandwidth_Bps[cluster.nvlink_up].tolist()) == {900e9}
    # 18 cards at 50 GB/s over 2 spines.
    trunks = cluster.bandwidth_Bps[cluster.link_class == LinkClass.GLOBAL]
    assert set(trunks.tolist()) == {450e9}
    distance = Router(cluster).gpu_distance()
    assert not distance[:72, :72].any()
    assert set(distance[:72, 72:].ravel().tolist()) == {4}


def test_domains_of_a_group_meet_on_its_leaves() -> None:
    """Two domains a group: the same rail is 2 links away, another rail 4, other groups 4."""
    cluster = scale_up(domains=4, spines=1, gpus_per_server=4, domains_per_group=2)
    row = Router(cluster).gpu_distance()[0]
    assert row.tolist() == [0] * 4 + [2, 4, 4, 4] + [4] * 8
    row = Router(cluster, rail_rule="sender").gpu_distance()[0]
    assert row.tolist() == [0] * 4 + [2] * 4 + [4] * 8


@pytest.mark.parametrize(
    ("builder", "change", "message"),
    [
        ("leaf-spine", {"leaves": 0}, "leaves is 0; expected a whole number of at least 1"),
        ("leaf-spine", {"spines": 0}, "spines is 0"),
        ("leaf-spine", {"cables_per_spine": 1.5}, "cables_per_spine is 1.5"),
        ("leaf-spine", {"oversubscription": float("nan")}, "oversubscription is nan"),
        ("leaf-spine", {"leaves": 10**4, "spines": 10**4}, "links; expected at most"),
        ("multi-plane", {"planes": 1}, "planes is 1; expected a whole number of at least 2"),
        ("multi-plane", {"planes": 3}, "planes is 3; expected a divisor of the 8 cards"),
        ("multi-plane", {"rail_rule": "direct"}, "rail_rule is 'direct', and no cable joins"),
        ("multi-plane", {"spines": 0}, "spines is 0"),
        ("scale-up", {"rails": 5}, "rails is 5; expected a divisor of the 12 GPUs of a domain"),
        ("scale-up", {"domains_per_group": 3}, "domains_per_group is 3; expected a divisor of"),
        ("scale-up", {"spines": 0}, "spines is 0"),
        ("scale-up", {"domains": -1}, "domains is -1"),
        ("scale-up", {"rail_rule": "pxn"}, "rail_rule is 'pxn'; allowed: direct"),
        ("scale-up", {"racks": 2}, "unknown parameter 'racks'; allowed: "),
    ],
)
def test_refused_parameters(builder: str, change: dict[str, Any], message: str) -> None:
    """Numbers out of range and shapes that do not divide are refused in one line."""
    build = {"leaf-spine": leaf_spine, "multi-plane": multi_plane, "scale-up": scale_up}[builder]
    assert builder in BUILDERS
    with pytest.raises(TopologyError, match=f"{builder}: .*{message}") as caught:
        build(**{**SMALL[builder], **change})
    assert "\n" not in str(caught.value)


def test_one_rail_and_no_spine() -> None:
    """A domain whose cards are all on one leaf needs neither rails nor spines."""
    cluster = scale_up(domains=2, domains_per_group=2, rails=1, spines=0, gpus_per_server=8)
    assert (cluster.switches, cluster.cables) == (1, 0)
    assert Router(cluster).server_distance().tolist() == [[0, 2], [2, 0]]
