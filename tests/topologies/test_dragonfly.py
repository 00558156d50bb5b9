"""Dragonflies: published counts and histograms, arrangements, the sparse ring, refusals."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies import Cluster, Dragonfly, LinkClass, Router, TopologyError, dragonfly

ARRANGEMENTS = ["absolute", "palmtree", "relative"]


def global_cables(cluster: Cluster) -> list[tuple[int, int]]:
    """Return the routers at both ends of every global cable, lower group first."""
    far = np.flatnonzero(cluster.link_class == LinkClass.GLOBAL)[::2]
    ends = np.stack([cluster.link_src[far], cluster.link_dst[far]], axis=1)
    return [(int(a), int(b)) for a, b in ends - cluster.first_switch]


def histogram(cluster: Cluster) -> dict[int, int]:
    """Count ordered pairs of distinct servers by router-to-router hops."""
    distance = Router(cluster).server_distance("router")
    pairs = distance[~np.eye(cluster.servers, dtype=bool)]
    return dict(enumerate(np.bincount(pairs).tolist()))


def test_published_counts() -> None:
    """a=32, p=16, h=16 with 511 groups: 261632 endpoints, 16352 switches, 384272 cables."""
    # DeepSeek-V3 (ISCA'25), table 3, counts every port; 511 groups leave 2 of 512 ports spare.
    cluster = dragonfly(a=32, p=16, h=16, groups=511, gpus_per_server=1)
    assert (cluster.gpus, cluster.switches) == (261632, 16352)
    assert Dragonfly(a=32, p=16, h=16, groups=511).spare_ports == 2
    assert cluster.notes == ("2 spare global ports a group",)
    assert cluster.cables + 511 * 2 // 2 == 384272


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize(
    ("a", "p", "h", "expected", "mean"),
    [
        (4, 2, 2, {0: 72, 1: 720, 2: 1728, 3: 2592}, 166 / 71),
        (6, 3, 3, None, 879 / 341),
    ],
)
def test_histogram_of_router_hops(
    a: int, p: int, h: int, expected: dict[int, int] | None, mean: float, arrangement: str
) -> None:
    """Minimal routes of balanced dragonflies, whatever the arrangement of global links."""
    cluster = dragonfly(a=a, p=p, h=h, groups=a * h + 1, gpus_per_server=1, arrangement=arrangement)
    counts = histogram(cluster)
    assert expected is None or counts == expected
    total = sum(hops * pairs for hops, pairs in counts.items())
    assert total / sum(counts.values()) == pytest.approx(mean, rel=1e-12)


def test_diameter() -> None:
    """(a, p, h) = (4, 2, 2): 9 groups, 72 hosts, 5 links from host to host at most."""
    cluster = dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1)
    assert cluster.gpus == 72
    assert Router(cluster).server_distance("links").max() == 5


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_global_link_per_slot(arrangement: str) -> None:
    """Slot s of group i leads where the arrangement's definition says."""
    a, h, groups = 3, 2, 7
    cluster = dragonfly(a=a, p=1, h=h, groups=groups, arrangement=arrangement)
    expected = Counter()
    for group in range(groups):
        for slot in range(a * h):
            other = {
                "absolute": slot if slot < group else slot + 1,
                "relative": (group + slot + 1) % groups,
                "palmtree": (group - slot - 1) % groups,
            }[arrangement]
            expected[group * a + slot // h, other] += 1
    found = Counter()
    for low, high in global_cables(cluster):
        found[low, high // a] += 1
        found[high, low // a] += 1
    assert found == expected


@given(
    a=st.integers(1, 5),
    h=st.integers(1, 4),
    arrangement=st.sampled_from(ARRANGEMENTS),
    data=st.data(),
)
def test_global_links_are_spread_evenly(
    a: int, h: int, arrangement: str, data: st.DataObject
) -> None:
    """Pairs of groups get equally many links, routers at most h and equally many to within one."""
    groups = data.draw(st.integers(2, a * h + 1))
    cluster = dragonfly(a=a, p=1, h=h, groups=groups, arrangement=arrangement)
    cables = global_cables(cluster)
    pairs = Counter((low // a, high // a) for low, high in cables)
    assert set(pairs.values()) == {a * h // (groups - 1)}
    assert len(pairs) == groups * (groups - 1) // 2
    ports = Counter(router for cable in cables for router in cable)
    per_router = [ports[router] for router in range(cluster.switches)]
    assert max(per_router) <= h
    assert max(per_router) - min(per_router) <= 1
    shape = Dragonfly(a=a, p=1, h=h, groups=groups)
    assert sum(per_router) + groups * shape.spare_ports == groups * a * h


def test_sparse_keeps_the_full_variants_links_to_ring_neighbours() -> None:
    """Reach 2 keeps, of the full dragonfly, the links between groups at most 2 apart."""
    shape: dict[str, Any] = {"a": 4, "p": 1, "h": 2, "groups": 8}
    full, sparse = dragonfly(**shape), dragonfly(**shape, reach=2)
    kept = [
        (low, high)
        for low, high in global_cables(full)
        if min(high // 4 - low // 4, 8 - (high // 4 - low // 4)) <= 2
    ]
    assert global_cables(sparse) == kept
    # 8 ports, 4 neighbours with one link each.
    assert sparse.notes == ("4 spare global ports a group",)


def test_fewest_global_links_first() -> None:
    """Flows between groups cross one global link, though two would sometimes be fewer hops."""
    # local-global-local is 3 hops; global-global over a third group would be 2.
    cluster = dragonfly(a=4, p=1, h=2, groups=9, gpus_per_server=1)
    router = Router(cluster, "hash")
    src, dst = np.divmod(np.arange(36 * 36), 36)
    paths = router.paths(src, dst)
    far = cluster.link_class[paths.links] == LinkClass.GLOBAL
    flow = np.repeat(np.arange(len(src)), np.diff(paths.indptr))
    crossed = np.bincount(flow, far, len(src))
    np.testing.assert_array_equal(crossed, src // 4 != dst // 4)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_next_group_traffic_saturates_minimal_routing(arrangement: str) -> None:
    """All traffic to the next group meets on one link: 1/(a p) of the injection rate."""
    # (4, 2, 2) with 9 groups and links of the host rate: 1/8 = 0.125.
    cluster = dragonfly(
        a=4,
        p=2,
        h=2,
        groups=9,
        gpus_per_server=1,
        local_bandwidth_Bps=50e9,
        global_bandwidth_Bps=50e9,
        arrangement=arrangement,
    )
    src = np.arange(72)
    dst = (src + 8) % 72
    load = Router(cluster).link_bytes(src, dst, np.full(72, 50e9))[0]
    busiest = (load / cluster.bandwidth_Bps).max()
    assert 1 / busiest == 0.125


def test_default_link_rate() -> None:
    """Links between routers carry a host-rate lane for every network card of a server."""
    cluster = dragonfly(a=2, p=1, h=1, groups=3, gpus_per_server=4, host_bandwidth_Bps=5e9)
    between = cluster.link_class >= LinkClass.LOCAL
    assert set(cluster.bandwidth_Bps[between].tolist()) == {20e9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 10}, "groups is 10; expected at most a\\*h \\+ 1 = 9"),
        ({"groups": 1}, "groups is 1; expected a whole number of at least 2"),
        ({"a": 0}, "a is 0"),
        ({"p": "1"}, "p is '1'"),
        ({"h": None}, "h is None"),
        ({"arrangement": "random"}, "'random'; allowed: absolute, palmtree, relative"),
        ({"reach": 4}, "reach is 4, which spans all 9 groups; expected 1 to 3"),
        ({"global_bandwidth_Bps": 0.0}, "global_bandwidth_Bps is 0.0"),
        ({"cable_latency_s": -1e-9}, "cable_latency_s is -1e-09"),
        ({"q": 3}, "unknown parameter 'q'; allowed: gpus_per_server, "),
    ],
)
def test_refused_parameters(change: dict[str, Any], message: str) -> None:
    """Each wrong parameter is refused by name, with what was expected."""
    with pytest.raises(TopologyError, match=message):
        dragonfly(**{"a": 4, "p": 2, "h": 2, "groups": 9, **change})
