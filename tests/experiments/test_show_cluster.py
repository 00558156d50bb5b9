"""`topomoe show cluster`: figures by hand, pictures of every structure, refusals."""

from __future__ import annotations

import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from experiments.cli import status
from experiments.cluster_summary import summarise
from experiments.clusters import find_cluster
from experiments.commands.show_cluster import KINDS
from experiments.figures import cluster as picture
from experiments.figures.cluster_layout import layout
from experiments.figures.cluster_sketch import sketch
from topologies import ClusterSpec, fat_tree, from_links, rail, torus

if TYPE_CHECKING:
    from pathlib import Path

    from topologies import Cluster

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "torus": ("torus", {"dims": [8, 8], "gpus_per_server": 4}),
    "torus-3d": ("torus", {"dims": [4, 4, 4], "gpus_per_server": 4}),
    "line": ("torus", {"dims": [6], "wrap": False}),
    "torus-5d": ("torus", {"dims": [2, 2, 2, 2, 2]}),
    "mesh": ("full-mesh", {"switches": 16, "servers_per_switch": 2}),
    "lone": ("full-mesh", {"switches": 1}),
    "slim-fly": ("slim-fly", {"q": 5, "p": 1, "gpus_per_server": 4}),
    "planes": ("multi-plane", {"planes": 4, "leaves": 2, "servers_per_leaf": 8, "spines": 2}),
    "racks": ("leaf-spine", {"leaves": 8, "servers_per_leaf": 4, "spines": 4}),
    "domains": ("scale-up", {"domains": 4, "spines": 4}),
    "dragonfly-2": ("dragonfly", {"a": 4, "p": 2, "h": 2, "groups": 9}),
    "rails-in-planes": (
        "rail",
        {
            "groups": 2,
            "servers_per_group": 4,
            "spines": 4,
            "planes": True,
            "rail_rule": "sender",
        },
    ),
    "rails-alone": (
        "rail",
        {"groups": 1, "servers_per_group": 4, "spines": 0, "rail_rule": "sender"},
    ),
}
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "torus-1300": ("torus", {"dims": [10, 10, 13]}),
    "mesh-300": ("full-mesh", {"switches": 300}),
    "slim-fly-1250": ("slim-fly", {"q": 25}),
    "racks-240": ("leaf-spine", {"leaves": 240, "servers_per_leaf": 8, "spines": 16}),
    "dragonfly-40": ("dragonfly", {"a": 8, "p": 4, "h": 5, "groups": 40}),
}
NAMED = (
    "facts-fat-tree",
    "fat-tree-sparse",
    "dragonfly",
    "rail-256",
    "h100-ndr-1024",
    "planes-16384",
    "llama3-24k",
)


def built(name: str) -> Cluster:
    """Return the cluster of that name."""
    if name in NAMED:
        return find_cluster(name).spec.build()
    return ClusterSpec(*(SHAPES | LARGE)[name], name).build()


