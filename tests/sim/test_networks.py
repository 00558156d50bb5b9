"""What all networks have in common, and how they compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import AnalyticNetwork, FluidNetwork, PacketNetwork, SimulationError
from sim.network import Collective, Flows, IssueOrder, Network
from sim.network.usage import TimeBins

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Router

NETWORKS = [AnalyticNetwork, FluidNetwork, PacketNetwork]


@st.composite
def flow_sets(draw: st.DrawFn) -> Flows:
    """Messages between the ring's 10 GPUs, to themselves too."""
    pair = st.tuples(st.integers(0, 9), st.integers(0, 9))
    pairs = draw(st.lists(pair, min_size=1, max_size=30, unique=True))
    src, dst = zip(*pairs, strict=True)
    count = draw(st.lists(st.integers(1, 5), min_size=len(pairs), max_size=len(pairs)))
    return Flows(src, dst, count, draw(st.integers(1, 20_000)))


def run(network: Network, flows: Flows) -> tuple[Collective, Any]:
    """Send everything at time 0."""
    env = simpy.Environment()
    session = network.open(env)
    collective = session.collective(flows)
    for gpu in np.unique(flows.src).tolist():
        collective.send(gpu)
    env.run()
    return collective, session.usage()


@given(flow_sets(), st.sampled_from(list(IssueOrder)))
@settings(max_examples=60, deadline=None)
def test_packet_carries_the_same_bytes_and_is_never_below_the_bound(
    ring: Callable[..., Router], flows: Flows, order: IssueOrder
) -> None:
    """Integer link bytes agree to the last byte; the busiest link bounds every network."""
    router = ring()
    analytic, _ = run(AnalyticNetwork(router), flows)
    packet, _ = run(PacketNetwork(router, order=order), flows)
    assert analytic.link_bytes.dtype == packet.link_bytes.dtype == np.int64
    assert analytic.link_bytes.tolist() == packet.link_bytes.tolist()
    bound = (packet.link_bytes / router.cluster.bandwidth_Bps).max() * 1e9
    assert packet.ended_ns is not None
    assert analytic.ended_ns is not None
    assert packet.ended_ns >= bound - 1e-6
    assert analytic.ended_ns >= bound - 1e-6


@given(flow_sets())
@settings(max_examples=30, deadline=None)
def test_packet_alone_on_its_way_takes_the_sum_of_its_links(
    ring: Callable[..., Router], flows: Flows
) -> None:
    """A single message as one chunk takes service and latency of each link in turn."""
    router = ring()
    remote = np.flatnonzero(flows.src != flows.dst)[:1]
    if remote.size:
        size = flows.message_bytes
        one = Flows(flows.src[remote], flows.dst[remote], [1], size)
        links = router.paths(one.src, one.dst).links
        service = np.ceil(size * 1e9 / router.cluster.bandwidth_Bps[links] - 1e-6)
        latency = np.ceil(router.cluster.latency_s[links] * 1e9 - 1e-6)
        packet, _ = run(PacketNetwork(router, chunk_bytes=size), one)
        assert packet.ended_ns == (service + latency).sum()


@pytest.mark.parametrize("network", NETWORKS)
def test_local_messages_are_in_when_the_gpu_sends(
    ring: Callable[..., Router], network: Callable[[Router], Network]
) -> None:
    """A GPU's messages to itself cross no link and take no time."""
    env = simpy.Environment()
    session = network(ring()).open(env)
    collective = session.collective(Flows([0, 3, 3], [0, 3, 5], [2, 1, 1], 1000))
    seen: dict[int, int] = {}

    def watch(gpu: int) -> Any:
        yield collective.arrived(gpu)
        seen[gpu] = int(env.now)

    def send() -> Any:
        yield env.timeout(10)
        collective.send(0)
        yield env.timeout(10)
        collective.send(3)

    for gpu in (0, 3, 5):
        env.process(watch(gpu))
    env.process(send())
    env.run()
    assert (seen[0], seen[3]) == (10, 20)
    assert seen[5] > 20
    assert (collective.started_ns, collective.ended_ns) == (10, seen[5])
    # GPU 3 to 5: up, from leaf 1 to leaf 2, down.
    assert collective.link_bytes.sum() == 3 * 1000


