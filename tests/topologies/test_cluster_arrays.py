"""What a cluster refuses, how it is numbered, and its graph export."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import topologies
from topologies import (
    Cluster,
    LinkClass,
    Router,
    ServerLinks,
    TopologyError,
    fat_tree,
    from_links,
    to_networkx,
)
from topologies.validation import components


@pytest.fixture
def pair() -> Cluster:
    """Return two servers of two GPUs on two cabled leaves."""
    return from_links([(0, 1)], leaf_of_gpu=[0, 0, 1, 1], servers=ServerLinks(gpus_per_server=2))


def test_public_names() -> None:
    """The package exports exactly these names."""
    assert topologies.__all__ == [
        "BUILDERS",
        "PARTS",
        "PRESETS",
        "Cluster",
        "ClusterSpec",
        "Dragonfly",
        "Edges",
        "FatTree",
        "FullMesh",
        "GraphFile",
        "LeafSpine",
        "LinkClass",
        "LinkUsage",
        "Links",
        "Measured",
        "MeasuredCost",
        "MultiPlane",
        "Part",
        "Paths",
        "Preset",
        "Rail",
        "Router",
        "RoutingError",
        "ScaleUp",
        "ServerLinks",
        "SlimFly",
        "TopologyError",
        "Torus",
        "dragonfly",
        "fat_tree",
        "from_links",
        "from_networkx",
        "full_mesh",
        "k_ary_fat_tree",
        "leaf_spine",
        "multi_plane",
        "preset",
        "rail",
        "read_cluster",
        "scale_up",
        "slim_fly",
        "slim_fly_counts",
        "to_networkx",
        "torus",
    ]
    assert all(hasattr(topologies, name) for name in topologies.__all__)


def test_numbering(pair: Cluster) -> None:
    """GPUs, NVLink switches, switches; links of cards up, down, NVLink up, down, then cables."""
    assert (pair.gpus, pair.servers, pair.switches, pair.first_switch, pair.nodes) == (
        4,
        2,
        2,
        6,
        8,
    )
    ends = list(zip(pair.link_src.tolist(), pair.link_dst.tolist(), strict=True))
    assert ends[0:4] == [(0, 6), (1, 6), (2, 7), (3, 7)]
    assert ends[4:8] == [(6, 0), (6, 1), (7, 2), (7, 3)]
    assert ends[8:12] == [(0, 4), (1, 4), (2, 5), (3, 5)]
    assert ends[12:16] == [(4, 0), (4, 1), (5, 2), (5, 3)]
    assert ends[16:] == [(6, 7), (7, 6)]
    assert pair.hop_weight.tolist() == [1] * 8 + [0] * 8 + [1] * 2
    assert pair.server_of_gpu.tolist() == [0, 0, 1, 1]
    assert pair.rack_of_server.tolist() == [0, 1]


def test_representation(pair: Cluster) -> None:
    """A cluster prints as one readable line."""
    assert repr(pair) == (
        "<Cluster 'links' (links): 4 GPUs in 2 servers of 2, 2 switches, 1 cables between switches>"
    )


def test_arrays_are_read_only_copies(pair: Cluster) -> None:
    """Nothing can be changed in a cluster, neither directly nor through what it was made of."""
    mine = np.array([9.0])
    cluster = from_links([(0, 1)], leaf_of_gpu=[0, 1], bandwidth_Bps=mine)
    mine[0] = 1.0
    assert cluster.bandwidth_Bps[-1] == 9.0
    for item in fields(pair):
        value = getattr(pair, item.name)
        if isinstance(value, np.ndarray):
            assert not value.flags.writeable


def test_a_cluster_travels_between_processes(pair: Cluster) -> None:
    """A pickled cluster comes back with the same arrays."""
    again = pickle.loads(pickle.dumps(pair))  # noqa: S301  our own bytes
    assert repr(again) == repr(pair)
    np.testing.assert_array_equal(again.link_src, pair.link_src)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gpus_per_server", 0, "gpus_per_server is 0"),
        ("leaf_of_gpu", [], "at least one GPU"),
        ("leaf_of_gpu", [0, 0, 1], "nic_up has 4 entries; expected 3"),
        ("leaf_of_gpu", [0, 0, 1, 2], r"leaf_of_gpu\[3\] is 2; expected 0 to 1"),
        ("leaf_of_gpu", [0, 0, 1, 0], r"nic_up\[3\] is link 3; expected a HOST link from node 3"),
        ("leaf_of_gpu", [0.0, 0.0, 1.0, 1.0], "leaf_of_gpu holds float64; expected whole numbers"),
        ("leaf_of_gpu", [2**40] * 4, "leaf_of_gpu exceeds the range"),
        ("leaf_of_gpu", [[0, 0], [1, 1]], "leaf_of_gpu has 2 axes; expected 1"),
        ("rack_of_server", [0, 1, 2], "4 GPUs do not fill 3 servers of 2"),
        ("group_of_switch", [0, -2], r"group_of_switch\[1\] is -2; expected -1 to 1"),
        ("link_dst", [6] * 17, "link_dst has 17 entries; expected 18"),
        ("nic_down", [4, 5, 6, 18], r"nic_down\[3\] is 18; expected 0 to 17"),
        ("nvlink_up", [], "nvlink_up has 0 entries; expected 4"),
        ("nvlink_up", [9, 8, 10, 11], r"nvlink_up\[0\] is link 9; expected a NVLINK link"),
    ],
)
def test_refused_arrays(pair: Cluster, name: str, value: Any, message: str) -> None:
    """Arrays that contradict each other are refused by name."""
    with pytest.raises(TopologyError, match=message):
        replace(pair, **{name: np.array(value)} if isinstance(value, list) else {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bandwidth_Bps", 0.0, "bandwidth_Bps of link 16 is 0.0; expected finite and above 0"),
        ("bandwidth_Bps", np.inf, "bandwidth_Bps of link 16 is inf"),
        ("bandwidth_Bps", np.nan, "bandwidth_Bps of link 16 is nan"),
        ("latency_s", -1e-9, "latency_s of link 16 is -1e-09; expected finite and at least 0"),
        ("link_class", 4, r"link_class\[16\] is 4; expected 0 to 3"),
        ("link_class", LinkClass.HOST, "17 HOST and NVLINK links|expected 4 for each of 4 GPUs"),
        ("link_class", LinkClass.GLOBAL, "the links between nodes 6 and 7 do not pair up"),
        ("link_dst", 6, "link 16 joins nodes 6 and 6; expected two different switches"),
        ("link_dst", 0, "link 16 joins nodes 6 and 0; expected two different switches"),
    ],
)
def test_refused_links(pair: Cluster, name: str, value: Any, message: str) -> None:
    """A link that cannot be is refused by its number."""
    array = getattr(pair, name).copy()
    array[16] = value
    with pytest.raises(TopologyError, match=message):
        replace(pair, **{name: array})


def test_rates_of_both_ways() -> None:
    """A cable may be faster one way: rates [cables, 2] are from a to b, then back."""
    rates = np.array([[1e9, 2e9], [3e9, 4e9]])
    cluster = from_links([(0, 1), (1, 2)], leaf_of_gpu=[0, 1, 2], bandwidth_Bps=rates)
    ends = (cluster.link_src[6:] - 6).tolist(), (cluster.link_dst[6:] - 6).tolist()
    assert ends == ([0, 1, 1, 2], [1, 0, 2, 1])
    assert cluster.bandwidth_Bps[6:].tolist() == [1e9, 2e9, 3e9, 4e9]
    src, dst = [0, 1], [1, 0]
    late = from_links([(0, 1)], leaf_of_gpu=[0, 1], latency_s=[[1e-6, 5e-6]])
    seconds = Router(late).path_latency(src, dst)
    assert seconds[1] - seconds[0] == pytest.approx(4e-6)


def test_disconnected_cluster() -> None:
    """Two leaves without a path between them are named."""
    with pytest.raises(TopologyError, match="disconnected cluster: leaf 0 cannot reach leaf 2"):
        from_links([(0, 1), (2, 3)], leaf_of_gpu=[0, 1, 2, 3])


@pytest.mark.parametrize(
    ("cables", "arguments", "message"),
    [
        ([(0, 1, 2)], {}, r"cables have the shape \(1, 3\); expected \[cables, 2\]"),
        ([(0, 2)], {"group_of_switch": [0, 0]}, "names switch 2; expected 0 to 1"),
        ([(0, -1)], {}, "names switch -1; expected 0 to 1"),
        ([(0, 1)], {"leaf_of_gpu": []}, "leaf_of_gpu has the shape"),
        ([(0, 1)], {"bandwidth_Bps": [1.0, 2.0]}, r"has the shape \(2,\); expected \(1,\)"),
        ([(0, 1)], {"servers": ServerLinks()}, "2 GPUs do not fill servers of 8"),
        ([(1, 1)], {}, "two different switches"),
    ],
)
def test_refused_cables(cables: Any, arguments: dict[str, Any], message: str) -> None:
    """Cables that lead nowhere are refused."""
    with pytest.raises(TopologyError, match=message):
        from_links(cables, **{"leaf_of_gpu": [0, 1], **arguments})


@given(st.integers(1, 12), st.data())
def test_components_equal_a_flood_fill(nodes: int, data: st.DataObject) -> None:
    """Each node is labelled with the lowest node it reaches."""
    node = st.integers(0, nodes - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=15))
    lowest = list(range(nodes))
    for _ in range(nodes):
        for a, b in edges:
            lowest[a] = lowest[b] = min(lowest[a], lowest[b])
    first, second = (np.array([edge[at] for edge in edges], dtype=np.int32) for at in range(2))
    assert components(nodes, first, second).tolist() == lowest


def test_a_long_chain_is_one_component() -> None:
    """A path of 100,000 switches in the least convenient order is found connected."""
    order = np.random.default_rng(0).permutation(100_000).astype(np.int32)
    assert not components(100_000, order[1:], order[:-1]).any()


def test_networkx_export() -> None:
    """The graph holds every node and link, with its class and rates."""
    cluster = fat_tree(leaves_per_pod=2, servers_per_leaf=2, aggregations_per_pod=2)
    graph = to_networkx(cluster)
    assert graph.number_of_nodes() == cluster.nodes
    assert graph.number_of_edges() == cluster.links
    link = int(cluster.nic_up[3])
    leaf = cluster.first_switch + int(cluster.leaf_of_gpu[3])
    assert graph.edges[3, leaf, link] == {
        "link_class": "HOST",
        "bandwidth_Bps": 50e9,
        "latency_s": 1.4e-6,
        "hops": 1,
    }
    index = int(cluster.leaf_of_gpu[3])
    assert graph.nodes[leaf] == {"kind": "switch", "index": index, "group": index}