def test_figures_of_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """32 servers of 8 on 8 leaves in 2 pods: counts, rates and distances by hand."""
    file = tmp_path / "x.json"
    assert status(["show", "cluster", "facts-fat-tree", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert (found["gpus"], found["servers"], found["switches"]) == (256, 32, 32)
    # Of 31 others 3 at 2 links, 12 at 4, 16 at 6: 150/31.
    assert found["mean_distance"] == pytest.approx(150 / 31, rel=1e-12)
    assert found["diameter"] == 6
    links = {row["link_class"]: row for row in found["links"]}
    # 32 cards at 50 GB/s: 1600 GB/s of a leaf over 4 cables.
    assert links["local"]["bandwidth_Bps"] == [400e9, 400e9]
    assert links["local"]["cables"] == 32
    assert links["host"]["total_Bps"] == 256 * 50e9
    assert links["nvlink"]["parts"] == ["nvlink4"]
    assert [row["switches"] for row in found["tiers"]] == [8, 8, 16]
    assert [row["oversubscription"] for row in found["tiers"]] == [[1, 1], [1, 1], None]
    assert ClusterSpec(**found["spec"]) == find_cluster("facts-fat-tree").spec
    printed = capsys.readouterr().out
    assert "4.838710 in the mean, 6 at most" in printed


def test_oversubscription_is_told_by_tier() -> None:
    """What leads down over what leads up, in each tier of a 2:1 and 3:1 tree."""
    cluster = fat_tree(
        pods=2,
        leaves_per_pod=2,
        servers_per_leaf=2,
        aggregations_per_pod=2,
        cores_per_aggregation=2,
        oversubscription=[2, 3],
    )
    found = [row.oversubscription for row in summarise(cluster).tiers]
    assert found == [pytest.approx((2, 2)), pytest.approx((3, 3)), None]


def test_direct_networks_weigh_cards_against_cables() -> None:
    """On a torus of 4 cables a switch, a lane per card each, the ratio is a quarter."""
    summary = summarise(torus(dims=[4, 4]))
    assert [row.oversubscription for row in summary.tiers] == [pytest.approx((0.25, 0.25))]
    # Rings of 4 have the mean 1: 2 with self, 32/15 without, two card links more.
    assert summary.mean_distance == pytest.approx(2 * 16 / 15 + 2, rel=1e-12)
    assert summary.diameter == 4 + 2


def test_rails_are_as_far_as_the_mean_of_their_cards() -> None:
    """Under sender a message to another group crosses the spines, within a group it does not."""
    summary = summarise(rail(groups=2, servers_per_group=2, spines=1, rail_rule="sender"))
    # Of 3 others one is in the group: (2 + 4 + 4) / 3.
    assert summary.mean_distance == pytest.approx(10 / 3, rel=1e-12)


def test_many_rates_are_a_range() -> None:
    """Cables that all differ are told by their least and most."""
    cables = [(a, a + 1) for a in range(6)]
    cluster = from_links(
        cables, leaf_of_gpu=range(7), bandwidth_Bps=[(i + 1) * 1e9 for i in range(6)]
    )
    row = summarise(cluster).links[-1]
    assert (row.cables, row.bandwidth_Bps) == (6, (1e9, 6e9))
    assert row.total_Bps == pytest.approx(21e9)


def test_large_clusters_and_single_servers_have_no_distances(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where distances are not looked at, that is said."""
    cluster = fat_tree(leaves_per_pod=2, servers_per_leaf=3000, aggregations_per_pod=2)
    assert summarise(cluster).mean_distance is None
    assert status(["show", "cluster", "gb200-nvl72"]) == 0
    assert "a single server: no distances" in capsys.readouterr().out


def test_measured_costs_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A measured matrix shows its range, and `place` says that hops are in its unit."""
    values = np.full((32, 32), 3e-6)
    values[:8, 8:] = 9e-6
    np.save(tmp_path / "m.npy", values)
    (tmp_path / "m.toml").write_text(
        'builder = "measured"\n[parameters]\nfile = "m.npy"\nquantity = "latency_s"\n'
    )
    name, out = str(tmp_path / "m.toml"), tmp_path / "m.json"
    assert status(["show", "cluster", name, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["measured"] == ["ns", 3000, 4500, 9000]
    assert "in ns: 3,000 to 9,000, 4,500 in the mean" in capsys.readouterr().out
    words = ["place", "--cluster", name, "--model", "DeepSeekMoE-16B", "--tokens", "16"]
    assert status([*words, "--json", str(out)]) == 0
    assert "expected hops and their bound are in ns" in " ".join(capsys.readouterr().out.split())
    maps = str(tmp_path / "map.json")
    assert status([*words, "--out", maps]) == 0
    assert status(["worth", maps, maps, "--cluster", name, "--tokens", "16"]) == 0
    assert "distances of this cluster were measured" in capsys.readouterr().out
    found = json.loads(out.read_text())
    # Results of experts on the first server take 9 us to others: a policy avoids it.
    assert found["expected_hops"] <= found["against"]["expected_hops"]
    assert found["symmetric"] is False


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name the command lists those there are."""
    assert status(["show", "cluster"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMED)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_written_the_same_every_time(tmp_path: Path, kind: str) -> None:
    """Every format is written, and a second time has the same bytes."""
    one, other = (tmp_path / f"{name}{kind}" for name in "ab")
    for path in (one, other):
        assert status(["show", "cluster", "ep32", "--out", str(path)]) == 0
    assert one.read_bytes() == other.read_bytes()
    assert one.stat().st_size > 2000


def test_nothing_is_written_of_a_bad_file(tmp_path: Path) -> None:
    """A cluster file that is refused leaves neither figures nor picture."""
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\nx,y\n")
    outputs = [tmp_path / "x.json", tmp_path / "x.png"]
    words = ["show", "cluster", str(bad), "--json", str(outputs[0]), "--out", str(outputs[1])]
    assert status(words) == 2
    assert sorted(tmp_path.iterdir()) == [bad]


def test_what_is_read_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a cluster's file nor the one that it names is taken for an output."""
    data, table = tmp_path / "m.csv", tmp_path / "m.toml"
    data.write_text("0,1\n1,0\n")
    table.write_text('builder = "measured"\n[parameters]\nfile = "m.csv"\ngpus_per_server = 1\n')
    place = ["place", "--cluster", str(table), "--model", "DeepSeekMoE-16B"]
    for words in (["show", "cluster", str(table)], place):
        for path in (data, table):
            assert status([*words, "--json", str(path)]) == 2
            assert f"{path}: is both read and to be written" in capsys.readouterr().err
    assert data.read_text() == "0,1\n1,0\n"


@pytest.mark.parametrize("name", [*SHAPES, *LARGE, *NAMED])
def test_every_structure_is_drawn(name: str) -> None:
    """A figure comes out, titled with the cluster's counts, of a size that fits a page."""
    cluster = built(name)
    drawn = picture.figure(cluster)
    title = drawn.axes[0].get_title(loc="left")
    assert f"{cluster.gpus:,} GPUs" in title
    # What a title counts and a picture leaves out is said.
    said = "servers are not drawn" in title or "below a leaf: its servers" in title
    assert said != sketch(cluster).gpus
    wide, high = drawn.get_size_inches()
    assert wide == 7.0
    assert 1.5 <= high <= 9


@pytest.mark.parametrize("name", [*SHAPES, "facts-fat-tree", "dragonfly", "rail-256"])
def test_nothing_lies_on_top_of_anything(name: str) -> None:
    """Where GPUs are drawn, servers and switches have places of their own."""
    cluster = built(name)
    drawn = sketch(cluster)
    places = layout(cluster, drawn)
    assert drawn.gpus
    assert_apart(places.server, np.array(places.box) * 0.98)
    assert_apart(places.node, np.full(2, places.side * 0.98))
    with pytest.raises(AssertionError):
        assert_apart(np.zeros((2, 2)), np.ones(2))


def assert_apart(middle: np.ndarray, size: np.ndarray) -> None:
    """Check that boxes of one size do not overlap."""
    for one, other in combinations(middle, 2):
        assert (np.abs(one - other) >= size).any()


@pytest.mark.parametrize("name", [*SHAPES, *LARGE, *NAMED])
def test_lines_stand_for_all_cables_drawn(name: str) -> None:
    """Lines and what is inside a box add up to the cables, where no group is left out."""
    cluster = built(name)
    drawn = sketch(cluster)
    assert drawn.switches.sum() == (drawn.node_of_switch >= 0).sum()
    if any("left out" in note or "are drawn" in note for note in drawn.notes):
        assert drawn.cables.sum() < cluster.cables
        return
    ends = np.stack([cluster.link_src, cluster.link_dst])[:, cluster.link_class >= 2]
    first, second = drawn.node_of_switch[ends - cluster.first_switch]
    assert drawn.cables.sum() == (first != second).sum() // 2
