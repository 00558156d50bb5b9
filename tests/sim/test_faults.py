"""Faults on every network: nothing is lost or counted twice, no link above its capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_runs import NETWORKS, Part, Seen, parts

from sim import (
    AnalyticNetwork,
    ConstantCompute,
    FluidNetwork,
    LawViolation,
    MessageSizes,
    PacketNetwork,
    SimulationError,
    simulate,
)
from sim.faults import Fault, FaultSchedule
from sim.link_names import link_number, node_name
from sim.network import Flows
from sim.network.condition import check_phases
from sim.network.usage import Phase
from topologies import Router, ServerLinks, dragonfly, from_links

if TYPE_CHECKING:
    from collections.abc import Callable


CABLES = range(40, 52)
"""The ring fixture's links between switches."""


def link_fault(at_ns: int, link: int, speed: float) -> Fault:
    """Return a fault of a link at so many ns."""
    return Fault(at_ns * 1e-9, "link", link, speed)


@st.composite
def schedules(draw: st.DrawFn) -> FaultSchedule:
    """Up to six changes; a link dies, slows or comes back."""
    times = sorted(draw(st.lists(st.integers(0, 60_000), min_size=1, max_size=6)))
    faults = []
    for at in times:
        link = draw(st.integers(0, 51))
        speeds = [0.25, 0.6, 1.0] + ([0.0, 0.0] if link in CABLES else [])
        faults.append(link_fault(at, link, draw(st.sampled_from(speeds))))
    return FaultSchedule(tuple(faults))


def check_conservation(router: Router, flows: Flows, link_bytes: Any) -> None:
    """A GPU sends and receives its bytes; whatever enters a switch leaves it."""
    cluster = router.cluster
    remote = flows.src != flows.dst
    size = flows.size_bytes[remote]
    balance = np.zeros(cluster.nodes)
    np.add.at(balance, flows.src[remote], size)
    np.add.at(balance, flows.dst[remote], -size)
    np.add.at(balance, cluster.link_src, -link_bytes)
    np.add.at(balance, cluster.link_dst, link_bytes)
    assert balance == pytest.approx(np.zeros(cluster.nodes), abs=1e-3)
    into = link_bytes[cluster.nic_down] + link_bytes[cluster.nvlink_down]
    expected = np.bincount(flows.dst[remote], size, cluster.gpus)
    assert into == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rule", ["hash", "minimal", "shares"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
@given(given_parts=parts(), schedule=schedules())
@settings(max_examples=12, deadline=None)
def test_random_faults_violate_no_law(
    ring: Callable[..., Router],
    name: str,
    rule: str,
    given_parts: list[Part],
    schedule: FaultSchedule,
) -> None:
    """Delivered in full, conserved at every node, and within the capacity of the moment."""
    if rule == "shares" and name.startswith("packet"):
        return
    router = ring(rule)
    try:
        seen = Seen(NETWORKS[name](router), given_parts, schedule)
    except SimulationError as error:
        assert "partition: no path" in str(error)  # noqa: PT017  a run may stop for this alone
        return
    for collective, arrivals, (flows, starts) in zip(
        seen.collectives, seen.arrivals, given_parts, strict=True
    ):
        assert sorted(arrivals) == np.unique(flows.dst).tolist()
        assert collective.ended_ns == max(arrivals.values())
        assert collective.link_bytes.dtype == (np.float64 if rule == "shares" else np.int64)
        check_conservation(router, flows, collective.link_bytes)
        bound = float((collective.link_bytes / router.cluster.bandwidth_Bps).max()) * 1e9
        # From its last sender on at the earliest, where senders do not all start at once.
        assert collective.ended_ns - min(starts.values()) >= bound * (1 - 1e-9) - 1e-3
    total = sum(collective.link_bytes for collective in seen.collectives)
    phases = seen.usage.phases
    # Fluid: the byte that is on its way when a flow turns counts on the new path alone.
    turns = sum(len(flows) for flows, _ in given_parts) * len(schedule.faults)
    slack = turns if name.startswith("fluid") else 1e-2
    assert sum(phase.sent_bytes for phase in phases) == pytest.approx(total, rel=1e-6, abs=slack)
    if name != "analytic":  # its collectives do not see each other
        chunk = {"packet": 4096, "packet-shifted": 1000}.get(name, 0)
        check_phases(phases, router.cluster.bandwidth_Bps, chunk)


