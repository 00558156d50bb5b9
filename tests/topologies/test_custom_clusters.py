"""Clusters from listed links, edge lists and GraphML: golden files, round trips, bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topologies import (
    PRESETS,
    Cluster,
    ClusterSpec,
    LinkClass,
    Router,
    TopologyError,
    from_networkx,
    leaf_spine,
    preset,
    read_cluster,
    to_networkx,
)
from topologies.validation import frozen_arrays

if TYPE_CHECKING:
    from pathlib import Path

TOML = """
name = "two racks"

[parameters]
gpus_per_server = 2
host = "400gbe"
nvlink = "nvlink5"

[[servers]]
leaf = "leaf-1"
count = 2

[[servers]]
leaf = "leaf-2"

[[links]]
a = "leaf-1"
b = "spine"
count = 2
part = "xdr"
class = "global"

[[links]]
a = "leaf-2"
b = "spine"
bandwidth_Bps = 25e9
latency_s = 2e-6
"""

CSV = """a,b,class,count,part,bandwidth_Bps,latency_s
s1,leaf-1,host,2,400gbe,,
s2,leaf-1,host,2,400gbe,,
s3,leaf-2,host,2,400gbe,,
leaf-1,spine,global,2,xdr,,
leaf-2,spine,,,,25e9,2e-6
"""


def drawn() -> nx.Graph:
    """Return the same cluster as a graph drawn by hand."""
    graph = nx.Graph()
    graph.add_nodes_from(["s1", "s2", "s3"], kind="server")
    graph.add_nodes_from(["leaf-1", "leaf-2", "spine"], kind="switch")
    for server, leaf in (("s1", "leaf-1"), ("s2", "leaf-1"), ("s3", "leaf-2")):
        graph.add_edge(leaf, server, part="400gbe", count=2)
    graph.add_edge("spine", "leaf-1", part="xdr", count=2, **{"class": "global"})
    graph.add_edge("leaf-2", "spine", bandwidth_Bps=25e9, latency_s=2e-6)
    return graph


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def assert_golden(cluster: Cluster, nvlink: float) -> None:
    """Check the cluster of the files above: 6 GPUs, 2 leaves, a spine, cables of two kinds."""
    assert (cluster.gpus, cluster.servers, cluster.switches, cluster.cables) == (6, 3, 3, 3)
    assert cluster.leaf_of_gpu.tolist() == [0, 0, 0, 0, 1, 1]
    assert cluster.rack_of_server.tolist() == [0, 0, 1]
    assert Router(cluster).server_distance().tolist() == [[0, 2, 4], [2, 0, 4], [4, 4, 0]]
    first = cluster.first_switch
    rows = zip(
        (cluster.link_src - first).tolist(),
        (cluster.link_dst - first).tolist(),
        cluster.link_class.tolist(),
        cluster.bandwidth_Bps.tolist(),
        cluster.latency_s.tolist(),
        strict=True,
    )
    between = sorted(row for row in rows if row[2] >= LinkClass.LOCAL)
    wide, narrow = (LinkClass.GLOBAL, 100e9, 0.45e-6), (LinkClass.LOCAL, 25e9, 2e-6)
    assert between == [(0, 2, *wide)] * 2 + [(1, 2, *narrow)] + [(2, 0, *wide)] * 2 + [
        (2, 1, *narrow)
    ]
    assert set(cluster.bandwidth_Bps[cluster.nic_up].tolist()) == {50e9}
    assert set(cluster.latency_s[cluster.nic_up].tolist()) == {1.8e-6}
    assert set(cluster.bandwidth_Bps[cluster.nvlink_up].tolist()) == {nvlink}


def test_golden_files(tmp_path: Path) -> None:
    """Links in TOML, an edge list and a drawn graph give the same cluster."""
    nx.write_graphml(drawn(), tmp_path / "g.graphml")
    table = 'builder = "edges"\n[parameters]\nfile = "e.csv"\nnvlink = "nvlink5"\n'
    files = (
        (write(tmp_path, "t.toml", TOML), 900e9),
        (write(tmp_path, "e.csv", CSV), 450e9),
        (write(tmp_path, "f.toml", table), 900e9),
        (tmp_path / "g.graphml", 450e9),
    )
    for path, nvlink in files:
        assert_golden(read_cluster(path).build(), nvlink)
    assert [read_cluster(path).name for path, _ in files] == ["two racks", "e", "f", "g"]
    other = write(tmp_path, "o.csv", CSV.replace("leaf-2,spine", "leaf-2,leaf-1"))
    with pytest.raises(AssertionError):
        assert_golden(read_cluster(other).build(), 450e9)


def test_a_server_on_several_leaves(tmp_path: Path) -> None:
    """Cards on a leaf each are rails, in TOML as in an edge list, with the rule that these need."""
    toml = """
