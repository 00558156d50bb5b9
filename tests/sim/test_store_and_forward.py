"""The packet network against closed forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy

from sim import LawViolation, PacketNetwork, SimulationError
from sim.network import Flows, mean_queue_wait
from sim.network._arena import Arena
from sim.network._packet_kernel import BACKWARDS, inject

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Router

MIB = 2**20
SERVICE_NS = 19_531
BANDWIDTH = MIB * 1e9 / SERVICE_NS  # a message of 1 MiB takes exactly 19,531 ns
LATENCY = 500e-9


def all_to_all(gpus: int, size: int) -> Flows:
    """One message from every GPU to every other."""
    src, dst = np.divmod(np.arange(gpus * gpus), gpus)
    other = src != dst
    return Flows(src[other], dst[other], np.ones(other.sum()), size)


def run(router: Router, flows: Flows, **options: Any) -> tuple[int, Any]:
    """Send everything at time 0; returns the makespan in ns and the links' books."""
    env = simpy.Environment()
    session = PacketNetwork(router, **options).open(env)
    collective = session.collective(flows)
    for gpu in np.unique(flows.src).tolist():
        collective.send(gpu)
    env.run()
    assert collective.ended_ns is not None
    return collective.ended_ns, session.usage()


def test_one_message_through_a_switch(switch: Callable[..., Router]) -> None:
    """Two services and two latencies (FACTS section 2, store-and-forward FIFO)."""
    # 2 * 19,531 + 2 * 500
    end, _ = run(switch(2, BANDWIDTH, LATENCY), Flows([0], [1], [1], MIB), chunk_bytes=MIB)
    assert end == 40_062


def test_chunks_pipeline_through_a_switch(switch: Callable[..., Router]) -> None:
    """Cut into chunks, a message overlaps its two links but for one chunk."""
    # 4 chunks of 1000 B at 1 GB/s: the last leaves the source at 4000, + 100, + 1000, + 100.
    end, _ = run(switch(2, 1e9, 100e-9), Flows([0], [1], [1], 4000), chunk_bytes=1000)
    assert end == 5200


@pytest.mark.parametrize(
    ("order", "expected"), [("shifted", 1_250_984), ("destination", 2_461_906)]
)
def test_all_to_all_over_a_switch(switch: Callable[..., Router], order: str, expected: int) -> None:
    """The issue order alone doubles the time (FACTS section 2, n = 64)."""
    # shifted: (64 - 2) * 19,531 + 40,062; destination: 2 * 63 * 19,531 + 1,000
    router = switch(64, BANDWIDTH, LATENCY)
    end, _ = run(router, all_to_all(64, MIB), chunk_bytes=MIB, order=order)
    assert end == expected


def test_interleaved_all_to_all_is_near_its_bound(switch: Callable[..., Router]) -> None:
    """Chunk by chunk in turn keeps all links busy: within a chunk's turn of the bound."""
    # 63 messages of 19,531 ns each; then one more chunk and two latencies.
    end, usage = run(switch(64, BANDWIDTH, LATENCY), all_to_all(64, MIB), chunk_bytes=4096)
    chunk_ns = SERVICE_NS / 256
    assert 63 * SERVICE_NS + 1000 < end <= 63 * SERVICE_NS + 1000 + 2 * chunk_ns
    assert usage.busy_ns[:64].tolist() == [63 * SERVICE_NS] * 64
    # a link that pauses is rounded up once more: no more than a ns per busy period
    assert (usage.busy_ns[64:] - 63 * SERVICE_NS).max() < 64


def test_random_order_is_seeded(switch: Callable[..., Router]) -> None:
    """The same seed gives the same run, another seed another one."""
    router, flows = switch(16, BANDWIDTH, LATENCY), all_to_all(16, MIB)
    options = {"chunk_bytes": MIB, "order": "random"}
    first, again, other = (run(router, flows, seed=seed, **options)[0] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("rho", "scatter"), [(0.2, 0.003), (0.5, 0.003), (0.8, 0.008), (0.9, 0.016)]
)
def test_queue_of_poisson_arrivals(rho: float, scatter: float) -> None:
    """M/D/1: the mean wait is rho S / (2 (1 - rho)), and not M/M/1's double (FACTS section 2)."""
    # S, waits: 0.125, 0.5, 2, 4.5; three of the deviations stated for a million arrivals.
    theory = rho / (2 * (1 - rho))
    wait = mean_queue_wait(rho, 1_000_000, np.random.default_rng(7))
    assert wait == pytest.approx(theory, rel=3 * scatter)
    assert wait != pytest.approx(2 * theory, rel=3 * scatter)


