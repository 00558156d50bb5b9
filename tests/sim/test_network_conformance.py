"""What the engine may expect of a network, whatever its fidelity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from network_runs import NETWORKS, Part, Seen, parts

from sim import AnalyticNetwork, SimulationError
from sim.network import Flows

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.network import Network
    from topologies import Router

JOINING = sorted(set(NETWORKS) - {"analytic"})
"""Networks in which collectives under way disturb each other."""


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> Callable[[Router], Network]:
    """Return the maker of every network."""
    return NETWORKS[request.param]


@pytest.mark.parametrize("name", sorted(NETWORKS))
@given(parts())
@settings(max_examples=15, deadline=None)
def test_laws_hold_whoever_joins(
    ring: Callable[..., Router], name: str, given_parts: list[Part]
) -> None:
    """Delivery, bytes of the routes, whole ns, causality, the bound and capacity."""
    router = ring()
    seen = Seen(NETWORKS[name](router), given_parts)
    bandwidth = router.cluster.bandwidth_Bps
    total = np.zeros(router.cluster.links, dtype=np.int64)
    for collective, arrivals, (flows, starts) in zip(
        seen.collectives, seen.arrivals, given_parts, strict=True
    ):
        routed = router.link_bytes(flows.src, flows.dst, flows.size_bytes)[0]
        assert collective.link_bytes.dtype == np.int64
        assert collective.link_bytes.tolist() == routed.tolist()
        total += routed
        assert sorted(arrivals) == np.unique(flows.dst).tolist()
        assert collective.started_ns == min(starts.values())
        assert collective.ended_ns == max(arrivals.values())
        check_arrivals(router, flows, starts, arrivals)
        bound = float((routed / bandwidth).max()) * 1e9
        assert collective.ended_ns - collective.started_ns >= bound * (1 - 1e-9) - 1e-6
    check_usage(seen, total * 1e9 / bandwidth)


def check_arrivals(
    router: Router, flows: Flows, starts: dict[int, int], arrivals: dict[int, int]
) -> None:
    """Nothing arrives before it can: its sender's start, its narrowest link, its latency."""
    remote = flows.src != flows.dst
    paths = router.link_usage(flows.src, flows.dst)
    late = router.path_latency(flows.src, flows.dst) * 1e9
    for flow in range(len(flows)):
        earliest = float(starts[int(flows.src[flow])])
        if remote[flow]:
            links = paths.link[paths.indptr[flow] : paths.indptr[flow + 1]]
            narrowest = float(router.cluster.bandwidth_Bps[links].min())
            earliest += int(flows.size_bytes[flow]) * 1e9 / narrowest + late[flow]
        arrival = arrivals[int(flows.dst[flow])]
        assert isinstance(arrival, int)
        assert arrival >= earliest - 1e-6


def check_usage(seen: Seen, needed_ns: np.ndarray) -> None:  # type: ignore[type-arg]
    """Links were busy as long as their bytes need, at most all the time and every bin."""
    usage = seen.usage
    slack = 1e-6 * usage.chunks if usage.chunks is not None else 1e-6
    assert (usage.busy_ns >= needed_ns * (1 - 1e-9) - slack).all()
    assert usage.busy_bins_ns.sum(axis=1) == pytest.approx(usage.busy_ns, rel=1e-9, abs=1e-6)
    ended = max(each.ended_ns or 0 for each in seen.collectives)
    begun = min(each.started_ns or 0 for each in seen.collectives)
    if type(seen.session).__name__ != "AnalyticSession":  # its collectives overlap freely
        assert (usage.busy_bins_ns <= usage.bin_ns * (1 + 1e-9)).all()
        assert (usage.busy_ns <= (ended - begun) * (1 + 1e-9) + 1e-6).all()


