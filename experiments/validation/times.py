"""Times of collectives and queues against closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from experiments.validation.jobs import LINE_RATE, SIZE, all_to_all, messages, switch, tree
from experiments.validation.line import Got
from sim import FluidNetwork, PacketNetwork
from sim.compute import gpu_model
from sim.compute.roofline import matrix_seconds
from sim.network import mean_queue_wait, run_alone
from topologies import FatTree, Router, preset
from workloads import model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.network import Flows

MIB = 2**20
SERVICE_NS = 19_531
"""A message of 1 MiB on a link of 50 GiB/s, cut to whole ns."""


def latencies() -> Iterator[Got]:
    """Small messages of the presets: under a leaf, across leaves, inside a server."""
    router = Router(preset("ep32").spec.build())
    # 8 GPUs a server, 2 servers a leaf.
    latency = router.path_latency([0, 0, 0], [8, 16, 1])
    yield Got("theory.latency.presets", latency * 1e6)


def communication_bound() -> Iterator[Got]:
    """One rank's tokens to 9 experts and back: 1 B a value out, 2 B a value back."""
    totals = [_there_and_back(rate) for rate in (50e9, 900e9)]
    yield Got("theory.bound.communication", [total * 1e-3 for total in totals])
    yield Got("theory.bound.layers", [total * 2 * 61 * 1e-6 for total in totals])


def fluid() -> Iterator[Got]:
    """Makespans of the fluid network at exact rates, in us."""
    over_a_switch = [_fluid_us(switch(gpus), all_to_all(gpus)) for gpus in (16, 128, 1024)]
    yield Got("theory.fluid.switch", [times.max() for times in over_a_switch])
    on_a_tree = _fluid_us(Router(tree(8).build()), all_to_all(128))
    yield Got("theory.fluid.fat-tree", on_a_tree.max())
    yield Got("theory.fluid.leaf-spine", _leaf_spine())
    yield Got("theory.fluid.incast", [_incast(senders) for senders in (1, 2, 7, 31)])


def store_and_forward() -> Iterator[Got]:
    """Makespans of whole messages through FIFO links, in ns."""
    one = messages([0], [1], [1], MIB)
    yield Got("theory.packet.one", _packet_ns(2, one, "interleaved"))
    for order in ("shifted", "destination"):
        yield Got(f"theory.packet.{order}", _packet_ns(64, all_to_all(64, MIB), order))


def queues() -> Iterator[Got]:
    """Mean waits of a million Poisson arrivals at a link, in service times."""
    for load in (0.2, 0.5, 0.8, 0.9, 0.95):
        rng = np.random.default_rng(7)
        yield Got(f"theory.queue.{load}", mean_queue_wait(load, 1_000_000, rng))


def exponential_queues() -> Iterator[Got]:
    """Mean waits of chunks of exponential sizes: of four times a million arrivals."""
    for load in (0.2, 0.5, 0.8, 0.9, 0.95):
        waits = [
            mean_queue_wait(load, 1_000_000, np.random.default_rng(seed), exponential=True)
            for seed in (7, 8, 9, 10)
        ]
        yield Got(f"theory.queue.exponential.{load}", np.mean(waits))


def expert() -> Iterator[Got]:
    """Reading and multiplying one expert of R1 in FP8, at the rates of the data sheet."""
    r1, gpu = model("DeepSeek-R1"), replace(gpu_model("H800"), efficiency=1.0, tile_tokens=1)
    tokens = np.arange(1, 1000)
    size, width = r1.parameters_per_expert, r1.bytes_per_parameter
    seconds = matrix_seconds(gpu, tokens, size, width)
    meet = int(tokens[seconds > seconds[0]][0]) - 1
    yield Got("theory.expert", [size * width * 1e-6, seconds[0] * 1e6, meet])


def _there_and_back(rate: float) -> float:
    """Return ns of dispatch and combine of 32 tokens x 9 experts x 7000 values, at `rate` B/s."""
    router = switch(10, rate)
    rank, experts = np.zeros(9, dtype=np.int64), np.arange(1, 10)
    tokens = np.full(9, 32)
    out, _ = run_alone(FluidNetwork(router), messages(rank, experts, tokens, 7000))
    back, _ = run_alone(FluidNetwork(router), messages(experts, rank, tokens, 14_000))
    return float(out.delivered_ns.max() + back.delivered_ns.max())


def _fluid_us(router: Router, flows: Flows) -> np.ndarray:
    collective, _ = run_alone(FluidNetwork(router, steps=None), flows)
    found: np.ndarray = collective.delivered_ns * 1e-3
    return found


def _leaf_spine() -> list[float]:
    """Return the ends of all flows and of those inside leaves."""
    cluster = FatTree(
        gpus_per_server=1,
        host_bandwidth_Bps=LINE_RATE,
        host_latency_s=0.0,
        leaves_per_pod=4,
        servers_per_leaf=4,
        aggregations_per_pod=2,
        oversubscription=2.0,
        cable_latency_s=0.0,
    ).build()
    flows = all_to_all(16)
    times = _fluid_us(Router(cluster), flows)
    inside = flows.src // 4 == flows.dst // 4
    return [times.max(), times[inside].max()]


def _incast(senders: int) -> float:
    flows = messages(np.arange(senders), np.full(senders, senders), np.ones(senders), SIZE)
    return float(_fluid_us(switch(senders + 1), flows).max())


def _packet_ns(gpus: int, flows: Flows, order: str) -> int:
    router = switch(gpus, MIB * 1e9 / SERVICE_NS, 500e-9)
    collective, _ = run_alone(PacketNetwork(router, chunk_bytes=MIB, order=order), flows)
    return int(collective.ended_ns)
