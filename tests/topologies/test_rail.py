"""Rail-optimised fabrics: counts, distances by closed form, and which links a message takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topologies import (
    Cluster,
    ClusterSpec,
    LinkClass,
    Rail,
    Router,
    RoutingError,
    ServerLinks,
    TopologyError,
    fat_tree,
    from_links,
    preset,
    rail,
)

SHAPE: dict[str, Any] = {"groups": 3, "servers_per_group": 4, "spines": 5}


def kinds(cluster: Cluster, links: list[int]) -> list[str]:
    """Return the class of every link and the GPU or switch it leads to."""
    out = []
    for link in links:
        node = int(cluster.link_dst[link])
        what = "gpu" if node < cluster.gpus else "nvswitch"
        if node >= cluster.first_switch:
            node, what = node - cluster.first_switch, "switch"
        elif node >= cluster.gpus:
            node -= cluster.gpus
        out.append(f"{what} {node}")
    return out


def test_counts() -> None:
    """A leaf per group and rail, cabled to every spine; cards of a place share a leaf."""
    cluster = rail(**SHAPE)
    assert (cluster.gpus, cluster.servers, cluster.switches) == (96, 12, 3 * 8 + 5)
    assert cluster.cables == 24 * 5
    # GPU 45 is card 5 of server 5, which is in group 1: leaf 8 + 5.
    assert cluster.leaf_of_gpu[45] == 13
    assert np.bincount(cluster.leaf_of_gpu).tolist() == [4] * 24
    assert cluster.rack_of_server.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    trunks = cluster.bandwidth_Bps[cluster.link_class == LinkClass.GLOBAL]
    assert set(trunks.tolist()) == {4 * 50e9 / 5}


def test_eight_planes_of_the_published_fabric() -> None:
    """8-plane two-level fat-tree: 16384 endpoints, 768 switches, 16384 inter-switch links."""
    cluster = preset("planes-16384").spec.build()
    assert (cluster.gpus, cluster.switches, cluster.cables) == (16384, 768, 16384)
    # No port is over: 32 cards and 32 spines a leaf, 64 leaves a spine.
    ports = np.bincount(cluster.link_src[cluster.link_class >= LinkClass.HOST])
    assert set(ports[cluster.first_switch :].tolist()) == {64}


@pytest.mark.parametrize(
    ("rule", "own", "other"), [("direct", 3.75, 4), ("sender", 2, 4), ("receiver", 2, 4)]
)
def test_server_distances(rule: str, own: float, other: float) -> None:
    """Two links within a rail of a group, four otherwise; direct is a mean over the GPUs."""
    # Direct: of 64 pairs of GPUs of two servers 8 are of one rail: (8 * 2 + 56 * 4) / 64 = 3.75
    # in a group; two groups are 4 apart in any case.
    router = Router(rail(**SHAPE), rail_rule=rule)
    group = np.arange(12) // 4
    expected = np.where(group[:, None] == group, own, other)
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(router.server_distance(), expected)
    whole = np.issubdtype(router.server_distance().dtype, np.integer)
    assert whole == (rule != "direct")


def test_gpu_distances_of_direct() -> None:
    """A GPU is two links from its rail in the group, four from all others, none from its server."""
    distance = Router(rail(**SHAPE)).gpu_distance()
    row = distance[45]
    expected = np.full(96, 4)
    expected[32:64:8] = 4
    expected[np.arange(32 + 5, 64, 8)] = 2
    expected[40:48] = 0
    assert row.tolist() == expected.tolist()
    assert (distance == distance.T).all()


def test_links_of_a_message_between_rails() -> None:
    """GPU 1 of server 0 to GPU 2 of server 1: through the spine, or over NVLink at either end."""
    # Both servers are in group 0 with leaves 0..7; GPU 10 is card 2 of server 1.
    cluster = rail(**{**SHAPE, "spines": 1})
    expected = {
        "direct": ["switch 1", "switch 24", "switch 2", "gpu 10"],
        "sender": ["nvswitch 0", "gpu 2", "switch 2", "gpu 10"],
        "receiver": ["switch 1", "gpu 9", "nvswitch 1", "gpu 10"],
    }
    for rule, nodes in expected.items():
        for routing in ("hash", "dmodk", "minimal"):
            router = Router(cluster, routing, rail_rule=rule)
            assert kinds(cluster, router.paths([1], [10]).links.tolist()) == nodes
        usage = Router(cluster, rail_rule=rule).link_usage([1], [10])
        assert kinds(cluster, usage.link.tolist()) == nodes
        assert usage.fraction.tolist() == [1] * len(nodes)
        carried = Router(cluster, rail_rule=rule).link_bytes([1], [10], [6])[0]
        assert set(np.flatnonzero(carried).tolist()) == set(usage.link.tolist())
        assert set(carried[usage.link].tolist()) == {6}


def test_cards() -> None:
    """Forwarded messages name the cards they use; others and those in a server their own."""
    cluster = rail(**SHAPE)
    src, dst = [1, 1, 1], [10, 9, 3]
    for rule, out, into in (
        ("direct", [1, 1, 1], [10, 9, 3]),
        ("sender", [2, 1, 1], [10, 9, 3]),
        ("receiver", [1, 1, 1], [9, 9, 3]),
    ):
        found = Router(cluster, rail_rule=rule).cards(src, dst)
        assert [side.tolist() for side in found] == [out, into]


def test_forwarding_keeps_the_spines_free_within_a_group() -> None:
    """An all-to-all inside a group loads the spines under direct alone."""
    cluster = rail(**SHAPE)
    src, dst = np.divmod(np.arange(32**2), 32)
    spines = cluster.link_class == LinkClass.GLOBAL
    for rule in ("direct", "sender", "receiver"):
        carried = Router(cluster, rail_rule=rule).link_bytes(src, dst, np.ones(len(src)))[0]
        # A GPU has 3 x 7 partners on other rails of other servers; two spine links for each.
        expected = 32 * 21 * 2 if rule == "direct" else 0
        assert carried[spines].sum() == pytest.approx(expected, rel=1e-12)


def test_the_cluster_brings_its_rule() -> None:
    """A router takes the cluster's rail rule unless it is given another."""
    cluster = rail(**SHAPE, rail_rule="receiver")
    assert Router(cluster).rail_rule == "receiver"
    assert Router(cluster, rail_rule="direct").rail_rule == "direct"
    assert ClusterSpec("rail", cluster.parameters).build().rail_rule == "receiver"


