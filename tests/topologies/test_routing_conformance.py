"""What every routing rule owes on every fabric: one suite over all builders and rules."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pytest

from topologies import Cluster, ClusterSpec, LinkClass, Paths, Router, RoutingError, from_links
from topologies.routing import RULES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TREE = {"servers_per_leaf": 2, "gpus_per_server": 2}
_PLANES = {"planes": 2, "leaves": 2, "servers_per_leaf": 2, "spines": 2, "gpus_per_server": 4}
_DOMAINS = {"domains": 4, "spines": 2, "gpus_per_server": 6, "rails": 2, "domains_per_group": 2}
_TREES = ("fat-tree", "two-level", "sparse-tree", "rail", "planes", "leaf-spine")
_TREES += ("multi-plane", "scale-up")
_RAIL = {"groups": 2, "servers_per_group": 2, "gpus_per_server": 3, "spines": 2}
SPECS: dict[str, ClusterSpec] = {
    "fat-tree": ClusterSpec(
        "fat-tree",
        {
            **_TREE,
            "pods": 3,
            "leaves_per_pod": 2,
            "aggregations_per_pod": 2,
            "cores_per_aggregation": 3,
            "oversubscription": [2.0, 1.5],
        },
    ),
    "two-level-tree": ClusterSpec(
        "fat-tree", {**_TREE, "leaves_per_pod": 4, "aggregations_per_pod": 3}
    ),
    "sparse-tree": ClusterSpec(
        "fat-tree",
        {
            **_TREE,
            "pods": 6,
            "leaves_per_pod": 1,
            "aggregations_per_pod": 2,
            "cores_per_aggregation": 2,
            "reach": 1,
        },
    ),
    "dragonfly": ClusterSpec(
        "dragonfly", {"a": 3, "p": 1, "h": 2, "groups": 7, "gpus_per_server": 2}
    ),
    "dragonfly-pairs": ClusterSpec(
        "dragonfly", {"a": 3, "p": 1, "h": 2, "groups": 4, "gpus_per_server": 1}
    ),
    "dragonfly-sparse": ClusterSpec(
        "dragonfly", {"a": 4, "p": 1, "h": 2, "groups": 8, "gpus_per_server": 1, "reach": 2}
    ),
    "rail-direct": ClusterSpec("rail", _RAIL),
    "rail-sender": ClusterSpec("rail", {**_RAIL, "rail_rule": "sender"}),
    "rail-receiver": ClusterSpec("rail", {**_RAIL, "rail_rule": "receiver"}),
    "planes": ClusterSpec("rail", {**_RAIL, "planes": True, "rail_rule": "sender"}),
    "leaf-spine": ClusterSpec(
        "leaf-spine", {**_TREE, "leaves": 3, "spines": 2, "cables_per_spine": 2}
    ),
    "multi-plane": ClusterSpec("multi-plane", _PLANES),
    "multi-plane-receiver": ClusterSpec("multi-plane", {**_PLANES, "rail_rule": "receiver"}),
    "scale-up": ClusterSpec("scale-up", _DOMAINS),
    "scale-up-sender": ClusterSpec("scale-up", {**_DOMAINS, "rail_rule": "sender"}),
    "torus": ClusterSpec("torus", {"dims": [3, 4], "gpus_per_server": 2}),
    "torus-3d": ClusterSpec("torus", {"dims": [2, 3, 4], "gpus_per_server": 1}),
    "grid": ClusterSpec("torus", {"dims": [3, 3], "wrap": False, "gpus_per_server": 2}),
    "full-mesh": ClusterSpec("full-mesh", {"switches": 5, "gpus_per_server": 2}),
    "slim-fly": ClusterSpec("slim-fly", {"q": 4, "p": 1, "gpus_per_server": 1}),
}
NAMES = [*SPECS, "graph"]


@cache
def built(name: str) -> Cluster:
    """Return the cluster of that name."""
    if name != "graph":
        return SPECS[name].build()
    # Parallel cables, a chord, and switches of one level side by side.
    cables = [(0, 1), (0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (3, 4), (4, 1)]
    return from_links(cables, leaf_of_gpu=[0, 1, 1, 2, 3, 4], name="graph")


def fits(name: str, rule: str) -> bool:
    """Say whether the rule has a meaning on the fabric."""
    if rule == "dmodk":
        return name.startswith(_TREES)
    if rule in ("valiant", "ugal"):
        return name.startswith("dragonfly")
    return True


CASES = [(name, rule) for name in NAMES for rule in RULES if fits(name, rule)]
SINGLE = [(name, rule) for name, rule in CASES if rule != "shares"]
SHORTEST = [(name, rule) for name, rule in CASES if rule not in ("valiant", "ugal")]


def pairs(cluster: Cluster) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all ordered pairs of GPUs, a GPU with itself included."""
    src, dst = np.divmod(np.arange(cluster.gpus**2), cluster.gpus)
    return src, dst