@pytest.mark.parametrize("network", NETWORKS)
def test_all_local_collective_ends_when_the_last_gpu_sends(
    ring: Callable[..., Router], network: Callable[[Router], Network]
) -> None:
    """Without a message over a link there is nothing to wait for."""
    collective, usage = run(network(ring()), Flows([1, 2], [1, 2], [5, 5], 100))
    assert collective.ended_ns == 0
    assert not usage.busy_ns.any()


@pytest.mark.parametrize("network", NETWORKS)
def test_misuse_is_refused(
    ring: Callable[..., Router], network: Callable[[Router], Network]
) -> None:
    """Sending twice, sending nothing and waiting for nothing are errors."""
    collective = network(ring()).open(simpy.Environment()).collective(Flows([0], [4], [1], 10))
    collective.send(0)
    for gpu in (0, 1):
        with pytest.raises(SimulationError, match=f"GPU {gpu} has nothing to send, or has sent"):
            collective.send(gpu)
    with pytest.raises(SimulationError, match="nothing is addressed to GPU 0"):
        collective.arrived(0)


def test_analytic_waits_for_the_last_sender(switch: Callable[..., Router]) -> None:
    """Busiest link plus latency, counted from the last sender's start."""
    env = simpy.Environment()
    collective = (
        AnalyticNetwork(switch(3, 1e9, 50e-9))
        .open(env)
        .collective(Flows([0, 1], [2, 2], [1, 2], 1000))
    )

    def send() -> Any:
        collective.send(0)
        yield env.timeout(700)
        collective.send(1)

    env.process(send())
    env.run()
    # 700, then 3000 B into GPU 2 at 1 GB/s, then 2 * 50 ns.
    assert collective.ended_ns == 700 + 3000 + 100


def test_analytic_serves_split_routes(ring: Callable[..., Router]) -> None:
    """Under shares bytes are float64 and hops are kept: the same sum over network links."""
    flows = Flows([0, 2, 4], [6, 8, 0], [3, 1, 2], 1001)
    router = ring("shares")
    collective, _ = run(AnalyticNetwork(router), flows)
    hops = int((router.hops(flows.src, flows.dst) * flows.size_bytes).sum())
    assert collective.link_bytes.dtype == np.float64
    assert collective.link_bytes.sum() == pytest.approx(hops, rel=1e-12)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**5), st.floats(0, 1)), max_size=20)
)
@settings(deadline=None)
def test_time_bins_keep_all_busy_time(spans: list[tuple[int, int, float]]) -> None:
    """However often bins double, busy time is neither lost nor squeezed beyond a bin."""
    bins, total, now = TimeBins(1, 8), 0.0, 0
    for gap, length, share in spans:
        now += gap
        bins.add(now, now + length, np.array([share * length]))
        now += length
        total += share * length
    busy = bins.busy_ns()
    assert busy.sum() == pytest.approx(total, rel=1e-9)
    assert (busy <= bins.width_ns * (1 + 1e-9)).all()
    assert now <= 8 * bins.width_ns


@pytest.mark.parametrize(
    ("flows", "message"),
    [
        (([0, 1], [1], [1], 5), "2 sources, 1 destinations and 1 counts"),
        (([0], [1], [0], 5), "must be 1 or more"),
        (([0], [1], [1], 0), "must be 1 or more"),
        (([], [], [], 5), "there are none"),
        (([0], [1], [2**40], 2**20), r"more than 2\*\*53 bytes"),
    ],
)
def test_bad_flows_are_refused(flows: Any, message: str) -> None:
    """One line says what is wrong with them."""
    with pytest.raises(SimulationError, match=message):
        Flows(*flows)


def test_kernel_state_is_reused(ring: Callable[..., Router]) -> None:
    """A hundred collectives one after another need the room of one."""
    env = simpy.Environment()
    session = PacketNetwork(ring()).open(env)
    sizes = set()
    for _ in range(100):
        collective = session.collective(Flows([0, 2], [7, 9], [3, 3], 5000))
        collective.send(0)
        collective.send(2)
        env.run()
        sizes.add((len(session._state.flows), len(session._state.link_bytes)))
    assert sizes == {(2, 1)}
    # Twice 3 messages of 2 chunks in each of 100 collectives, over the links of their paths.
    hops = ring().paths([0, 2], [7, 9]).links.size
    assert session.crossings == 100 * 6 * hops
