"""The fluid network against closed forms, a slow twin and the packet network."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import AnalyticNetwork, FluidNetwork, LawViolation, PacketNetwork, SimulationError
from sim.network import Flows
from sim.network import run_alone as run
from topologies import FatTree, Router

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.network import Network

LINE_RATE = 12.5e9  # 100 Gb/s
SIZE = 65_536


def all_to_all(gpus: int, size: int = SIZE) -> Flows:
    """One message from every GPU to every other."""
    src, dst = np.divmod(np.arange(gpus * gpus), gpus)
    other = src != dst
    return Flows(src[other], dst[other], np.ones(other.sum()), size)


def fat_tree(k: int, rule: str) -> Router:
    """Route on a k-ary fat-tree of one-GPU servers at 100 Gb/s."""
    shape = {"leaves_per_pod": k // 2, "servers_per_leaf": k // 2, "aggregations_per_pod": k // 2}
    cluster = FatTree(
        gpus_per_server=1,
        host_bandwidth_Bps=LINE_RATE,
        host_latency_s=0.0,
        **shape,
        pods=k,
        cores_per_aggregation=k // 2,
        cable_latency_s=0.0,
    ).build()
    return Router(cluster, rule)


@pytest.mark.parametrize(
    ("gpus", "expected_us", "steps"),
    [(16, 78.643, None), (128, 665.846, None), (128, 665.846, 100), (1024, 5363.466, 100)],
)
def test_all_to_all_over_a_switch(
    switch: Callable[..., Router], gpus: int, expected_us: float, steps: int | None
) -> None:
    """(N - 1) S / B, the figures of FACTS section 2, from one filling."""
    collective, session = run(FluidNetwork(switch(gpus, LINE_RATE, 0.0), steps), all_to_all(gpus))
    exact = (gpus - 1) * SIZE / LINE_RATE * 1e9
    assert exact == pytest.approx(expected_us * 1e3, rel=1e-5)  # the figure has 5 digits or more
    assert collective.delivered_ns == pytest.approx(np.full(len(collective.delivered_ns), exact))
    assert collective.delivered_ns.max() == pytest.approx(exact, rel=1e-9)
    assert session.fillings == 1


def test_all_to_all_on_a_fat_tree_is_not_blocked() -> None:
    """The peers' common job: 128 hosts, k = 8, split equally: as over a switch."""
    collective, session = run(FluidNetwork(fat_tree(8, "shares")), all_to_all(128))
    exact = 127 * SIZE / LINE_RATE * 1e9
    assert collective.delivered_ns.max() == pytest.approx(exact, rel=1e-9)
    assert collective.delivered_ns.min() == pytest.approx(exact, rel=1e-9)
    assert session.fillings == 1


@pytest.mark.parametrize("steps", [None, 100])
def test_all_to_all_on_an_oversubscribed_tree(steps: int | None) -> None:
    """4 leaves x 4 hosts, 2 uplinks: max(N - 1, h (N - h) / u) S / B."""
    # 4 * 12 / 2 = 24 messages on an uplink; inside leaves flows run at B / 6 until they end:
    # a host sends 12 flows at B / 24 out, and has B / 2 for the 3 others: 6 S / B.
    shape = {"leaves_per_pod": 4, "servers_per_leaf": 4, "aggregations_per_pod": 2}
    cluster = FatTree(
        gpus_per_server=1,
        host_bandwidth_Bps=LINE_RATE,
        host_latency_s=0.0,
        **shape,
        oversubscription=2.0,
        cable_latency_s=0.0,
    ).build()
    flows = all_to_all(16)
    collective, _ = run(FluidNetwork(Router(cluster, "shares"), steps), flows)
    inside = flows.src // 4 == flows.dst // 4
    assert inside.sum() == 48
    exact = SIZE / LINE_RATE * 1e9
    assert collective.delivered_ns[inside] == pytest.approx(np.full(48, 6 * exact), rel=1e-9)
    assert collective.delivered_ns[~inside] == pytest.approx(np.full(192, 24 * exact), rel=1e-9)
    assert 6 * exact == pytest.approx(31_457, rel=1e-4)
    assert 24 * exact == pytest.approx(125_829, rel=1e-5)


@pytest.mark.parametrize("senders", [1, 2, 7, 31])
def test_incast_takes_its_bytes(switch: Callable[..., Router], senders: int) -> None:
    """M messages to one GPU: m S / B."""
    flows = Flows(np.arange(senders), np.full(senders, senders), np.ones(senders), SIZE)
    collective, _ = run(FluidNetwork(switch(senders + 1, LINE_RATE, 0.0)), flows)
    assert collective.delivered_ns.max() == pytest.approx(
        senders * SIZE / LINE_RATE * 1e9, rel=1e-9
    )


def test_latency_is_added_to_every_message(switch: Callable[..., Router]) -> None:
    """A message's last byte arrives the latency of its path after it left."""
    # 1000 B at 1 B/ns, 2 links of 50.25 ns: 1100.5 ns; GPUs see it at the next whole ns.
    collective, _ = run(FluidNetwork(switch(2, 1e9, 50.25e-9)), Flows([0], [1], [1], 1000))
    assert collective.delivered_ns.tolist() == pytest.approx([1100.5], rel=1e-12)
    assert collective.ended_ns == 1101