@given(given_parts=parts(most=1), schedule=schedules())
@settings(max_examples=40, deadline=None)
def test_analytic_keeps_the_capacity_of_the_moment(
    ring: Callable[..., Router], given_parts: list[Part], schedule: FaultSchedule
) -> None:
    """A collective alone never sends more than links at their speeds can."""
    router = ring()
    try:
        seen = Seen(AnalyticNetwork(router), given_parts, schedule)
    except SimulationError:
        return
    check_phases(seen.usage.phases, router.cluster.bandwidth_Bps, 0)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@given(given_parts=parts())
@settings(max_examples=8, deadline=None)
def test_no_fault_changes_nothing(
    ring: Callable[..., Router], name: str, given_parts: list[Part]
) -> None:
    """An empty schedule, and none, give the same books to the last bit."""
    none = Seen(NETWORKS[name](ring()), given_parts, None)
    empty = Seen(NETWORKS[name](ring()), given_parts, FaultSchedule())
    assert none.books() == empty.books()
    assert empty.usage.phases == ()


def test_no_flow_is_forgotten_when_rates_are_lazy(switch: Callable[..., Router]) -> None:
    """Flows that have ended since the last filling stand before others when links change."""
    src, dst = np.divmod(np.arange(64), 8)
    flows = Flows(src, dst, 1 + (np.arange(64) * 37) % 11, 4096)
    router = switch(8, 1e9, 0.0)
    faults = [link_fault(at, at % 16, 0.5) for at in range(10_000, 200_000, 7_001)]
    for steps in (1, 3, 10, None):
        starts = dict.fromkeys(range(8), 0)
        schedule = FaultSchedule(tuple(faults))
        seen = Seen(FluidNetwork(router, steps=steps), [(flows, starts)], schedule)
        assert sorted(seen.arrivals[0]) == list(range(8))
        sent = sum(phase.sent_bytes for phase in seen.usage.phases)
        assert sent == pytest.approx(seen.collectives[0].link_bytes, rel=1e-9)


TRIANGLE = from_links(  # links 0-2 up, 3-5 down, then 0->1 is 6, 1->0 7, 1->2 8, 2->1 9, ...
    [(0, 1), (1, 2), (2, 0)],
    leaf_of_gpu=[0, 1, 2],
    servers=ServerLinks(gpus_per_server=1, host_bandwidth_Bps=1e9, host_latency_s=0),
    bandwidth_Bps=1e9,
    latency_s=0,
)


@pytest.mark.parametrize("name", ["analytic", "fluid", "fluid-exact"])
def test_bytes_move_on_over_the_other_way(name: str) -> None:
    """40 of 100 kB have crossed when the direct cable dies; the others go around."""
    router = Router(TRIANGLE, "hash")
    schedule = FaultSchedule((link_fault(40_000, 6, 0.0),))
    seen = Seen(NETWORKS[name](router), [(Flows([0], [1], [100], 1000), {0: 0})], schedule)
    # At 1 B/ns all the time: 100 us. 0->1 is link 6; 0->2 is 11, 2->1 is 9.
    assert seen.arrivals[0][1] == 100_000
    carried = seen.collectives[0].link_bytes
    assert carried[[0, 4, 6, 11, 9]].tolist() == [100_000, 100_000, 40_000, 60_000, 60_000]
    assert [phase.sent_bytes[6] for phase in seen.usage.phases] == pytest.approx([40_000, 0])


@pytest.mark.parametrize("name", ["analytic", "fluid", "fluid-exact", "packet"])
def test_a_slow_link_is_slow_while_it_is(name: str) -> None:
    """100 kB at 1 B/ns for 40 us, at a quarter for 40 us, and 50 kB at full speed again."""
    router = Router(TRIANGLE, "hash")
    schedule = FaultSchedule((link_fault(40_000, 0, 0.25), link_fault(80_000, 0, 1.0)))
    network = PacketNetwork(router, chunk_bytes=10) if name == "packet" else NETWORKS[name](router)
    seen = Seen(network, [(Flows([0], [1], [100], 1000), {0: 0})], schedule)
    # 40 + 10 + 50 kB: 130 us; chunks of 10 B need 20 ns more for the two links that follow.
    assert seen.arrivals[0][1] == 130_000 + (20 if name == "packet" else 0)


