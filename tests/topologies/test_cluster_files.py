"""Specs, presets and cluster files, good and bad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies import (
    BUILDERS,
    PRESETS,
    ClusterSpec,
    LinkClass,
    Router,
    TopologyError,
    preset,
    read_cluster,
)

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
builder = "fat-tree"

[parameters]
pods = 2
leaves_per_pod = 4
servers_per_leaf = 4
aggregations_per_pod = 4
cores_per_aggregation = 4
oversubscription = [2.0, 1]
"""


def write(folder: Path, text: str) -> Path:
    """Write a cluster file."""
    path = folder / "two pods.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reference_fat_tree() -> None:
    """32 servers of 8 GPUs at distances 2, 4 and 6: 3 under the leaf, 12 in the pod, 16 beyond."""
    cluster = preset("facts-fat-tree").spec.build()
    assert (cluster.gpus, cluster.servers) == (256, 32)
    distance = Router(cluster).server_distance()
    assert np.bincount(distance[0]).tolist() == [1, 0, 3, 0, 12, 0, 16]
    assert set(distance[0, 1:4].tolist()) == {2}
    assert set(distance[0, 16:].tolist()) == {6}


@pytest.mark.parametrize(
    ("name", "gpus", "slots"),
    [("ep32", 32, 288), ("ep64", 64, 320), ("ep72", 72, 288), ("ep144", 144, 288)],
)
def test_deployments(name: str, gpus: int, slots: int) -> None:
    """Deployments are named after their GPUs, 8 a server, and hold whole slots a GPU."""
    chosen = preset(name)
    cluster = chosen.spec.build()
    assert (cluster.name, cluster.gpus, cluster.gpus_per_server) == (name, gpus, 8)
    assert chosen.slots_per_layer == slots
    assert slots % gpus == 0


def test_presets_are_listed_by_their_name() -> None:
    """Keys, spec names and a line about each agree; the reference has no slots of its own."""
    assert sorted(PRESETS) == [
        "b200-ndr-256",
        "ep144",
        "ep32",
        "ep64",
        "ep72",
        "facts-fat-tree",
        "gb200-nvl72",
        "gb200-nvl72-8",
        "gb300-nvl72-8",
        "h100-ndr-1024",
        "h100-ndr-256",
        "h800-planes-2048",
        "llama3-24k",
        "planes-16384",
        "rail-256",
        "tpu-v4-64",
    ]
    assert all(chosen.spec.name == name and chosen.about for name, chosen in PRESETS.items())
    assert preset("facts-fat-tree").slots_per_layer is None


def test_unknown_preset() -> None:
    """An unknown name is answered with those there are."""
    allowed = "b200-ndr-256, ep144, ep32, ep64, ep72, facts-fat-tree, gb200-nvl72, "
    with pytest.raises(TopologyError, match=f"unknown cluster 'ep1'; allowed: {allowed}"):
        preset("ep1")


def test_a_file_becomes_a_spec(tmp_path: Path) -> None:
    """A file gives builder and parameters; without a name the cluster takes the file's."""
    spec = read_cluster(write(tmp_path, GOOD))
    assert (spec.name, spec.builder, spec.parameters["pods"]) == ("two pods", "fat-tree", 2)
    assert spec.parameters["oversubscription"] == [2.0, 1]
    assert spec.build().name == "two pods"
    assert read_cluster(write(tmp_path, 'name = "x"\n' + GOOD)).name == "x"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_specs_round_trip_through_json(name: str) -> None:
    """A spec written as JSON and read again is equal, defaults filled in."""
    spec = preset(name).spec
    assert ClusterSpec.from_mapping(json.loads(json.dumps(spec.to_mapping()))) == spec