def assert_joined(cluster: Cluster, paths: Paths) -> None:
    """Check that every path leads from its source to its destination, over no link twice."""
    src, dst = pairs(cluster)
    count = np.diff(paths.indptr)
    assert (count[src == dst] == 0).all()
    assert (count[src != dst] > 0).all()
    moving = count > 0
    starts, ends = paths.indptr[:-1][moving], paths.indptr[1:][moving] - 1
    assert (cluster.link_src[paths.links[starts]] == src[moving]).all()
    assert (cluster.link_dst[paths.links[ends]] == dst[moving]).all()
    inner = np.ones(len(paths.links), dtype=np.bool_)
    inner[starts] = False
    later = np.flatnonzero(inner)
    assert (cluster.link_src[paths.links[later]] == cluster.link_dst[paths.links[later - 1]]).all()
    flow = np.repeat(np.arange(len(count)), count)
    assert len(np.unique(flow * cluster.links + paths.links)) == len(flow)


@pytest.mark.parametrize(("name", "rule"), SINGLE)
def test_paths_join_their_ends(name: str, rule: str) -> None:
    """A path starts and ends right, its links join, and none comes twice."""
    cluster = built(name)
    assert_joined(cluster, Router(cluster, rule, seed=3).paths(*pairs(cluster)))


def test_a_broken_path_is_noticed() -> None:
    """The check above fails for a link swapped, repeated or missing."""
    cluster = built("fat-tree")
    paths = Router(cluster, "hash").paths(*pairs(cluster))
    long = int(np.diff(paths.indptr).argmax())
    at = int(paths.indptr[long])
    for wrong in (paths.links[at], paths.links[at + 2], paths.links[at] + 1):
        links = paths.links.copy()
        links[at + 1] = wrong
        with pytest.raises(AssertionError):
            assert_joined(cluster, Paths(paths.indptr.copy(), links))
    shorter = paths.indptr.copy()
    shorter[1:] -= 1
    with pytest.raises(AssertionError):
        assert_joined(cluster, Paths(shorter, paths.links.copy()))


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_what_enters_a_switch_leaves_it(name: str, rule: str) -> None:
    """At every node the fractions in equal the fractions out, for every flow by itself."""
    cluster = built(name)
    src, dst = pairs(cluster)
    usage = Router(cluster, rule).link_usage(src, dst)
    flow = np.repeat(np.arange(len(src)), np.diff(usage.indptr))
    assert len(np.unique(flow * cluster.links + usage.link)) == len(flow)
    assert usage.fraction.min() > 0
    assert usage.fraction.max() <= 1 + 1e-12
    balance = np.zeros((len(src), cluster.nodes))
    np.add.at(balance, (flow, cluster.link_dst[usage.link]), usage.fraction)
    np.add.at(balance, (flow, cluster.link_src[usage.link]), -usage.fraction)
    expected = np.zeros_like(balance)
    moving = np.flatnonzero(src != dst)
    expected[moving, dst[moving]], expected[moving, src[moving]] = 1, -1
    np.testing.assert_allclose(balance, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_bytes_are_the_sum_over_usage(name: str, rule: str) -> None:
    """Bytes of links equal sizes times fractions, and whole bytes stay whole."""
    cluster = built(name)
    src, dst = pairs(cluster)
    size = np.random.default_rng(1).integers(0, 10**6, len(src))
    router = Router(cluster, rule, seed=5)
    usage = router.link_usage(src, dst, size_bytes=size)
    flow = np.repeat(np.arange(len(src)), np.diff(usage.indptr))
    expected = np.bincount(usage.link, usage.fraction * size[flow], cluster.links)
    found = router.link_bytes(src, dst, size)[0]
    assert found.dtype == (np.float64 if rule == "shares" else np.int64)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-6)


def dijkstra(cluster: Cluster) -> dict[Any, dict[Any, int]]:
    """Return networkx's hops between switches, global links first where the cluster says so."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(cluster.first_switch, cluster.nodes))
    for link in np.flatnonzero(cluster.link_class >= LinkClass.LOCAL).tolist():
        far = cluster.fewest_global_first and cluster.link_class[link] == LinkClass.GLOBAL
        ends = int(cluster.link_src[link]), int(cluster.link_dst[link])
        known = graph.get_edge_data(*ends, default={"weight": 10**6})["weight"]
        graph.add_edge(*ends, weight=min(known, 1001 if far else 1))
    return dict(nx.all_pairs_dijkstra_path_length(graph))


def card(cluster: Cluster, src: int, dst: int) -> tuple[int, int]:
    """Return the GPUs whose cards carry a message between two servers, by the rule's words."""
    width, leaf = cluster.gpus_per_server, cluster.leaf_of_gpu
    if cluster.rail_rule == "sender":
        out = src // width * width + dst % width
        return (src if leaf[out] == leaf[src] else out), dst
    if cluster.rail_rule == "receiver":
        into = dst // width * width + src % width
        return src, (dst if leaf[into] == leaf[dst] else into)
    return src, dst