def test_a_chunk_on_a_dead_link_is_sent_again() -> None:
    """1000 B on 0->1 from 1000 to 2000 ns; at 1600 it dies: all 1000 again over switch 2."""
    router = Router(TRIANGLE, "hash")
    schedule = FaultSchedule((link_fault(1600, 6, 0.0),))
    seen = Seen(PacketNetwork(router), [(Flows([0], [1], [1], 1000), {0: 0})], schedule)
    # 1600 + 3 links of 1000 ns each.
    assert seen.arrivals[0][1] == 4600
    assert seen.collectives[0].link_bytes[[0, 6, 11, 9, 4]].tolist() == [1000, 0, 1000, 1000, 1000]
    assert seen.usage.resent_bytes is not None
    assert seen.usage.resent_bytes.tolist() == [600 if link == 6 else 0 for link in range(12)]
    assert seen.usage.busy_ns[6] == 600


def test_routes_return_with_the_link() -> None:
    """A collective after the cable is back takes it; one before goes around."""
    router = Router(TRIANGLE, "hash")
    schedule = FaultSchedule((link_fault(0, 6, 0.0), link_fault(500_000, 6, 1.0)))
    for make in (FluidNetwork, AnalyticNetwork, PacketNetwork):
        flows = Flows([0], [1], [10], 1000)
        seen = Seen(make(router), [(flows, {0: 10}), (flows, {0: 600_000})], schedule)
        assert [each.link_bytes[6] for each in seen.collectives] == [0, 10_000]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_partition_stops_with_one_line(name: str) -> None:
    """GPU 1's way in dies: the message names it."""
    router = Router(TRIANGLE, "hash")
    schedule = FaultSchedule((link_fault(10, 4, 0.0),))
    flows = Flows([0, 2, 2], [1, 1, 0], [5, 5, 5], 1000)
    with pytest.raises(
        SimulationError, match=r"partition: .* from GPU 0 to GPU 1; cut off: GPU 1;"
    ):
        Seen(NETWORKS[name](router), [(flows, {0: 0, 2: 0})], schedule)


def test_what_nobody_needs_may_be_cut_off() -> None:
    """A dead GPU link stops no run whose messages do without it."""
    router = Router(TRIANGLE, "hash")
    schedule = FaultSchedule((link_fault(10, 4, 0.0),))
    for make in NETWORKS.values():
        seen = Seen(make(router), [(Flows([0], [2], [5], 1000), {0: 0})], schedule)
        assert list(seen.arrivals[0]) == [2]


def test_phases_are_checked() -> None:
    """The law of the moment fails for a byte on a dead link, and for too many on a slow one."""
    width = np.array([1e9, 1e9])
    for speed, sent in (([0.0, 1.0], [1, 0]), ([0.5, 1.0], [51, 0])):
        phase = Phase(0, 100, np.array(speed), np.array(sent))
        with pytest.raises(LawViolation, match="link 0 sent"):
            check_phases((phase,), width, 0)
    check_phases((Phase(0, 100, np.array([0.5, 1.0]), np.array([50, 100])),), width, 0)