def test_rails_without_spines() -> None:
    """One group needs no spines where messages change rails inside servers."""
    cluster = rail(groups=1, servers_per_group=3, spines=0, gpus_per_server=2, rail_rule="sender")
    assert (cluster.switches, cluster.cables) == (2, 0)
    assert set(Router(cluster).server_distance().ravel().tolist()) == {0, 2}


def test_planes_have_no_direct_route() -> None:
    """Asked for a direct route between planes, the answer is one line, not a wrong path."""
    cluster = rail(**SHAPE, planes=True, rail_rule="sender")
    for rule in ("hash", "shares", "dmodk", "minimal"):
        router = Router(cluster, rule, rail_rule="direct")
        for ask in (router.hops, router.link_usage, router.path_latency):
            with pytest.raises(RoutingError, match="no route"):
                ask([1], [10])
        with pytest.raises(RoutingError, match="no route"):
            router.link_bytes([1], [10], [1])
        assert router.hops([1], [9]).tolist() == [2]
    # All pairs of a rail, so many that the paths of all pairs would be kept if they had any.
    src, dst = np.divmod(np.arange(96**2), 96)
    src, dst = src[src % 8 == dst % 8], dst[src % 8 == dst % 8]
    hops = Router(cluster, "hash").paths(src, dst).sums(cluster.hop_weight)
    direct = Router(cluster, "hash", rail_rule="direct").paths(src, dst)
    assert direct.sums(cluster.hop_weight).tolist() == hops.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 0}, "rail: groups is 0"),
        ({"spines": 0}, "rail: spines is 0; expected a whole number of at least 1"),
        ({"gpus_per_server": 1}, "rail: gpus_per_server is 1"),
        ({"oversubscription": 0}, "rail: oversubscription is 0"),
        ({"planes": 1}, "rail: planes is 1; expected true or false"),
        ({"planes": True}, "rail: rail_rule is 'direct', and no cable joins the rails"),
        ({"rail_rule": "pxn"}, "rail: rail_rule is 'pxn'; allowed: direct, receiver, sender"),
        ({"rail_rule": 3}, "rail: rail_rule is 3; allowed"),
        ({"rails": 8}, "rail: unknown parameter 'rails'; allowed: "),
        ({"servers_per_group": 10**6}, "GPUs; expected at most"),
    ],
)
def test_refused_parameters(change: dict[str, Any], message: str) -> None:
    """Numbers out of range and rules that cannot serve are refused in one line."""
    with pytest.raises(TopologyError, match=message) as caught:
        rail(**{**SHAPE, **change})
    assert "\n" not in str(caught.value)


def test_refused_rail_rules() -> None:
    """Forwarding needs rails, and a rule its name."""
    tree = fat_tree(leaves_per_pod=2, servers_per_leaf=2, aggregations_per_pod=2)
    with pytest.raises(RoutingError, match="rail rule 'sender' on 'fat-tree', whose servers"):
        Router(tree, rail_rule="sender")
    with pytest.raises(RoutingError, match="unknown rail rule 'pxn'; allowed: direct, receiver"):
        Router(tree, rail_rule="pxn")
    with pytest.raises(TopologyError, match="rail rule 'receiver' on 'links'"):
        from_links([(0, 1)], leaf_of_gpu=[0, 1], rail_rule="receiver")


def test_planes_must_reach_their_own_leaves() -> None:
    """A plane cut in two is refused, though NVLink joins all servers."""
    with pytest.raises(TopologyError, match="disconnected cluster: leaf 1 cannot reach leaf 3"):
        from_links(
            [(0, 2)],
            leaf_of_gpu=[0, 1, 2, 3],
            servers=ServerLinks(gpus_per_server=2),
            rail_rule="sender",
        )


def test_defaults() -> None:
    """Spines join the rails, and messages go directly, unless said otherwise."""
    shape = Rail(groups=2, servers_per_group=1, spines=1)
    assert (shape.planes, shape.rail_rule, shape.gpus_per_server) == (False, "direct", 8)
