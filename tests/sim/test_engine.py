"""Steps: causality by hand arithmetic, event counts, determinism."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Placement
from sim import (
    AnalyticNetwork,
    ConstantCompute,
    LawViolation,
    MessageSizes,
    PacketNetwork,
    SimulationError,
    simulate,
)
from sim.batch import Batch
from sim.free import critical_ns
from sim.messages import exchange
from sim.step import Step
from topologies import Router, ServerLinks, from_links
from workloads import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.network import Network

SIZES = MessageSizes(dispatch_bytes=1000, combine_bytes=2000)


def one_per_gpu(topk: Any, gpus: int, gpu_of_expert: Any) -> tuple[RoutingTrace, Placement]:
    """Write down a trace [tokens, layers, k] and a placement [layers, experts]."""
    choices, gpu = np.asarray(topk), np.asarray(gpu_of_expert)
    layers, experts = gpu.shape
    layer, expert = np.divmod(np.arange(gpu.size), experts)
    trace = RoutingTrace(
        topk=choices.astype(np.uint8),
        experts=experts,
        seq_lens=np.array([len(choices)], dtype=np.int32),
        source="by hand",
    )
    placement = Placement(
        model="by hand",
        layers=layers,
        experts=experts,
        gpus=gpus,
        gpus_per_server=1,
        slot_layer=layer,
        slot_gpu=gpu.ravel(),
        slot_expert=expert,
        policy="by hand",
    )
    return trace, placement


def at_home(fixed_attention: Any, layers: int, origin: list[int]) -> Any:
    """Tokens that start and end every layer where they live."""
    home = np.tile(np.array(origin, dtype=np.int32), (layers, 1))
    return fixed_attention(home, home)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        # 1000 B at 1 GB/s + 2 * 100 ns; 50 ns of compute; 2000 B + 2 * 100 ns
        (AnalyticNetwork, 1200 + 50 + 2200),
        # store and forward: each of the two links takes the whole message
        (PacketNetwork, 2200 + 50 + 4200),
    ],
)
def test_one_token_by_hand(
    switch: Callable[..., Router],
    fixed_attention: Any,
    network: Callable[[Router], Network],
    expected: int,
) -> None:
    """One message out, one computation, one message back."""
    trace, placement = one_per_gpu([[[1]]], 2, [[0, 1]])
    result = simulate(
        trace,
        placement,
        at_home(fixed_attention, 1, [0]),
        network=network(switch(2, 1e9, 100e-9)),
        sizes=SIZES,
        compute=ConstantCompute(50e-9),
    )
    assert result.step_ns == expected
    assert result.critical_ns == 50
    assert result.exposed_comm_s == pytest.approx((expected - 50) * 1e-9)


def test_gpus_wait_for_their_own_messages_only(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """On packet a GPU with local experts runs ahead of one that waits for the network."""
    # Token 0 lives on GPU 0 and uses GPU 0 in both layers: 2 * 50 ns. Token 1 lives on GPU 1
    # and uses GPU 2: per layer 2 * 1000 + 50 + 2 * 2000.
    trace, placement = one_per_gpu([[[0], [0]], [[1], [1]]], 3, [[0, 2], [0, 2]])
    result = simulate(
        trace,
        placement,
        at_home(fixed_attention, 2, [0, 1]),
        network=PacketNetwork(switch(3, 1e9, 0.0)),
        sizes=SIZES,
        compute=ConstantCompute(50e-9),
    )
    assert result.collective_ns[1, 0, 0] == 50  # GPU 0 dispatches layer 1
    assert result.step_ns == 2 * 6050


def test_dispatch_and_combine_share_links_first_come_first_served(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """On one network card the next layer's dispatch queues behind a result sent before it."""
    # Layer 0: both tokens use GPU 0, where token 0 lives. Token 1's dispatch from GPU 2 is in
    # at 2 * 1000; 2 * 10 ns of compute; at 2020 GPU 0 sends token 1's result (2000 B), and as
    # token 0's own is in at once, its dispatch of layer 1 to GPU 1 right behind.
    trace, placement = one_per_gpu([[[0], [0]], [[1], [1]]], 3, [[0, 0], [1, 2]])
    result = simulate(
        trace,
        placement,
        at_home(fixed_attention, 2, [0, 2]),
        network=PacketNetwork(switch(3, 1e9, 0.0)),
        sizes=SIZES,
        compute=ConstantCompute(10e-9),
    )
    nic_up = result.cluster.nic_up[0]
    assert result.collective_ns[1, 0, 0] == 2020
    assert result.usage.wait_ns is not None
    assert result.usage.wait_ns[nic_up] == 2000
    assert result.usage.busy_ns[nic_up] == 3000
    # Token 0: leaves at 2020 + 2000, 2 * 1000 out, 10 of compute, 2 * 2000 back.
    assert result.step_ns == 4020 + 2000 + 10 + 4000