def test_a_victim_of_incast_differs_from_packet(switch: Callable[..., Router]) -> None:
    """4 -> 1 incast with a victim that shares a sender's NIC: rate 3 fluid, 2 in FIFO order."""
    # Capacity 4 B/ns. Fluid: incast flows at 1, the victim at 3 (FACTS section 2). FIFO serves
    # the two flows of sender 0 in turn, so that the victim leaves at 2.
    router = switch(6, 4e9, 0.0)
    flows = Flows([0, 1, 2, 3, 0], [4, 4, 4, 4, 5], [1, 1, 1, 1, 1], 1_200_000)
    fluid, _ = run(FluidNetwork(router, None), flows)
    packet, _ = run(PacketNetwork(router, chunk_bytes=1000), flows)
    assert fluid.delivered_ns[4] == pytest.approx(1_200_000 / 3, rel=1e-9)
    assert packet.delivered_ns[4] == pytest.approx(1_200_000 / 2, rel=0.002)
    # The incast itself takes as long in both: 4 * 1.2 MB at 4 B/ns.
    assert fluid.delivered_ns[:4].max() == pytest.approx(1_200_000, rel=1e-9)
    assert packet.delivered_ns[:4].max() == pytest.approx(1_200_000, rel=0.002)


def test_messages_join_running_ones(switch: Callable[..., Router]) -> None:
    """A later message takes its fair part from then on."""
    # Into GPU 2 at 1 B/ns: 1000 B alone until 400 (600 left), then halves: the second one's
    # 300 B are in at 1000 (300 left of the first), which ends at 1300.
    env = simpy.Environment()
    session = FluidNetwork(switch(3, 1e9, 0.0), None).open(env)
    one = session.collective(Flows([0], [2], [1], 1000))
    two = session.collective(Flows([1], [2], [1], 300))

    def send() -> Any:
        one.send(0)
        yield env.timeout(400)
        two.send(1)

    env.process(send())
    env.run()
    assert two.delivered_ns.tolist() == pytest.approx([1000], rel=1e-9)
    assert one.delivered_ns.tolist() == pytest.approx([1300], rel=1e-9)
    assert (one.started_ns, one.ended_ns, two.started_ns, two.ended_ns) == (0, 1300, 400, 1000)


def test_joining_flows_use_what_is_idle_at_once(switch: Callable[..., Router]) -> None:
    """Under the lazy rule, a flow that disturbs nobody does not wait for a new filling."""
    env = simpy.Environment()
    session = FluidNetwork(switch(4, 1e9, 0.0), 1).open(env)
    one = session.collective(Flows([0], [2], [1], 10_000))
    two = session.collective(Flows([1], [3], [1], 1000))

    def send() -> Any:
        one.send(0)
        yield env.timeout(100)
        two.send(1)

    env.process(send())
    env.run()
    assert two.delivered_ns.tolist() == pytest.approx([1100], rel=1e-12)
    assert one.delivered_ns.tolist() == pytest.approx([10_000], rel=1e-12)