parameters = { gpus_per_server = 2, rail_rule = "sender" }
servers = [{ leaf = ["r0", "r1"], count = 3 }]
"""
    text = "a,b,class,bandwidth_Bps\n"
    text += "".join(f"s{s},r{r},host,50e9\n" for s in range(3) for r in range(2))
    write(tmp_path, "e.csv", text)
    edges = 'builder = "edges"\nparameters = { file = "e.csv", rail_rule = "sender" }\n'
    for path in (write(tmp_path, "t.toml", toml), write(tmp_path, "u.toml", edges)):
        cluster = read_cluster(path).build()
        assert cluster.leaf_of_gpu.tolist() == [0, 1] * 3
        assert set(Router(cluster).gpu_distance().ravel().tolist()) == {0, 2}
    with pytest.raises(TopologyError, match="no cables lead from 'r0' to 'r1'"):
        read_cluster(tmp_path / "e.csv").build()


def test_an_edge_list_of_ten_thousand_gpus(tmp_path: Path) -> None:
    """1280 servers on 40 leaves under 32 spines: the leaf-spine builder's distances."""
    rows = ["a,b,class,count,bandwidth_Bps"]
    rows += [f"s{s},l{s // 32},host,8,50e9" for s in range(1280)]
    rows += [f"l{leaf},t{top},global,1,400e9" for leaf in range(40) for top in range(32)]
    cluster = read_cluster(write(tmp_path, "big.csv", "\n".join(rows))).build()
    twin = leaf_spine(leaves=40, servers_per_leaf=32, spines=32)
    found, expected = frozen_arrays(cluster), frozen_arrays(twin)
    for name in ("leaf_of_gpu", "link_src", "link_dst", "link_class", "bandwidth_Bps"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


SMALL = {
    "fat-tree": {"leaves_per_pod": 2, "servers_per_leaf": 2, "aggregations_per_pod": 3},
    "dragonfly": {"a": 3, "p": 1, "h": 2, "groups": 6, "gpus_per_server": 1},
    "rail": {"groups": 2, "servers_per_group": 2, "spines": 2, "rail_rule": "receiver"},
    "full-mesh": {"switches": 4},
    "leaf-spine": {"leaves": 3, "servers_per_leaf": 2, "spines": 2, "cables_per_spine": 2},
    "multi-plane": {"planes": 2, "leaves": 2, "servers_per_leaf": 1, "spines": 2},
    "scale-up": {"domains": 2, "spines": 2, "gpus_per_server": 8},
    "slim-fly": {"q": 4, "p": 1, "gpus_per_server": 2},
    "torus": {"dims": [3, 3], "host_bandwidth_Bps": 1 / 3 * 1e11},
    "links": {
        "gpus_per_server": 1,
        "servers": [{"leaf": "a"}, {"leaf": "b"}],
        "links": [{"a": "a", "b": "b", "part": "hdr", "count": 3}],
    },
}


def assert_same(one: Cluster, other: Cluster) -> None:
    """Check that two clusters are the same in everything."""
    arrays, expected = frozen_arrays(one), frozen_arrays(other)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    for name in (
        "name",
        "builder",
        "gpus_per_server",
        "fewest_global_first",
        "rail_rule",
        "notes",
    ):
        assert getattr(one, name) == getattr(other, name)
    assert ClusterSpec(one.builder, one.parameters) == ClusterSpec(other.builder, other.parameters)


@pytest.mark.parametrize("builder", sorted(SMALL))
def test_graphml_round_trip(tmp_path: Path, builder: str) -> None:
    """Exported, written, read and built again, every builder's cluster is the same."""
    cluster = ClusterSpec(builder, SMALL[builder], "of mine").build()
    assert_same(from_networkx(to_networkx(cluster)), cluster)
    path = tmp_path / "x.graphml"
    nx.write_graphml(to_networkx(cluster), path)
    assert_same(read_cluster(path).build(), cluster)
    slower = replace(cluster, latency_s=cluster.latency_s * 2)
    with pytest.raises(AssertionError):
        assert_same(slower, cluster)


@pytest.mark.parametrize("name", ["facts-fat-tree", "rail-256"])
def test_presets_round_trip_in_any_order(tmp_path: Path, name: str) -> None:
    """Nodes and edges may stand in any order in the file: their numbers decide."""
    assert name in PRESETS
    cluster = preset(name).spec.build()
    graph, shuffled = to_networkx(cluster), nx.MultiDiGraph()
    shuffled.graph |= graph.graph
    shuffled.add_nodes_from(reversed(list(graph.nodes(data=True))))
    shuffled.add_edges_from(reversed(list(graph.edges(keys=True, data=True))))
    path = tmp_path / "x.graphml"
    nx.write_graphml(shuffled, path)
    assert_same(read_cluster(path).build(), cluster)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.nodes[0].pop("kind"), "node 0: kind is None; expected str"),
        (lambda g: g.nodes[0].update(kind="tpu"), "node 0: kind is 'tpu'; allowed: gpu, nvlink"),
        (lambda g: g.nodes[1].update(index=0), "node 1: index is 0, as another gpu's"),
        (lambda g: g.nodes[1].update(index=77), "nodes of kind 'gpu' are not numbered 0 to 15"),
        (lambda g: g.graph.pop("rail_rule"), "graph: rail_rule is None; expected str"),
        (lambda g: g.graph.update(notes="{"), "graph: '{' is no JSON list"),
        (lambda g: g.graph.update(gpus_per_server=3), "16 GPUs do not fill 2 servers of 3"),
        (lambda g: g.remove_edge(0, 18), "the keys of edges are not 0 to 66"),
        (lambda g: g.add_edge(0, 18, key="x"), "its key is 'x'; expected the number of a link"),
        (lambda g: _edge(g).update(link_class="WIFI"), "link_class is 'WIFI'; allowed: NVLINK"),
        (lambda g: _edge(g).update(latency_s="1"), "latency_s is '1'; expected float"),
        (lambda g: _edge(g).update(bandwidth_Bps=-1.0), "bandwidth_Bps of link 0 is -1.0"),
        (lambda g: _edge(g).update(link_class="LOCAL"), "15 HOST links from 15 GPUs; expected"),
    ],
)
def test_refused_graphs(change: Any, message: str) -> None:
    """A graph that is no cluster is refused with its node, edge or attribute."""
    graph = to_networkx(leaf_spine(leaves=2, servers_per_leaf=1, spines=1))
    change(graph)
    with pytest.raises(TopologyError) as caught:
        from_networkx(graph)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _edge(graph: nx.MultiDiGraph) -> dict[str, Any]:
    return graph.edges[0, 18, 0]


