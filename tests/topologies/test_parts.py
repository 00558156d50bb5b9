"""Parts by name: rates against the vendors' figures, and where a name may stand."""

from __future__ import annotations

from typing import Any

import pytest

from topologies import PARTS, ClusterSpec, LinkClass, TopologyError, dragonfly, fat_tree, torus

TREE = {"leaves_per_pod": 2, "servers_per_leaf": 1, "aggregations_per_pod": 2}


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        # NVLink is quoted in GB/s both ways, networks in Gb/s one way.
        ("nvlink4", 900e9 / 2),
        ("nvlink4-h800", 400e9 / 2),
        ("nvlink5", 1800e9 / 2),
        ("ndr", 400e9 / 8),
        ("xdr", 800e9 / 8),
        ("400gbe", 400e9 / 8),
        ("800gbe", 800e9 / 8),
    ],
)
def test_rates_are_the_vendors(name: str, quoted: float) -> None:
    """Bandwidth is bytes per second in one direction."""
    assert PARTS[name].bandwidth_Bps == quoted
    assert PARTS[name].source
    assert PARTS[name].name == name


def test_latencies_add_up_to_the_published_ones() -> None:
    """Small messages: NVLink 3.33 us; 2.8 and 3.7 us on InfiniBand, 3.6 and 5.6 us on RoCE."""
    ndr, roce = PARTS["ndr"], PARTS["400gbe"]
    assert 2 * PARTS["nvlink4"].latency_s == pytest.approx(3.33e-6, rel=1e-12)
    for part, same, across in ((ndr, 2.8e-6, 3.7e-6), (roce, 3.6e-6, 5.6e-6)):
        assert 2 * part.latency_s == pytest.approx(same, rel=1e-12)
        whole = part.latency_s + (part.cable_latency_s or 0)
        assert 2 * whole == pytest.approx(across, rel=1e-12)


def test_a_name_stands_for_its_numbers() -> None:
    """`host` and `nvlink` set rate and latency, `cable` on a tree the latency alone."""
    named = ClusterSpec(
        "fat-tree", {**TREE, "host": "400gbe", "nvlink": "nvlink5", "cable": "400gbe"}
    )
    numbers = {
        "host_bandwidth_Bps": 50e9,
        "host_latency_s": 1.8e-6,
        "nvlink_bandwidth_Bps": 900e9,
        "nvlink_latency_s": 1.665e-6,
        "cable_latency_s": 1e-6,
    }
    assert named == ClusterSpec("fat-tree", {**TREE, **numbers})


def test_a_number_beside_a_name_stands() -> None:
    """What is measured replaces what is known of the part."""
    spec = ClusterSpec("fat-tree", {**TREE, "host": "xdr", "host_latency_s": 1e-6})
    assert spec.parameters["host_bandwidth_Bps"] == 100e9
    assert spec.parameters["host_latency_s"] == 1e-6


def test_cables_of_direct_networks_have_the_part_s_width() -> None:
    """On tori and dragonflies `cable` is one cable of the part, by default a lane per card."""
    for build, shape in (
        (torus, {"dims": [3, 3]}),
        (dragonfly, {"a": 2, "p": 1, "h": 1, "groups": 3}),
    ):
        for more, width in (({}, 8 * 50e9), ({"cable": "xdr"}, 100e9)):
            cluster = build(**shape, **more)
            between = cluster.link_class >= LinkClass.LOCAL
            assert set(cluster.bandwidth_Bps[between].tolist()) == {width}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("host", "ndr2", "host is 'ndr2'; allowed: hdr, ndr, xdr, 200gbe, 400gbe, 800gbe"),
        ("host", "nvlink5", "host is 'nvlink5'; allowed: hdr"),
        ("nvlink", "xdr", "nvlink is 'xdr'; allowed: nvlink3, nvlink4, nvlink4-h800, nvlink5"),
        ("cable", 3, "cable is 3; allowed"),
        ("cable", ["ndr"], "cable is \\['ndr'\\]; allowed"),
    ],
)
def test_refused_parts(place: str, value: Any, message: str) -> None:
    """An unknown part, and one of another kind, is answered with those that fit."""
    with pytest.raises(TopologyError, match=f"fat-tree: {message}"):
        fat_tree(**TREE, **{place: value})