@pytest.fixture(scope="module")
def twin() -> Any:
    """Return the module of oracles that stands beside this one."""
    spec = importlib.util.spec_from_file_location("twin", Path(__file__).with_name("fluid_twin.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@st.composite
def collectives(draw: st.DrawFn) -> list[tuple[Flows, dict[int, int]]]:
    """Up to three collectives between the ring's 10 GPUs, and when every source sends."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        pair = st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] != p[1])
        pairs = draw(st.lists(pair, min_size=1, max_size=6, unique=True))
        src, dst = zip(*pairs, strict=True)
        count = draw(st.lists(st.integers(1, 5), min_size=len(pairs), max_size=len(pairs)))
        starts = {gpu: draw(st.integers(0, 3)) * 1000 for gpu in sorted(set(src))}
        found.append((Flows(src, dst, count, draw(st.integers(1, 5000))), starts))
    return found


@given(collectives(), st.sampled_from(["hash", "shares"]))
@settings(max_examples=40, deadline=None)
def test_exact_rates_agree_with_the_twin(
    ring: Callable[..., Router],
    twin: Any,
    parts: list[tuple[Flows, dict[int, int]]],
    rule: str,
) -> None:
    """Several collectives that join each other end when rates in exact fractions say."""
    router = ring(rule)
    ended = staggered(FluidNetwork(router, None), parts)
    uses, starts, sizes, late = [], [], [], []
    for flows, start in parts:
        usage = router.link_usage(flows.src, flows.dst)
        for flow in range(len(flows)):
            at = slice(usage.indptr[flow], usage.indptr[flow + 1])
            pairs = zip(usage.link[at].tolist(), usage.fraction[at].tolist(), strict=True)
            uses.append({link: Fraction(part).limit_denominator(1000) for link, part in pairs})
            starts.append(start[int(flows.src[flow])])
        sizes += flows.size_bytes.tolist()
        late += (router.path_latency(flows.src, flows.dst) * 1e9).tolist()
    capacity = [
        Fraction(each).limit_denominator(10) / 10**9 for each in router.cluster.bandwidth_Bps
    ]
    expected = [float(end) for end in twin.twin_finishes(uses, capacity, starts, sizes)]
    found = np.concatenate([each.delivered_ns for each in ended]) - late
    assert found == pytest.approx(expected, rel=1e-8)
    wrong = twin.twin_finishes(uses, [2 * each for each in capacity], starts, sizes)
    assert found != pytest.approx([float(end) for end in wrong], rel=1e-8)


def staggered(network: Network, parts: list[tuple[Flows, dict[int, int]]]) -> list[Any]:
    """Run collectives whose sources send at given times."""
    env = simpy.Environment()
    session = network.open(env)
    running = [session.collective(flows) for flows, _ in parts]

    def send(collective: Any, gpu: int, at: int) -> Any:
        yield env.timeout(at)
        collective.send(gpu)

    for collective, (_, starts) in zip(running, parts, strict=True):
        for gpu, at in starts.items():
            env.process(send(collective, gpu, at))
    env.run()
    return running


def skewed(router: Router, rng: np.random.Generator) -> Flows:
    """Messages from every GPU to every other, to some far more than to others."""
    gpus = router.cluster.gpus
    src, dst = np.divmod(np.arange(gpus * gpus), gpus)
    other = src != dst
    mean = rng.lognormal(2.0, 1.0, gpus)[dst] + np.zeros(len(src))
    return Flows(src[other], dst[other], rng.poisson(mean)[other] + 1, 7408)


def test_lazy_rates_come_close_to_exact_ones() -> None:
    """A skewed hashed all-to-all: makespan within 0.5 %, mean completion within 1 %."""
    router = Router(fat_tree(8, "shares").cluster, "hash")
    flows = skewed(router, np.random.default_rng(3))
    exact, always = run(FluidNetwork(router, None), flows)
    lazy, seldom = run(FluidNetwork(router), flows)
    assert seldom.fillings < always.fillings / 10
    assert lazy.delivered_ns.max() == pytest.approx(exact.delivered_ns.max(), rel=0.005)
    assert lazy.delivered_ns.mean() == pytest.approx(exact.delivered_ns.mean(), rel=0.01)
    assert lazy.link_bytes.tolist() == exact.link_bytes.tolist()


def test_shares_carry_what_analytic_says() -> None:
    """The same float64 bytes on every link, to 1e-9."""
    router = fat_tree(8, "shares")
    flows = skewed(router, np.random.default_rng(4))
    fluid, _ = run(FluidNetwork(router), flows)
    analytic, _ = run(AnalyticNetwork(router), flows)
    assert fluid.link_bytes.dtype == np.float64
    assert fluid.link_bytes == pytest.approx(analytic.link_bytes, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more, or None for exact rates; got 0"),
        ({"bins": 3}, "bins must be an even number, got 3"),
    ],
)
def test_bad_parameters_are_refused(
    switch: Callable[..., Router], options: dict[str, Any], message: str
) -> None:
    """One line says what was expected."""
    with pytest.raises(SimulationError, match=message):
        FluidNetwork(switch(2, 1e9, 0.0), **options)


def test_clock_overflow_is_refused(switch: Callable[..., Router]) -> None:
    """A run that float64 ns could not tell apart is refused before it begins, or when it sends."""
    with pytest.raises(SimulationError, match="clock overflow"):
        run(FluidNetwork(switch(2, 1.0, 0.0)), Flows([0], [1], [1], 10**10))
    env = simpy.Environment(initial_time=2**53)
    collective = FluidNetwork(switch(2, 1e9, 0.0)).open(env).collective(Flows([0], [1], [1], 1))
    with pytest.raises(SimulationError, match="clock overflow"):
        collective.send(0)


def test_the_past_is_refused(switch: Callable[..., Router]) -> None:
    """Flows that would join before the kernel's clock break a law."""
    session = FluidNetwork(switch(2, 1e9, 0.0)).open(simpy.Environment())
    collective = session.collective(Flows([0], [1], [1], 1))
    session._state.header["now"] = 5.0
    with pytest.raises(LawViolation, match="time goes backwards"):
        collective.send(0)


def test_delivery_times_of_a_running_collective_are_refused(switch: Callable[..., Router]) -> None:
    """They are known at the end."""
    session = FluidNetwork(switch(2, 1e9, 0.0)).open(simpy.Environment())
    with pytest.raises(SimulationError, match="known when the collective has ended"):
        _ = session.collective(Flows([0], [1], [1], 1)).delivered_ns


def test_kernel_state_is_reused(ring: Callable[..., Router]) -> None:
    """A hundred collectives one after another need the room of one."""
    env = simpy.Environment()
    session = FluidNetwork(ring()).open(env)
    sizes = set()
    for _ in range(100):
        collective = session.collective(Flows([0, 2, 4], [7, 9, 4], [3, 3, 1], 5000))
        for gpu in (0, 2, 4):
            collective.send(gpu)
        env.run()
        state = session._state
        sizes.add((len(state.bundles), len(state.carried), len(state.inboxes)))
    assert len(sizes) == 1