@pytest.mark.parametrize(("rho", "scatter"), [(0.5, 0.0054), (0.8, 0.0111)])
def test_queue_of_exponential_sizes(rho: float, scatter: float) -> None:
    """M/M/1: twice the wait of M/D/1, and not the wait of M/D/1."""
    # Deviation of the mean of 1e6 waits: sqrt(rho (2 + 5 rho - 4 rho^2 + rho^3)) / (1 - rho)^2 /
    # 1000 over rho / (1 - rho) (Daley 1968; Whitt 1989).
    theory = rho / (1 - rho)
    wait = mean_queue_wait(rho, 1_000_000, np.random.default_rng(7), exponential=True)
    assert wait == pytest.approx(theory, rel=3 * scatter)
    assert wait != pytest.approx(theory / 2, rel=3 * scatter)


def test_bins_double_and_lose_nothing(switch: Callable[..., Router]) -> None:
    """Utilisation over time stays in its bins however long the run, and adds up."""
    options = {"chunk_bytes": 1000, "bins": 4}
    end, usage = run(switch(3, 1e9, 0.0), Flows([0, 1], [2, 2], [50, 3], 1000), **options)
    # GPU 2 receives 53 messages of 1000 ns after the first has crossed one link.
    assert end == 54_000
    assert usage.busy_bins_ns.shape == (6, 4)
    assert usage.bin_ns == 16_384
    # nic_down of GPU 2 is busy from 1,000 to 54,000 without a pause.
    assert usage.busy_bins_ns[5].tolist() == [15_384, 16_384, 16_384, 4_848]


def test_rounding_does_not_add_up(switch: Callable[..., Router]) -> None:
    """A thousand chunks of 1/3 ns each take 334 ns on a link, not a thousand."""
    end, usage = run(switch(2, 3e9, 0.0), Flows([0], [1], [1000], 1), chunk_bytes=1)
    assert usage.busy_ns[0] == 334  # 1000 / 3, rounded up once
    assert end == 335  # the last one's second link


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_bytes": 0}, "chunk_bytes must be 1 or more, got 0"),
        ({"bins": 3}, "bins must be an even number, got 3"),
        ({"order": "fair"}, "'fair' is not one of interleaved, shifted, destination, random"),
    ],
)
def test_bad_parameters_are_refused(
    switch: Callable[..., Router], options: dict[str, Any], message: str
) -> None:
    """One line says what was expected."""
    with pytest.raises(SimulationError, match=message):
        PacketNetwork(switch(2, 1e9, 0.0), **options)


def test_split_routes_are_refused(switch: Callable[..., Router]) -> None:
    """Packets need one path each; the message names the rules and networks that work."""
    with pytest.raises(SimulationError, match=r"'shares'; use 'hash', or the network 'analytic'"):
        PacketNetwork(switch(2, 1e9, 0.0, "shares"))


def test_links_without_time_are_refused(switch: Callable[..., Router]) -> None:
    """On a link of 1e15 B/s a byte would take no nanosecond."""
    with pytest.raises(SimulationError, match="below 1e"):
        PacketNetwork(switch(2, 1e15, 0.0))


def test_clock_overflow_is_refused(switch: Callable[..., Router]) -> None:
    """A run that could leave int64 nanoseconds is refused before it begins, or when it sends."""
    slow = switch(2, 1.0, 0.0)
    with pytest.raises(SimulationError, match="clock overflow"):
        run(slow, Flows([0], [1], [1], 10**10))
    env = simpy.Environment(initial_time=2**63)
    collective = PacketNetwork(switch(2, 1e9, 0.0)).open(env).collective(Flows([0], [1], [1], 1))
    with pytest.raises(SimulationError, match="clock overflow"):
        collective.send(0)


def test_kernel_refuses_the_past(switch: Callable[..., Router]) -> None:
    """An injection before the kernel's clock is reported, and becomes a violated law."""
    env = simpy.Environment()
    session = PacketNetwork(switch(2, 1e9, 0.0)).open(env)
    collective = session.collective(Flows([0], [1], [1], 1))
    session._state.header["now"] = 5
    assert inject(session._state, 0, 1, 4) == BACKWARDS
    with pytest.raises(LawViolation, match="time goes backwards"):
        collective.send(0)


def test_arena_reuses_room() -> None:
    """Freed places are taken again, first fit, and never overlap others."""
    arena = Arena()
    assert [arena.take(length) for length in (3, 4, 5)] == [0, 3, 7]
    arena.free(3, 4)
    assert arena.take(5) == 12
    assert arena.take(2) == 3
    assert arena.take(2) == 5
