"""Max-min rates against published figures, a slow twin in fractions, and certificates."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import SimulationError
from sim.network import max_min_rates
from topologies import FatTree, Router, ServerLinks, from_links

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Cluster


@pytest.fixture(scope="module")
def twin() -> Any:
    """Return the module of oracles that stands beside this one."""
    spec = importlib.util.spec_from_file_location("twin", Path(__file__).with_name("fluid_twin.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rates(uses: list[dict[int, Any]], capacity: list[Any]) -> list[float]:
    """Rates of flows given as {link: fraction}."""
    indptr = np.cumsum([0] + [len(use) for use in uses])
    link = [each for use in uses for each in use]
    fraction = [float(each) for use in uses for each in use.values()]
    found = max_min_rates(indptr, link, fraction, capacity=[float(each) for each in capacity])
    return [float(rate) for rate in found]


def whole(*paths: tuple[int, ...]) -> list[dict[int, Any]]:
    """Flows with a single path each."""
    return [dict.fromkeys(path, 1) for path in paths]


@pytest.mark.parametrize(
    ("paths", "capacity", "expected"),
    [
        # FACTS section 2: an n-link parking lot, one flow over all links and one on each.
        ([(0, 1, 2, 3, 4), (0,), (1,), (2,), (3,), (4,)], [1] * 5, [0.5] * 6),
        ([(0, 1), (0,), (1, 2), (2,)], [1, 1, 2], [0.5, 0.5, 0.5, 1.5]),
        ([(0,), (0, 1), (1,), (1, 2), (2,)], [1, 2, 1], [0.5, 0.5, 1, 0.5, 0.5]),
        # Senders' NICs of 1, 10, 10 into one of 12: 1, then (12 - 1) / 2 each.
        ([(0, 3), (1, 3), (2, 3)], [1, 10, 10, 12], [1, 5.5, 5.5]),
        # 4 -> 1 incast, and a victim that shares the NIC of sender 0 on its way elsewhere.
        ([(0, 4), (1, 4), (2, 4), (3, 4), (0, 5)], [4] * 6, [1, 1, 1, 1, 3]),
    ],
)
def test_published_rates(
    paths: list[tuple[int, ...]], capacity: list[float], expected: list[float]
) -> None:
    """The exact figures of FACTS section 2."""
    assert rates(whole(*paths), capacity) == pytest.approx(expected, rel=1e-12)


def test_a_split_flow_takes_its_fractions() -> None:
    """Rate r over a fraction 1/4 takes r/4: the flow that shares that link gets the rest."""
    # Flow 0 sends 1/4 over link 0 and 3/4 over link 1, flow 1 all over link 1 (capacity 1 each).
    # Link 1 fills at r (3/4 + 1) = 1: both 4/7.
    uses = [{0: 0.25, 1: 0.75}, {1: 1.0}]
    assert rates(uses, [1, 1]) == pytest.approx([4 / 7, 4 / 7], rel=1e-12)
    # With link 0 of 1/14 flow 0 stops at 2/7, and flow 1 gets 1 - 3/4 * 2/7 = 11/14.
    assert rates(uses, [1 / 14, 1]) == pytest.approx([2 / 7, 11 / 14], rel=1e-12)


FRACTIONS = [Fraction(1), Fraction(1), Fraction(1, 2), Fraction(1, 3), Fraction(2, 3)]


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[dict[int, Fraction]], list[Fraction]]:
    """Up to 12 flows over up to 8 links; links often alike, so that levels tie."""
    count = draw(st.integers(1, 8))
    capacity = draw(st.lists(st.integers(1, 6), min_size=count, max_size=count))
    link = st.integers(0, count - 1)
    use = st.dictionaries(link, st.sampled_from(FRACTIONS), min_size=1, max_size=5)
    alike = draw(st.lists(use, min_size=1, max_size=6))
    uses = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=12))
    return uses, [Fraction(each) for each in capacity]


@given(networks())
@settings(max_examples=300, deadline=None)
def test_kernel_agrees_with_its_twin(
    twin: Any, network: tuple[list[dict[int, Fraction]], list[Fraction]]
) -> None:
    """The same rates as filling in exact fractions, and a certificate for each."""
    uses, capacity = network
    found = rates(uses, capacity)
    assert found == pytest.approx([float(each) for each in twin.twin_rates(*network)], rel=1e-9)
    assert twin.uncertified(uses, capacity, found) is None


def test_the_certificate_notices_wrong_rates(twin: Any) -> None:
    """Too fast, too slow and unfair are told apart."""
    uses, capacity = whole((0, 1), (0,), (1, 2), (2,)), [1, 1, 2]
    good = [0.5, 0.5, 0.5, 1.5]
    assert twin.uncertified(uses, capacity, good) is None
    assert "link 2 carries" in twin.uncertified(uses, capacity, [0.5, 0.5, 0.5, 1.6])
    assert "flow 3 could go faster" in twin.uncertified(uses, capacity, [0.5, 0.5, 0.5, 1.4])
    # A link full of unequal flows: the slower one has a claim on the faster one's part.
    assert "flow 1 could go faster" in twin.uncertified(uses, capacity, [0.6, 0.4, 0.4, 1.6])


def test_the_twin_notices_a_wrong_filling(twin: Any) -> None:
    """Rates of plain equal division are not those of the twin."""
    uses, capacity = whole((0, 1), (0,), (1, 2), (2,)), [Fraction(1), Fraction(1), Fraction(2)]
    divided = [min(capacity[link] / 2 for link in use) for use in uses]
    assert twin.twin_rates(uses, capacity) != divided


def fat_tree(k: int) -> Cluster:
    """Build a k-ary fat-tree of one-GPU servers at 1 byte a second."""
    return FatTree(
        gpus_per_server=1,
        host_bandwidth_Bps=1.0,
        host_latency_s=0.0,
        leaves_per_pod=k // 2,
        servers_per_leaf=k // 2,
        aggregations_per_pod=k // 2,
        pods=k,
        cores_per_aggregation=k // 2,
        cable_latency_s=0.0,
    ).build()


@pytest.mark.parametrize(
    ("k", "runs", "expected", "tolerance"), [(8, 30, 0.475, 0.02), (16, 6, 0.429, 0.006)]
)
def test_hashed_permutations_collide(k: int, runs: int, expected: float, tolerance: float) -> None:
    """Permutation traffic under ECMP by flow hash: the mean rates of FACTS section 2."""
    cluster = fat_tree(k)
    rng = np.random.default_rng(5)
    means = []
    for seed in range(runs):
        shift = rng.permutation(cluster.gpus)
        dst = np.empty_like(shift)
        dst[shift] = np.roll(shift, 1)  # a cycle through all: nobody sends to itself
        usage = Router(cluster, "hash", seed=seed).link_usage(np.arange(cluster.gpus), dst)
        found = max_min_rates(
            usage.indptr, usage.link, usage.fraction, capacity=cluster.bandwidth_Bps
        )
        means.append(found.mean())
    assert np.mean(means) == pytest.approx(expected, abs=tolerance)


def test_shares_of_a_permutation_do_not_collide() -> None:
    """Split equally, a permutation runs at the full host rate."""
    cluster = fat_tree(8)
    gpus = np.arange(cluster.gpus)
    usage = Router(cluster, "shares").link_usage(gpus, np.roll(gpus, 17))
    found = max_min_rates(usage.indptr, usage.link, usage.fraction, capacity=cluster.bandwidth_Bps)
    assert found == pytest.approx(np.ones(cluster.gpus), rel=1e-12)


def test_ring_of_five_shares() -> None:
    """Utilisation of the ring of 5 plus a chord, from the fractions the rates are made of."""
    # FACTS section 2: demands 0->1 20, 1->0 30, 0->2 40, 1->4 70 over links of 100.
    servers = ServerLinks(gpus_per_server=1, host_bandwidth_Bps=1e6, host_latency_s=0.0)
    cluster = from_links(
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)],
        leaf_of_gpu=range(5),
        servers=servers,
        bandwidth_Bps=100.0,
        latency_s=0.0,
    )
    usage = Router(cluster, "shares").link_usage([0, 1, 0, 1], [1, 0, 2, 4])
    demand = np.repeat([20.0, 30.0, 40.0, 70.0], np.diff(usage.indptr))
    load = np.bincount(usage.link, demand * usage.fraction, cluster.links) / 100
    first = cluster.first_switch
    ends = zip(
        (cluster.link_src - first).tolist(), (cluster.link_dst - first).tolist(), strict=True
    )
    found = dict(zip(ends, load.tolist(), strict=True))
    expected = {(0, 1): 0.60, (1, 0): 0.65, (1, 2): 0.40, (0, 4): 0.35, (3, 4): 0.35}
    assert {pair: found[pair] for pair in expected} == pytest.approx(expected, rel=1e-12)
    # Max-min: (1, 0) is shared by 1->0 (all) and 1->4 (half): it fills at 200/3.
    rate = max_min_rates(usage.indptr, usage.link, usage.fraction, capacity=cluster.bandwidth_Bps)
    assert rate[[1, 3]] == pytest.approx([200 / 3, 200 / 3], rel=1e-12)


@pytest.mark.parametrize(
    ("uses", "capacity", "message"),
    [
        ([{}, {0: 1.0}], [1.0], "flow 0 crosses no link"),
        ([{0: 0.0}], [1.0], "fractions must be positive"),
        ([{0: 1.0}], [0.0], "capacities must be positive"),
    ],
)
def test_bad_flows_are_refused(
    uses: list[dict[int, float]], capacity: list[float], message: str
) -> None:
    """One line says what is wrong with them."""
    with pytest.raises(SimulationError, match=message):
        rates(uses, capacity)


def test_rates_do_not_depend_on_bundling(ring: Callable[..., Router]) -> None:
    """Rows that are no paths, listed in any order, give the same rates."""
    router = ring("shares")
    src, dst = np.divmod(np.arange(100), 10)
    other = src != dst
    usage = router.link_usage(src[other], dst[other])
    capacity = router.cluster.bandwidth_Bps
    sorted_link, sorted_part = usage.link.copy(), usage.fraction.copy()
    for begin, end in zip(usage.indptr[:-1], usage.indptr[1:], strict=True):
        order = np.argsort(usage.fraction[begin:end], kind="stable")
        sorted_link[begin:end] = usage.link[begin:end][order]
        sorted_part[begin:end] = usage.fraction[begin:end][order]
    once = max_min_rates(usage.indptr, usage.link, usage.fraction, capacity=capacity)
    again = max_min_rates(usage.indptr, sorted_link, sorted_part, capacity=capacity)
    assert again == pytest.approx(once, rel=1e-12)