@pytest.mark.parametrize(
    ("name", "gpus", "servers", "switches", "host", "nvlink"),
    [
        # A unit is 8 leaves of 32 servers, and 4 spines of 64 ports carry its 256 cables up.
        ("h100-ndr-256", 256, 32, 8 + 4, 50e9, 450e9),
        ("h100-ndr-1024", 1024, 128, 32 + 16, 50e9, 450e9),
        ("b200-ndr-256", 256, 32, 8 + 4, 50e9, 900e9),
        ("h800-planes-2048", 2048, 256, 64 + 32, 50e9, 200e9),
        ("gb200-nvl72", 72, 1, 1, 50e9, 900e9),
        # 4 groups of 4 rails.
        ("gb200-nvl72-8", 576, 8, 16 + 9, 50e9, 900e9),
        ("gb300-nvl72-8", 576, 8, 16 + 9, 100e9, 900e9),
        # 24,576 GPUs; 1536 racks, 8 x 16 switches of pods, 16 x 16 above.
        ("llama3-24k", 24576, 3072, 1536 + 128 + 256, 50e9, 450e9),
        ("tpu-v4-64", 64, 64, 64, 300e9, 450e9),
    ],
)
def test_clusters_in_use(
    name: str, gpus: int, servers: int, switches: int, host: float, nvlink: float
) -> None:
    """Named clusters have the published sizes and rates."""
    cluster = preset(name).spec.build()
    assert (cluster.gpus, cluster.servers, cluster.switches) == (gpus, servers, switches)
    parameters = preset(name).spec.parameters
    assert (parameters["host_bandwidth_Bps"], parameters["nvlink_bandwidth_Bps"]) == (host, nvlink)


def test_oversubscription_between_pods() -> None:
    """A pod's switch of the 24k cluster has seven times as much down as up."""
    cluster = preset("llama3-24k").spec.build()
    up = cluster.link_class == LinkClass.GLOBAL
    down = cluster.link_class == LinkClass.LOCAL
    ratio = cluster.bandwidth_Bps[down].sum() / cluster.bandwidth_Bps[up].sum()
    assert ratio == pytest.approx(7, rel=1e-12)
    assert set(cluster.latency_s[up].tolist()) == {1e-6}