@pytest.mark.parametrize(("name", "rule"), SHORTEST)
def test_hops_are_networkx_distances(name: str, rule: str) -> None:
    """Hops, paths and distances all equal networkx's between the cards' leaves, plus two."""
    cluster = built(name)
    src, dst = pairs(cluster)
    router = Router(cluster, rule)
    known, first, leaf = dijkstra(cluster), cluster.first_switch, cluster.leaf_of_gpu
    expected = []
    for one, other in zip(src.tolist(), dst.tolist(), strict=True):
        out, into = card(cluster, one, other)
        between = known[first + int(leaf[out])].get(first + int(leaf[into]), 0) % 1000
        inside = one // cluster.gpus_per_server == other // cluster.gpus_per_server
        expected.append(0 if inside else between + 2)
    assert router.hops(src, dst).tolist() == expected
    assert router.gpu_distance().ravel().tolist() == expected
    servers = (cluster.servers, cluster.gpus_per_server) * 2
    mean = np.array(expected).reshape(servers).mean(axis=(1, 3))
    np.testing.assert_allclose(router.server_distance(), mean, rtol=1e-12)
    inner = np.where(mean > 0, mean - 2, 0)
    np.testing.assert_allclose(router.server_distance("router"), inner, rtol=1e-12)
    if rule != "shares":
        assert router.paths(src, dst).sums(cluster.hop_weight).tolist() == expected


@pytest.mark.parametrize(("name", "rule"), SINGLE)
def test_latency_is_the_sum_over_the_path(name: str, rule: str) -> None:
    """A path's latency adds up its links', those inside servers included."""
    cluster = built(name)
    src, dst = pairs(cluster)
    router = Router(cluster, rule)
    paths = router.paths(src, dst)
    late = cluster.latency_s[paths.links]
    expected = [late[a:b].sum() for a, b in zip(paths.indptr, paths.indptr[1:], strict=False)]
    np.testing.assert_allclose(router.path_latency(src, dst), expected, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_latency_of_shares_bounds_the_paths(name: str) -> None:
    """Under shares latency is the longest of the paths, so no hashed path takes longer."""
    cluster = built(name)
    src, dst = pairs(cluster)
    bound = Router(cluster).path_latency(src, dst)
    hashed = Router(cluster, "hash").path_latency(src, dst)
    assert (hashed <= bound * (1 + 1e-12)).all()
    assert (hashed > 0).tolist() == (bound > 0).tolist()


@pytest.mark.parametrize(("name", "rule"), SINGLE)
def test_the_same_flows_take_the_same_paths(name: str, rule: str) -> None:
    """Seed and flows decide: another router, and another asking in between, change nothing."""
    cluster = built(name)
    src, dst = pairs(cluster)
    first = Router(cluster, rule, seed=9)
    again = Router(cluster, rule, seed=9)
    again.paths(src[:5], dst[:5])
    one, other = first.paths(src, dst), again.paths(src, dst)
    assert one.links.tolist() == other.links.tolist()
    assert first.paths(src, dst) is one
    if rule == "ugal":
        return
    flow = len(src) // 2
    alone = again.paths(src[flow : flow + 1], dst[flow : flow + 1]).links
    assert alone.tolist() == one.links[one.indptr[flow] : one.indptr[flow + 1]].tolist()


@pytest.mark.parametrize(
    ("name", "rule", "seeded"),
    [
        ("fat-tree", "hash", True),
        ("fat-tree", "minimal", True),
        ("fat-tree", "dmodk", False),
        ("dragonfly", "valiant", True),
        ("dragonfly", "minimal", False),
        ("dragonfly-pairs", "minimal", True),
    ],
)
def test_seeds_matter_where_there_is_a_choice(name: str, rule: str, *, seeded: bool) -> None:
    """Rules that draw differ from seed to seed; those without a choice do not."""
    cluster = built(name)
    one, other = (Router(cluster, rule, seed=seed).paths(*pairs(cluster)) for seed in (1, 2))
    assert (one.links.tolist() != other.links.tolist()) == seeded


@pytest.mark.parametrize("name", NAMES)
def test_minimal_has_one_path_between_two_switches(name: str) -> None:
    """All flows between two leaves share their links under minimal, whatever their queue pair."""
    cluster = built(name)
    src, dst = pairs(cluster)
    paths = Router(cluster, "minimal").paths(src, dst, np.arange(len(src)))
    inside = cluster.link_class[paths.links] >= LinkClass.LOCAL
    known: dict[tuple[int, int], list[int]] = {}
    router = Router(cluster)
    out, into = router.cards(src, dst)
    for flow in np.flatnonzero(router.hops(src, dst) > 0).tolist():
        span = slice(int(paths.indptr[flow]), int(paths.indptr[flow + 1]))
        links = paths.links[span][inside[span]].tolist()
        ends = int(cluster.leaf_of_gpu[out[flow]]), int(cluster.leaf_of_gpu[into[flow]])
        assert known.setdefault(ends, links) == links


@pytest.mark.parametrize(
    ("name", "rule"), [(name, rule) for name in NAMES for rule in RULES if not fits(name, rule)]
)
def test_rules_without_a_meaning_are_refused(name: str, rule: str) -> None:
    """A rule asked of the wrong fabric is answered in one line that says what it needs."""
    with pytest.raises(RoutingError, match=f"rule '{rule}' needs a (fat-tree|dragonfly)") as caught:
        Router(built(name), rule)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("use hash, minimal or shares")