@pytest.mark.parametrize("rule", ["hash", "valiant", "ugal", "shares"])
def test_routes_of_a_dragonfly_avoid_dead_links(rule: str) -> None:
    """Hops are networkx's distances without the dead links (minimal rules); none is crossed."""
    import networkx as nx  # noqa: PLC0415  slow to load

    cluster = dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1)
    fabric = np.flatnonzero(cluster.link_class >= 2)
    dead = np.random.default_rng(3).choice(fabric, 12, replace=False)
    router = Router(cluster, rule).without(dead)
    src, dst = np.divmod(np.arange(72 * 72), 72)
    src, dst = src[src // 2 != dst // 2], dst[src // 2 != dst // 2]
    assert not np.isin(router.link_usage(src, dst).link, dead).any()
    if rule == "hash":
        graph = nx.DiGraph()
        links = np.setdiff1d(np.arange(cluster.links), dead)
        # Fewest global links first, then fewest hops.
        for link in links.tolist():
            weight = 1000 if cluster.link_class[link] == 3 else 1
            graph.add_edge(int(cluster.link_src[link]), int(cluster.link_dst[link]), w=weight)
        lengths = dict(nx.all_pairs_dijkstra_path_length(graph, weight="w"))
        expected = [sum(divmod(lengths[s][d], 1000)) for s, d in zip(src.tolist(), dst.tolist())]  # noqa: B905
        assert router.hops(src, dst).tolist() == expected


def test_schedules_are_checked() -> None:
    """Times ascend and are not negative, speeds and numbers exist: one line each."""
    for make, match in (
        (lambda: Fault(-1e-9, "link", 0, 0.0), "expected a time from 0"),
        (lambda: Fault(float("nan"), "link", 0, 0.0), "expected a time from 0"),
        (lambda: Fault(0.0, "switch", 0, 0.0), "expected link or gpu"),  # type: ignore[arg-type]
        (lambda: Fault(0.0, "link", 0, 1.5), "expected 0"),
        (lambda: Fault(0.0, "gpu", 0, 0.5), "only links slow down"),
        (
            lambda: FaultSchedule((link_fault(5, 0, 0.0), link_fault(4, 0, 1.0))),
            "expected times that ascend",
        ),
        (lambda: FaultSchedule((link_fault(5, 12, 0.0),)).check(TRIANGLE), "expected 0 to 11"),
        (
            lambda: FaultSchedule((Fault(0.0, "gpu", 3, 0.0),)).check(TRIANGLE),
            "gpu 3 does not exist",
        ),
    ):
        with pytest.raises(SimulationError, match=match):
            make()


def test_links_have_names() -> None:
    """By number, by node numbers, by kind of node; what is unknown or ambiguous is refused."""
    assert [link_number(TRIANGLE, each) for each in (6, "6->7", [6, 7], "switch0 -> switch1")] == [
        6, 6, 6, 6,
    ]  # fmt: skip
    assert link_number(TRIANGLE, "gpu2->switch2") == 2
    ends = zip(TRIANGLE.link_src.tolist(), TRIANGLE.link_dst.tolist(), strict=True)
    names = ["->".join(node_name(TRIANGLE, each) for each in pair) for pair in ends]
    assert names[2] == "gpu2->switch2"
    assert [link_number(TRIANGLE, each) for each in names] == list(range(TRIANGLE.links))
    twice = from_links([(0, 1), (0, 1)], leaf_of_gpu=[0, 1])
    for cluster, link, match in (
        (TRIANGLE, 12, "expected 0 to 11"),
        (TRIANGLE, "0->1", "from 0 links lead to switch0"),
        (TRIANGLE, "gpu3->switch0", "no node 'gpu3'"),
        (TRIANGLE, "0", "expected a number"),
        (twice, "switch0->switch1", "2 parallel links; expected a number of 4, 6"),
    ):
        with pytest.raises(SimulationError, match=match):
            link_number(cluster, link)


@pytest.mark.parametrize("name", ["analytic", "fluid", "packet"])
def test_a_step_goes_on_while_links_change(
    ring: Callable[..., Router], inputs: Callable[..., Any], name: str
) -> None:
    """A whole step under faults: later than without, all laws hold, the same bytes delivered."""
    trace, placement, attention = inputs(4)
    kept = {"sizes": MessageSizes(7000, 9000), "compute": ConstantCompute(1e-7)}
    network = NETWORKS[name](ring())
    before = simulate(trace, placement, attention, network=network, **kept)
    at = before.step_ns // 4
    faults = FaultSchedule(
        (link_fault(at, 40, 0.0), link_fault(at + 7, 42, 0.3), link_fault(2 * at, 40, 1.0))
    )
    after = simulate(trace, placement, attention, network=network, faults=faults, **kept)
    assert after.step_ns > before.step_ns
    into = [network.router.cluster.nic_down, network.router.cluster.nvlink_down]
    for each in into:
        assert (after.link_bytes[:, :, each] == before.link_bytes[:, :, each]).all()
    dead = after.usage.phases[1]
    assert (dead.speed[40], dead.sent_bytes[40]) == (0, 0)
    empty = simulate(trace, placement, attention, network=network, faults=FaultSchedule(), **kept)
    assert empty.link_bytes.tolist() == before.link_bytes.tolist()
    assert empty.collective_ns.tolist() == before.collective_ns.tolist()