@given(st.integers(0, 10**6), st.sampled_from(["shares", "hash", "packet"]))
@settings(max_examples=40, deadline=None)
def test_random_steps_obey_the_laws(
    ring: Callable[..., Router], inputs: Callable[..., Any], seed: int, kind: str
) -> None:
    """Every law holds on random traffic, and no step beats its critical compute."""
    network: Network = PacketNetwork(ring()) if kind == "packet" else AnalyticNetwork(ring(kind))
    result = simulate(*inputs(seed), network=network, sizes=SIZES, compute=ConstantCompute(3e-7))
    assert result.exposed_comm_s >= 0
    assert result.link_bytes.dtype == (np.float64 if kind == "shares" else np.int64)
    assert result.step_s >= result.busiest_s.max()


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_analytic_and_packet_steps_carry_the_same_bytes(
    ring: Callable[..., Router], inputs: Callable[..., Any], seed: int
) -> None:
    """Per layer, direction and link, integers agree to the last byte."""
    router, parts = ring(), inputs(seed)
    options = {"sizes": SIZES, "compute": ConstantCompute(1e-8)}
    analytic = simulate(*parts, network=AnalyticNetwork(router), **options)
    packet = simulate(*parts, network=PacketNetwork(router), **options)
    assert np.array_equal(analytic.link_bytes, packet.link_bytes)
    assert analytic.byte_hops == packet.byte_hops


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_critical_compute_is_the_step_on_a_free_network(
    inputs: Callable[..., Any], seed: int
) -> None:
    """On links of 5e13 B/s without latency, packet's step is the critical compute."""
    cluster = from_links(
        [],
        leaf_of_gpu=[0] * 10,
        servers=ServerLinks(
            gpus_per_server=2,
            host_bandwidth_Bps=5e13,
            host_latency_s=0.0,
            nvlink_bandwidth_Bps=5e13,
            nvlink_latency_s=0.0,
        ),
    )
    trace, placement, attention = inputs(seed)
    rate = 1e-6
    result = simulate(
        trace,
        placement,
        attention,
        network=PacketNetwork(Router(cluster, "hash")),
        sizes=SIZES,
        compute=ConstantCompute(rate),
    )
    # All bytes of a collective need less than 20 * 4 * 2000 / 5e13 s = 3.2 ns a link, and two
    # links of at least 1 ns: below 10 ns in each of 6 collectives.
    assert 0 <= result.step_ns - result.critical_ns < 60
    twice = batch_of(trace, placement, attention, 2 * rate)
    assert critical_ns([twice]) == 2 * result.critical_ns


def batch_of(trace: Any, placement: Any, attention: Any, seconds: float) -> Batch:
    """Return a whole batch with experts of constant rate."""
    sent = exchange(trace, placement, attention, sizes=SIZES)
    return Batch.of(placement, sent, ConstantCompute(seconds).times(placement, sent))


def test_runs_are_deterministic(ring: Callable[..., Router], inputs: Callable[..., Any]) -> None:
    """The same inputs give the same arrays and the same metrics."""
    network = PacketNetwork(ring(), order="random", seed=3)
    first, again = (
        simulate(*inputs(5), network=network, sizes=SIZES, compute=ConstantCompute(1e-8))
        for _ in range(2)
    )
    assert first.metrics() == again.metrics()
    assert np.array_equal(first.collective_ns, again.collective_ns)
    assert np.array_equal(first.usage.busy_bins_ns, again.usage.busy_bins_ns)


def test_a_token_cannot_jump_between_layers(
    ring: Callable[..., Router], inputs: Callable[..., Any], fixed_attention: Any
) -> None:
    """The collector of a layer is the origin of the next."""
    trace, placement, attention = inputs(0)
    origin = attention.origin.copy()
    origin[1, 7] = (origin[1, 7] + 1) % 10
    with pytest.raises(SimulationError, match=r"token 7 is collected on GPU .* in layer 0 but"):
        simulate(
            trace,
            placement,
            fixed_attention(origin, attention.collector),
            network=AnalyticNetwork(ring()),
            sizes=SIZES,
            compute=ConstantCompute(0.0),
        )


def test_placement_and_cluster_must_agree(
    switch: Callable[..., Router], inputs: Callable[..., Any]
) -> None:
    """GPUs and GPUs per server are compared before anything runs."""
    for gpus, message in ((9, "for 10 GPUs, the cluster has 9"), (10, "for 2 GPUs per server")):
        with pytest.raises(SimulationError, match=message):
            simulate(
                *inputs(0),
                network=AnalyticNetwork(switch(gpus, 1e9, 0.0)),
                sizes=SIZES,
                compute=ConstantCompute(0.0),
            )


def test_undelivered_results_violate_a_law(
    ring: Callable[..., Router], inputs: Callable[..., Any]
) -> None:
    """A network that swallows messages does not go unnoticed."""

    class Swallowing:
        def __init__(self, session: Any) -> None:
            self.session = session

        def collective(self, flows: Any) -> Any:
            collective = self.session.collective(flows)
            collective.send = lambda gpu: None  # noqa: ARG005  that is what it swallows
            return collective

        def usage(self) -> Any:
            return self.session.usage()

    env = simpy.Environment()
    session = Swallowing(AnalyticNetwork(ring()).open(env))
    step = Step(env, session, [batch_of(*inputs(0), 0.0)])
    with pytest.raises(LawViolation, match="layer 0: the results were not all delivered"):
        step.run()


def test_a_gpu_computes_one_layer_at_a_time(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """A layer whose inputs are early waits until the GPU is done with the layer before."""
    # Layer 0: the 3 tokens of GPU 2 keep GPU 0 busy until 3 ms, the 4 tokens of GPU 1 take 1 ms
    # on GPUs 3..6. Layer 1: GPU 1's 4 tokens reach GPU 0 after 1 ms, wait until 3 and take 4
    # more; GPU 2's end at 4. Were they computed at once, the step would end after 5 ms.
    topk = [[[3], [0]], [[4], [0]], [[5], [0]], [[6], [0]], [[0], [3]], [[0], [4]], [[0], [5]]]
    trace, placement = one_per_gpu(topk, 7, [list(range(7))] * 2)
    result = simulate(
        trace,
        placement,
        at_home(fixed_attention, 2, [1, 1, 1, 1, 2, 2, 2]),
        network=PacketNetwork(switch(7, 1e12, 0.0)),
        sizes=SIZES,
        compute=ConstantCompute(1e-3),
    )
    assert result.step_s == pytest.approx(7e-3, abs=1e-6)
    assert result.critical_ns == 7_000_000
