"""Routes on random small clusters against brute force over all simple paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import Cluster, LinkClass, Router, ServerLinks, from_links, to_networkx

if TYPE_CHECKING:
    from numpy.typing import NDArray

Path = list[tuple[int, int, int]]
"""Links of a path as (source node, target node, link)."""


@st.composite
def small_clusters(draw: st.DrawFn) -> Cluster:
    """Draw a connected cluster of 1 to 6 switches, with parallel cables and mixed classes."""
    switches = draw(st.integers(1, 6))
    cables = [(draw(st.integers(0, node - 1)), node) for node in range(1, switches)]
    if switches > 1:
        pair = st.lists(st.integers(0, switches - 1), min_size=2, max_size=2, unique=True)
        cables += [(a, b) for a, b in draw(st.lists(pair, max_size=5))]
    width = draw(st.integers(1, 2))
    kinds = st.sampled_from([LinkClass.LOCAL, LinkClass.GLOBAL])
    delays = st.integers(0, 5).map(lambda ticks: ticks * 2.0**-20)
    count = len(cables)
    return from_links(
        cables,
        leaf_of_gpu=draw(
            st.lists(st.integers(0, switches - 1), min_size=width, max_size=4 * width).filter(
                lambda leaves: len(leaves) % width == 0
            )
        ),
        servers=ServerLinks(gpus_per_server=width),
        link_class=draw(st.lists(kinds, min_size=count, max_size=count)),
        latency_s=draw(st.lists(delays, min_size=count, max_size=count)),
        group_of_switch=[0] * switches,
        fewest_global_first=draw(st.booleans()),
    )


def best_paths(cluster: Cluster, start: int, stop: int) -> list[Path]:
    """Return all cheapest paths between two switch nodes, by trying every simple path."""
    graph = to_networkx(cluster).subgraph(range(cluster.first_switch, cluster.nodes))
    if start == stop:
        return [[]]
    paths = [list(path) for path in nx.all_simple_edge_paths(graph, start, stop)]

    def cost(path: Path) -> tuple[int, int]:
        far = sum(cluster.link_class[link] == LinkClass.GLOBAL for _, _, link in path)
        return (int(far) if cluster.fewest_global_first else 0, len(path))

    least = min(map(cost, paths))
    return [path for path in paths if cost(path) == least]


def ecmp(cluster: Cluster, start: int, stop: int) -> dict[int, float]:
    """Return the share of every link between two switch nodes, switch by switch."""
    if start == stop:
        return {}
    first_links = sorted({path[0] for path in best_paths(cluster, start, stop)})
    hops = sorted({node for _, node, _ in first_links})
    shares: dict[int, float] = {}
    for hop in hops:
        lanes = [link for _, node, link in first_links if node == hop]
        for link in lanes:
            shares[link] = shares.get(link, 0.0) + 1 / len(hops) / len(lanes)
        for link, share in ecmp(cluster, hop, stop).items():
            shares[link] = shares.get(link, 0.0) + share / len(hops)
    return shares


def gpu_shares(cluster: Cluster, src: int, dst: int) -> NDArray[np.float64]:
    """Return float64 [links]: what one byte between two GPUs puts on every link."""
    out = np.zeros(cluster.links)
    if src == dst:
        return out
    if src // cluster.gpus_per_server == dst // cluster.gpus_per_server:
        out[[cluster.nvlink_up[src], cluster.nvlink_down[dst]]] = 1
        return out
    out[[cluster.nic_up[src], cluster.nic_down[dst]]] = 1
    start, stop = (int(cluster.first_switch + cluster.leaf_of_gpu[gpu]) for gpu in (src, dst))
    for link, share in ecmp(cluster, start, stop).items():
        out[link] = share
    return out


def all_pairs(cluster: Cluster) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sources and destinations of all ordered pairs, a GPU with itself included."""
    src, dst = np.divmod(np.arange(cluster.gpus**2), cluster.gpus)
    return src, dst


def assert_shares(cluster: Cluster, found: NDArray[np.float64]) -> None:
    """Compare [pairs, links] of all pairs with the oracle."""
    for pair, (src, dst) in enumerate(zip(*all_pairs(cluster), strict=True)):
        expected = gpu_shares(cluster, int(src), int(dst))
        np.testing.assert_allclose(found[pair], expected, rtol=0, atol=1e-12)


@given(small_clusters())
@settings(max_examples=60, deadline=None)
def test_shares_equal_the_recursive_split(cluster: Cluster) -> None:
    """Shares of every pair are those of splitting at each switch over the brute-force hops."""
    src, dst = all_pairs(cluster)
    layer = np.arange(len(src))
    found = Router(cluster).link_bytes(src, dst, np.ones(len(src)), layer=layer, layers=len(src))
    assert_shares(cluster, np.asarray(found, dtype=np.float64))


def test_the_share_oracle_refuses_a_split_over_cables() -> None:
    """Splitting over cables instead of next hops is caught."""
    # 0-1 twice, 0-2 once, 1-3, 2-3: half goes each way, a quarter on each of the two cables.
    cluster = from_links([(0, 1), (0, 1), (0, 2), (1, 3), (2, 3)], leaf_of_gpu=[0, 3])
    src, dst = all_pairs(cluster)
    layer = np.arange(4)
    found = Router(cluster).link_bytes(src, dst, np.ones(4), layer=layer, layers=4)
    right = np.asarray(found, dtype=np.float64)
    assert_shares(cluster, right)
    forward = np.array([4, 6, 8])  # after 2 + 2 host links, a forward link every other
    assert right[1, forward].tolist() == [0.25, 0.25, 0.5]
    wrong = right.copy()
    wrong[1, forward] = 1 / 3
    with pytest.raises(AssertionError):
        assert_shares(cluster, wrong)