def test_left_out_parameters_make_no_difference() -> None:
    """A default written out gives an equal spec."""
    short = {"a": 2, "p": 1, "h": 1, "groups": 3}
    long = {**short, "arrangement": "absolute", "reach": None}
    assert ClusterSpec("dragonfly", short) == ClusterSpec("dragonfly", long)
    assert ClusterSpec("dragonfly", short).name == "dragonfly"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("builder = ", "is not TOML: Invalid value"),
        (
            GOOD.replace("fat-tree", "hypercube"),
            "unknown builder 'hypercube'; allowed: dragonfly, edges, fat-tree, full-mesh, ",
        ),
        ("rack = 3\n" + GOOD, "unknown key 'rack'; allowed: builder, name, parameters"),
        (GOOD.replace("pods = 2", "pod = 2", 1), "fat-tree: unknown parameter 'pod'; allowed: "),
        (GOOD.replace("pods = 2", "pods = 0", 1), "fat-tree: pods is 0"),
        (GOOD.replace("pods = 2", "pods = '2'", 1), "fat-tree: pods is '2'"),
        ("a = " + "[" * 3000, "is not TOML: nested too deeply"),
        ("a = " + "9" * 5000, "is not TOML: Exceeds the limit"),
        ("", "missing key 'builder'"),
        ('builder = "fat-tree"', "missing key 'parameters'"),
        ('builder = "fat-tree"\nparameters = 3', "parameters is 3; expected a table"),
        ("builder = 3\n[parameters]", "builder is 3; expected a string"),
        ("name = 3\n" + GOOD, "name is 3; expected a string"),
    ],
)
def test_refused_files(tmp_path: Path, text: str, message: str) -> None:
    """A bad file gives one line that starts with its name."""
    path = write(tmp_path, text)
    with pytest.raises(TopologyError) as caught:
        read_cluster(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "\n" not in line


def test_unreadable_files(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no text are refused in one line."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (tmp_path / "none.toml", "cannot be read: No such file"),
        (tmp_path, "cannot be read: "),
        (binary, "is not UTF-8 text"),
    ):
        with pytest.raises(TopologyError, match=message):
            read_cluster(path)


SMALLEST: dict[str, dict[str, Any]] = {
    "fat-tree": {"leaves_per_pod": 2, "servers_per_leaf": 1, "aggregations_per_pod": 2},
    "dragonfly": {"a": 4, "p": 1, "h": 2, "groups": 5},
    "rail": {"groups": 2, "servers_per_group": 2, "spines": 2},
    "full-mesh": {"switches": 3},
    "leaf-spine": {"leaves": 2, "servers_per_leaf": 1, "spines": 2},
    "multi-plane": {"planes": 2, "leaves": 2, "servers_per_leaf": 1, "spines": 2},
    "scale-up": {"domains": 2, "spines": 2},
    "slim-fly": {"q": 5},
    "torus": {"dims": [2, 2]},
    "links": {"servers": [{"leaf": "a"}, {"leaf": "b"}], "links": [{"a": "a", "b": "b"}]},
    "edges": {"file": "gone.csv"},
    "graphml": {"file": "gone.graphml"},
    "measured": {"file": "gone.npy"},
}

LARGE: dict[str, dict[str, Any]] = {
    "fat-tree": {
        "pods": 10,
        "leaves_per_pod": 8,
        "servers_per_leaf": 16,
        "aggregations_per_pod": 8,
        "cores_per_aggregation": 8,
    },
    "dragonfly": {"a": 8, "p": 4, "h": 5, "groups": 41},
    "rail": {"groups": 20, "servers_per_group": 64, "spines": 32},
    "full-mesh": {"switches": 1250},
    "leaf-spine": {"leaves": 40, "servers_per_leaf": 32, "spines": 32},
    "multi-plane": {"planes": 4, "leaves": 20, "servers_per_leaf": 64, "spines": 32},
    "scale-up": {"domains": 144, "domains_per_group": 8, "spines": 36},
    "slim-fly": {"q": 9},
    "torus": {"dims": [10, 10, 13]},
}


@pytest.mark.parametrize("builder", sorted(LARGE))
def test_ten_thousand_gpus(builder: str) -> None:
    """Every builder makes clusters of 10,000 GPUs, and routes between the farthest of them."""
    cluster = ClusterSpec(builder, LARGE[builder]).build()
    assert 9_000 <= cluster.gpus <= 11_000
    hops = Router(cluster).hops([0, 1], [cluster.gpus - 1, 1])
    assert hops[0] >= 2
    assert hops[1] == 0


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    builder=st.sampled_from(sorted(BUILDERS)),
    name=st.sampled_from(
        [
            "pods",
            "a",
            "groups",
            "reach",
            "rail_rule",
            "planes",
            "oversubscription",
            "arrangement",
            "dims",
            "leaves",
            "rails",
            "q",
            "servers",
            "links",
            "file",
            "sha256",
            "quantity",
            "host",
            "cable",
            "zz",
        ]
    )
    | st.sampled_from(["host_latency_s", "nvlink_bandwidth_Bps", "global_bandwidth_Bps"]),
    value=_VALUES,
)
def test_any_value_is_taken_or_refused_cleanly(builder: str, name: str, value: Any) -> None:
    """Whatever stands in a file, the answer is a spec or one line of TopologyError."""
    parameters = {**SMALLEST[builder], name: value}
    try:
        ClusterSpec.from_mapping({"builder": builder, "parameters": parameters})
    except TopologyError as error:
        assert "\n" not in str(error)  # noqa: PT017  either outcome is right


@given(_VALUES)
def test_any_table_is_taken_or_refused_cleanly(value: Any) -> None:
    """Whatever the keys of a table hold, nothing but TopologyError comes back."""
    for key in ("builder", "name", "parameters"):
        table = {"builder": "dragonfly", "parameters": {"a": 1, "p": 1, "h": 1, "groups": 2}}
        try:
            ClusterSpec.from_mapping({**table, key: value})
        except TopologyError as error:
            assert "\n" not in str(error)  # noqa: PT017  either outcome is right
