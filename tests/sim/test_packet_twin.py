"""The compiled packet kernel against its readable SimPy twin."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.network.flows import Flows
from sim.network.packet import PacketNetwork
from sim.network.packet_twin import PacketTwin
from topologies.links import ServerLinks, from_links
from topologies.routing import Router

SERVERS = ServerLinks(
    gpus_per_server=2,
    host_bandwidth_Bps=3e9,
    host_latency_s=2e-9,
    nvlink_bandwidth_Bps=7e9,
    nvlink_latency_s=1e-9,
)
RING = Router(  # 5 leaves in a ring with a chord, 2 GPUs a server: NVLink, ties and shared links
    from_links(
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)],
        leaf_of_gpu=np.repeat(np.arange(5), 2),
        servers=SERVERS,
        bandwidth_Bps=[2e9, 1e9, 3e9, 1e9, 2.5e9, 0.7e9],
        latency_s=3e-9,
    ),
    "hash",
    seed=1,
)
Sends = list[tuple[int, int, int]]
"""(time in ns, collective, GPU)"""


def run_kernel(
    collectives: list[Flows], sends: Sends, router: Router = RING, **options: Any
) -> tuple[list[list[int]], Any]:
    """Send at the given times; returns each flow's delivery and the links' books."""
    env = simpy.Environment()
    session = PacketNetwork(router, **options).open(env)
    running = [session.collective(flows) for flows in collectives]

    def send_all() -> Any:
        for at, group in groupby(sorted(sends), key=lambda send: send[0]):
            yield env.timeout(at - env.now)
            for _, collective, gpu in group:
                running[collective].send(gpu)

    env.process(send_all())
    env.run()
    return [collective.delivered_ns.tolist() for collective in running], session.usage()


def run_twin(
    collectives: list[Flows], sends: Sends, router: Router = RING, **options: Any
) -> tuple[list[list[int]], list[Any]]:
    """Do the same on the twin."""
    twin = PacketTwin(router, **options)
    delivered: list[dict[int, int]] = [{} for _ in collectives]
    for at, collective, gpu in sorted(sends):
        twin.send(at, gpu, collectives[collective], delivered[collective])
    twin.env.run()
    return [[done[i] for i in range(len(done))] for done in delivered], twin.links


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[Flows], Sends]:
    """Return some collectives and when each of their senders starts."""
    collectives, sends = [], []
    for number in range(draw(st.integers(1, 3))):
        pairs = draw(
            st.lists(
                st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] != p[1]),
                min_size=1,
                max_size=25,
                unique=True,
            )
        )
        src, dst = zip(*pairs, strict=True)
        count = draw(st.lists(st.integers(1, 3), min_size=len(pairs), max_size=len(pairs)))
        collectives.append(Flows(src, dst, count, draw(st.integers(1, 300))))
        sends += [(draw(st.integers(0, 400)), number, gpu) for gpu in sorted(set(src))]
    return collectives, sends


@given(traffic(), st.integers(1, 128), st.sampled_from(["interleaved", "shifted", "destination"]))
@settings(max_examples=150, deadline=None)
def test_kernel_equals_twin(case: tuple[list[Flows], Sends], chunk_bytes: int, order: str) -> None:
    """Deliveries, bytes, service and waiting of every link agree to the ns and byte."""
    collectives, sends = case
    options = {"chunk_bytes": chunk_bytes, "order": order}
    kernel, usage = run_kernel(collectives, sends, **options)
    twin, links = run_twin(collectives, sends, **options)
    assert kernel == twin
    assert usage.busy_ns.tolist() == [link.busy_ns for link in links]
    assert usage.wait_ns.tolist() == [link.wait_ns for link in links]
    assert usage.wait_max_ns.tolist() == [link.wait_max_ns for link in links]
    assert usage.chunks.tolist() == [link.chunks for link in links]


@given(traffic(), st.integers(1, 128))
@settings(max_examples=30, deadline=None)
def test_link_bytes_equal_twin_and_routes(
    case: tuple[list[Flows], Sends], chunk_bytes: int
) -> None:
    """Bytes per link, counted chunk by chunk, are the twin's and the router's."""
    collectives, sends = case
    env = simpy.Environment()
    session = PacketNetwork(RING, chunk_bytes=chunk_bytes).open(env)
    running = [session.collective(flows) for flows in collectives]
    for _, collective, gpu in sends:
        running[collective].send(gpu)
    env.run()
    for flows, collective in zip(collectives, running, strict=True):
        routed = RING.link_bytes(flows.src, flows.dst, flows.size_bytes)[0]
        assert collective.link_bytes.tolist() == routed.tolist()
    _, links = run_twin(collectives, sends, chunk_bytes=chunk_bytes, order="interleaved")
    total = sum(collective.link_bytes for collective in running)
    assert total.tolist() == [link.total_bytes for link in links]


@pytest.mark.parametrize("latency_ns", [0, 1])
def test_twin_notices_a_wrong_kernel(latency_ns: int) -> None:
    """The comparison fails as soon as one link is a nanosecond slower."""
    flows = [Flows([0, 2], [2, 6], [1, 1], 100)]
    sends = [(0, 0, 0), (0, 0, 2)]
    slower = Router(
        from_links(
            [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)],
            leaf_of_gpu=np.repeat(np.arange(5), 2),
            servers=SERVERS,
            bandwidth_Bps=[2e9, 1e9, 3e9, 1e9, 2.5e9, 0.7e9],
            latency_s=(3 + latency_ns) * 1e-9,
        ),
        "hash",
        seed=1,
    )
    options = {"chunk_bytes": 64}
    kernel, _ = run_kernel(flows, sends, slower, **options)
    twin, _ = run_twin(flows, sends, order="interleaved", **options)
    assert (kernel == twin) is (latency_ns == 0)


def test_same_nanosecond_sends_queue_in_the_order_of_the_calls() -> None:
    """Two collectives sent at once by one GPU share its link first come, first served."""
    # 3 GB/s: 3000 B take 1000 ns; the second collective's service starts when the first ends.
    first, second = Flows([0], [4], [1], 3000), Flows([0], [4], [1], 3000)
    kernel, usage = run_kernel([first, second], [(0, 0, 0), (0, 1, 0)], chunk_bytes=3000)
    assert kernel[1][0] > kernel[0][0]
    nic_up = RING.cluster.nic_up[0]
    assert usage.wait_ns[nic_up] == 1000