@given(small_clusters())
@settings(max_examples=60, deadline=None)
def test_link_usage_equals_the_recursive_split(cluster: Cluster) -> None:
    """Every link of a pair stands once, between its first and last, with the recursive share."""
    src, dst = all_pairs(cluster)
    usage = Router(cluster).link_usage(src, dst)
    found = np.zeros((len(src), cluster.links))
    flow = np.repeat(np.arange(len(src)), np.diff(usage.indptr))
    np.add.at(found, (flow, usage.link), usage.fraction)
    assert_shares(cluster, found)
    assert np.count_nonzero(found) == len(usage.link)
    moving = src != dst
    first, last = usage.indptr[:-1][moving], usage.indptr[1:][moving] - 1
    assert (cluster.link_src[usage.link[first]] == src[moving]).all()
    assert (cluster.link_dst[usage.link[last]] == dst[moving]).all()


@given(small_clusters())
@settings(max_examples=60, deadline=None)
def test_hops_and_latency_equal_brute_force(cluster: Cluster) -> None:
    """Hops are those of the cheapest paths, latency the longest among them."""
    router = Router(cluster)
    src, dst = all_pairs(cluster)
    hops, latency = router.hops(src, dst), router.path_latency(src, dst)
    for pair, (first, last) in enumerate(zip(src.tolist(), dst.tolist(), strict=True)):
        if first // cluster.gpus_per_server == last // cluster.gpus_per_server:
            assert hops[pair] == 0
            assert latency[pair] == (0 if first == last else 2 * 1.665e-6)
            continue
        start, stop = (int(cluster.first_switch + cluster.leaf_of_gpu[g]) for g in (first, last))
        best = best_paths(cluster, start, stop)
        assert hops[pair] == len(best[0]) + 2
        slowest = max(sum(cluster.latency_s[link] for _, _, link in path) for path in best)
        assert latency[pair] == pytest.approx(slowest + 2 * 1.4e-6, rel=1e-12)


@given(small_clusters())
@settings(max_examples=60, deadline=None)
def test_switch_hops_equal_dijkstra(cluster: Cluster) -> None:
    """Hops between all switches equal networkx's, which adds up (global links, hops) in one."""
    graph = nx.DiGraph()
    between = np.flatnonzero(cluster.link_class >= LinkClass.LOCAL)
    graph.add_nodes_from(range(cluster.first_switch, cluster.nodes))
    for link in between.tolist():
        far = cluster.fewest_global_first and cluster.link_class[link] == LinkClass.GLOBAL
        ends = int(cluster.link_src[link]), int(cluster.link_dst[link])
        weight = 1000 + 1 if far else 1
        known = graph.get_edge_data(*ends, default={"weight": weight})["weight"]
        graph.add_edge(*ends, weight=min(weight, known))
    expected = dict(nx.all_pairs_dijkstra_path_length(graph))
    found = Router(cluster).switch_hops(np.arange(cluster.switches))
    for first in range(cluster.switches):
        for last in range(cluster.switches):
            nodes = cluster.first_switch + first, cluster.first_switch + last
            assert found[first, last] == expected[nodes[0]][nodes[1]] % 1000


@given(small_clusters(), st.integers(0, 2**64 - 1), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_hashed_paths_are_cheapest_paths(cluster: Cluster, seed: int, queue_pair: int) -> None:
    """Every hashed path joins its ends link by link and is one of the brute-force best."""
    router = Router(cluster, "hash", seed=seed)
    src, dst = all_pairs(cluster)
    paths = router.paths(src, dst, np.full(len(src), queue_pair))
    for pair, (first, last) in enumerate(zip(src.tolist(), dst.tolist(), strict=True)):
        links = paths.links[paths.indptr[pair] : paths.indptr[pair + 1]].tolist()
        nodes = [first] + [int(cluster.link_dst[link]) for link in links]
        assert [int(cluster.link_src[link]) for link in links] == nodes[:-1]
        assert nodes[-1] == last
        assert set(links) <= set(np.flatnonzero(gpu_shares(cluster, first, last)).tolist())
        assert len(links) == (
            router.hops([first], [last])[0]
            or 2 * (first != last)  # inside a server: up to the NVLink switch and down
        )


@given(small_clusters(), st.data())
@settings(max_examples=40, deadline=None)
def test_whole_bytes_are_conserved(cluster: Cluster, data: st.DataObject) -> None:
    """At every switch bytes in equal bytes out, and each GPU gets exactly what it was sent."""
    gpu = st.integers(0, cluster.gpus - 1)
    flows = data.draw(st.lists(st.tuples(gpu, gpu, st.integers(0, 2**40)), max_size=20))
    src, dst, size = (np.array([flow[at] for flow in flows], dtype=np.int64) for at in range(3))
    load = Router(cluster, "hash").link_bytes(src, dst, size)[0]
    assert load.dtype == np.int64
    balance = [0] * cluster.nodes
    for link, carried in enumerate(load.tolist()):
        balance[int(cluster.link_src[link])] -= carried
        balance[int(cluster.link_dst[link])] += carried
    expected = [0] * cluster.nodes
    for first, last, sent in flows:
        expected[first] -= sent
        expected[last] += sent
    assert balance == expected