@pytest.mark.parametrize("name", sorted(NETWORKS))
@given(given_parts=parts())
@settings(max_examples=5, deadline=None)
def test_the_same_run_twice(
    ring: Callable[..., Router], name: str, given_parts: list[Part]
) -> None:
    """Runs are deterministic to the last bit."""
    first, second = (Seen(NETWORKS[name](ring()), given_parts).books() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", JOINING)
def test_what_joins_in_flight_slows_what_runs(switch: Callable[..., Router], name: str) -> None:
    """A second collective through the same NIC delays the first, by its bytes at most."""
    first = (Flows([0], [2], [100], 4096), {0: 0})
    second = (Flows([1], [2], [100], 4096), {1: 50_000})
    make = NETWORKS[name]
    alone = Seen(make(switch(3, 1e9, 0.0)), [first]).collectives[0].ended_ns
    both = Seen(make(switch(3, 1e9, 0.0)), [first, second])
    ends = [each.ended_ns for each in both.collectives]
    assert alone is not None
    assert ends[0] is not None
    assert ends[0] > alone * 1.5
    # 819,200 B into GPU 2 at 1 B/ns, without a pause (but for one chunk on the way in).
    assert 819_200 <= max(end or 0 for end in ends) <= 819_200 + 2 * 4096


def test_analytic_runs_collectives_in_turn(switch: Callable[..., Router]) -> None:
    """Collectives that need the same links move one after the other, in order of their start."""
    first = (Flows([0], [2], [100], 4096), {0: 0})
    second = (Flows([1], [2], [100], 4096), {1: 50_000})
    seen = Seen(AnalyticNetwork(switch(3, 1e9, 0.0)), [first, second])
    assert [each.ended_ns for each in seen.collectives] == [409_600, 819_200]


def test_self_messages_take_no_time_and_no_link(
    ring: Callable[..., Router], network: Callable[[Router], Network]
) -> None:
    """A GPU's messages to itself are in when it sends; they join others of the same inbox."""
    flows = Flows([0, 3, 3, 5], [0, 3, 5, 5], [2, 1, 1, 1], 1000)
    seen = Seen(network(ring()), [(flows, {0: 10, 3: 20, 5: 900_000})])
    assert (seen.arrivals[0][0], seen.arrivals[0][3]) == (10, 20)
    # GPU 3's message is in long before GPU 5 sends to itself; analytic waits for all senders.
    assert seen.arrivals[0][5] == 900_000 or type(seen.session).__name__ == "AnalyticSession"
    assert seen.collectives[0].link_bytes.sum() == 3 * 1000


def test_a_collective_without_links(
    ring: Callable[..., Router], network: Callable[[Router], Network]
) -> None:
    """All messages local: it ends when the last GPU sends."""
    seen = Seen(network(ring()), [(Flows([1, 2], [1, 2], [5, 5], 100), {1: 7, 2: 9})])
    assert (seen.collectives[0].started_ns, seen.collectives[0].ended_ns) == (7, 9)
    assert not seen.usage.busy_ns.any()


def test_the_smallest_message(
    switch: Callable[..., Router], network: Callable[[Router], Network]
) -> None:
    """One byte takes time, in whole ns; none at all is refused when flows are made."""
    seen = Seen(network(switch(2, 3e9, 0.0)), [(Flows([0], [1], [1], 1), {0: 0})])
    assert 1 <= (seen.collectives[0].ended_ns or 0) <= 2
    with pytest.raises(SimulationError, match="must be 1 or more"):
        Flows([0], [1], [1], 0)


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


@pytest.mark.parametrize("bytes_each", [1, 1000, 100_000])
def test_events_do_not_grow_with_messages(
    switch: Callable[..., Router], network: Callable[[Router], Network], bytes_each: int
) -> None:
    """SimPy sees a few events per receiving GPU, however much is sent."""
    src, dst = np.divmod(np.arange(64), 8)
    env = CountingEnvironment()
    collective = (
        network(switch(8, 1e9, 0.0))
        .open(env)
        .collective(Flows(src, dst, np.full(64, 1 + bytes_each // 1000), bytes_each))
    )
    for gpu in range(8):
        collective.send(gpu)
    env.run()
    assert collective.ended_ns is not None
    assert env.scheduled <= 6 * 8


class CountingEnvironment(simpy.Environment):
    """An environment that counts what is scheduled."""

    scheduled = 0

    def schedule(self, *args: Any, **options: Any) -> None:
        """Count and schedule."""
        self.scheduled += 1
        super().schedule(*args, **options)