def test_undirected_graphs_are_not_exports() -> None:
    """What `to_networkx` did not make is refused."""
    with pytest.raises(TopologyError, match="the graph is no MultiDiGraph"):
        from_networkx(nx.Graph())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("count = 2\npart", "count = 0\npart"), "links[0]: count is 0; expected a whole number"),
        (('part = "xdr"', 'part = "xdr2"'), "links[0]: part is 'xdr2'; allowed: hdr, ndr"),
        (('part = "xdr"', ""), "links[0]: give 'bandwidth_Bps' or 'part', and not both"),
        (('class = "global"', 'class = "host"'), "links[0]: class is 'host'; allowed: local, glo"),
        (("bandwidth_Bps = 25e9", "bandwidth_Bps = nan"), "links[1]: bandwidth_Bps is nan"),
        (("bandwidth_Bps = 25e9", "bandwidth_Bps = -1"), "links[1]: bandwidth_Bps is -1"),
        (("latency_s = 2e-6", "latency_s = 2"), "links[1]: latency_s is 2; expected a number"),
        (("latency_s = 2e-6", "late = 2"), "links[1]: unknown key 'late'; allowed: a, b, count"),
        (('b = "spine"\nbandwidth', "b = 3\nbandwidth"), "links[1]: b is 3; expected a name"),
        (('b = "spine"\nbandwidth', "bandwidth"), "links[1]: missing key 'b'"),
        (('leaf = "leaf-2"', 'leafs = "leaf-2"'), "servers[1]: unknown key 'leafs'; allowed: leaf"),
        (('leaf = "leaf-2"', 'leaf = ["a"]'), "servers[1]: leaf names 1 switches; expected one,"),
        (('leaf = "leaf-2"', "count = 2"), "servers[1]: missing key 'leaf'"),
        (("count = 2\n\n", "count = 4000000\n\n"), "the number of GPUs is 8000000; expected at"),
        (('host = "400gbe"', "host = 4"), "host is 4; allowed: hdr"),
        (("[parameters]", "[parameter]"), "unknown key 'parameter'; allowed: builder, name"),
        (('name = "two racks"', "parameters = 3\n#["), "servers[0]"),
    ],
)
def test_refused_links(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """A bad table is refused with the file, the list, its place and the key."""
    text = TOML.replace(*change)
    assert text != TOML
    path = write(tmp_path, "t.toml", text)
    with pytest.raises(TopologyError) as caught:
        read_cluster(path).build()
    if message != "servers[0]":
        assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def _second(row: str) -> str:
    """Return the edge list with another beginning of its third row."""
    return CSV.replace("s2,leaf-1,host,2", row)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row has the class 'host'"),
        ("a,b,speed\n", "row 1: column 'speed'; allowed once: a, b, count, part"),
        ("a,b,a\n", "row 1: column 'a'; allowed once"),
        (_second("s2,leaf-1,host"), "row 3: has 6 cells; expected 7"),
        (_second("s2,leaf-1,host,two"), "row 3: count is 'two'; expected"),
        (_second("s2,leaf-1,host,-2"), "row 3: count is -2; expected a w"),
        (
            _second("s2,leaf-1,host,1"),
            "server 's2' has 1 cards; expected 2",
        ),
        (_second(",leaf-1,host,2"), "row 3: missing key 'a'"),
        (
            _second("leaf-1,leaf-1,host,2"),
            "row 3: joins 'leaf-1' to itself",
        ),
        (
            _second("leaf-2,leaf-1,host,2"),
            "row 3: 'leaf-2' is a switch too",
        ),
        (
            CSV.replace("s2,leaf-1,host,2,400gbe", "s2,leaf-1,host,2,ndr"),
            "row 3: cards of 5e+10 B/s",
        ),
        (CSV.replace("25e9", "nan"), "row 6: bandwidth_Bps is nan"),
        (CSV.replace("25e9", "-25e9"), "row 6: bandwidth_Bps is -"),
        (CSV.replace("25e9", "1e400"), "row 6: bandwidth_Bps is inf"),
        (CSV.replace("25e9", "fast"), "row 6: bandwidth_Bps is 'fast'; expected a number"),
        (
            CSV.replace("leaf-2,spine,,,,25e9,2e-6\n", ""),
            "no cables lead from 'leaf-1' to 'leaf-2'",
        ),
        (CSV + "spine,leaf-2,,,ndr,,\n", "row 7: joins 'spine' and 'leaf-2', as row 6 does"),
        (CSV.replace("s2", '"s2'), "is no CSV: unexpected end of data"),
        (CSV.replace("host,2", "host,4000000"), "the number of cards is 12000000; expected at mo"),
        (CSV.replace("global,2", "global,99999999"), "row 5: count is 99999999; expected at most"),
    ],
)
def test_refused_edge_lists(tmp_path: Path, text: str, message: str) -> None:
    """A bad row is refused with the file, its number and the column."""
    path = write(tmp_path, "e.csv", text)
    with pytest.raises(TopologyError) as caught:
        read_cluster(path).build()
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.nodes["s1"].pop("kind"), "node 's1': kind is None; allowed: server, switch"),
        (lambda g: g.add_edge("s1", "s2", part="ndr"), "joins two servers; expected a switch"),
        (lambda g: g.edges["spine", "leaf-1"].update(count=-1), "count is -1"),
        (lambda g: g.edges["spine", "leaf-1"].pop("part"), "give 'bandwidth_Bps' or 'part'"),
        (lambda g: g.edges["spine", "leaf-1"].update(colour="red"), "unknown key 'colour'"),
        (lambda g: g.remove_node("spine"), "no cables lead from 'leaf-1' to 'leaf-2'"),
    ],
)
def test_refused_drawings(tmp_path: Path, change: Any, message: str) -> None:
    """A drawn graph that is no cluster is refused with the file, and the node or edge."""
    graph, path = drawn(), tmp_path / "g.graphml"
    change(graph)
    nx.write_graphml(graph, path)
    with pytest.raises(TopologyError) as caught:
        read_cluster(path).build()
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_graphml_brings_no_definitions(tmp_path: Path) -> None:
    """Entities that would grow without bound are not expanded but refused."""
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aa">]><graphml>&a;</graphml>'
    with pytest.raises(TopologyError, match="holds a document type; expected plain GraphML"):
        read_cluster(write(tmp_path, "b.graphml", bomb)).build()


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    """A spec knows its file by content: neither building nor another spec takes other content."""
    path = write(tmp_path, "e.csv", CSV)
    spec = read_cluster(path)
    write(tmp_path, "e.csv", CSV.replace("25e9", "26e9"))
    with pytest.raises(TopologyError, match="its content has changed; its SHA-256 is"):
        spec.build()
    with pytest.raises(TopologyError, match="its content has changed"):
        ClusterSpec(**spec.to_mapping())
    assert read_cluster(path).parameters["sha256"] != spec.parameters["sha256"]


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, binary and special files are refused in one line that starts with the name."""
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe")
    (tmp_path / "d.graphml").mkdir()
    for name, message in (
        ("gone.csv", "cannot be read: No such file"),
        ("gone.graphml", "cannot be read: No such file"),
        ("b.csv", "is not UTF-8 text; expected CSV"),
        ("d.graphml", "cannot be read: it is no regular file"),
    ):
        path = tmp_path / name
        with pytest.raises(TopologyError) as caught:
            read_cluster(path).build()
        assert str(caught.value) == f"{path}: {message}" or str(caught.value).startswith(
            f"{path}: {message}"
        )


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    """The size decides before anything is read."""
    path = tmp_path / "big.csv"
    with path.open("wb") as file:
        file.truncate(2**29 + 1)  # sparse: takes no room
    with pytest.raises(TopologyError, match="has 536870913 bytes; expected at most 536870912"):
        read_cluster(path)


_fuzz = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def garbled(text: str, cut: int, drop: int, junk: str) -> str:
    """Return the text with some of it replaced by junk."""
    at = cut % (len(text) + 1)
    return text[:at] + junk + text[at + drop :]


_JUNK = st.text(max_size=6) | st.sampled_from(["nan", "-1", "1e999", ",", "\n", '"', "[[", "0"])


@_fuzz
@given(
    st.sampled_from(["toml", "csv", "graphml", "export"]), st.integers(0), st.integers(0, 40), _JUNK
)
def test_garbled_files_never_trace_back(
    tmp_path: Path, kind: str, cut: int, drop: int, junk: str
) -> None:
    """Cut anywhere and garbled, a file is a cluster or one line of TopologyError with its name."""
    texts = {"toml": TOML, "csv": CSV}
    if kind == "graphml":
        texts[kind] = "\n".join(nx.generate_graphml(drawn()))
    if kind == "export":
        cluster = leaf_spine(leaves=2, servers_per_leaf=1, spines=1, gpus_per_server=2)
        texts[kind] = "\n".join(nx.generate_graphml(to_networkx(cluster)))
    path = tmp_path / f"x.{'graphml' if kind == 'export' else kind}"
    path.write_text(garbled(texts[kind], cut, drop, junk), encoding="utf-8", errors="ignore")
    try:
        assert read_cluster(path).build().gpus > 0
    except TopologyError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017  either outcome is right
        assert "\n" not in str(error)  # noqa: PT017
