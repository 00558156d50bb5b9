"""SGLang's published serving of DeepSeek-R1 on 96 H100, from recorded loads.

What is modelled: experts replicated and packed by EPLB on one recorded load, served on another;
replicas drawn as SGLang's ``dynamic`` does; rooflines of an H100; the communication kernels of
`experiments.validation.kernels`; one non-blocking switch; two batches of decode in turns, as
SGLang orders them (`sim.turns`), and of prefill as they are ready. What is not: the engine's own
work between kernels, sampling, scheduling, requests of different lengths. Absolute figures are
shown, ratios judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from experiments.benchmarks.sections import data_folder
from experiments.validation.kernels import LAUNCH_US, WithKernels
from experiments.validation.line import Got
from experiments.validation.shares import uniform
from placement import DataParallel, Placement
from placement.field.eplb import eplb
from sim import FluidNetwork, MessageSizes, PacketNetwork, PoolCompute, simulate
from sim.compute import DecodePool, PrefillPool, gpu_model
from sim.messages import exchange
from sim.network import run_alone
from topologies import Router, ServerLinks, from_links
from workloads import RoutingTrace, draw_trace, model, read_logical_count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sim import SimResult
    from sim.compute import Pool
    from sim.messages import DispatchMode
    from sim.messages.rules import DispatchOptions
    from sim.network import Network
    from sim.turns import Overlap

R1 = model("DeepSeek-R1")
SLOTS = 288
"""32 redundant experts."""
PROMPT = 4096
"""Tokens a GPU in a step of prefill: a quarter of SGLang's 16,384, for time and memory. Kernels
are as full (3,641 tokens a slot), so that per token a step takes as long."""
WHOLE_MESSAGES = 16_384
"""Chunk size of the packet network: no message is cut."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Who serves what.

    Attributes
    ----------
    gpus
        In servers of 8.
    pool
        Phase and batch.
    mode
        How tokens are dispatched: by DeepEP's normal or low-latency kernels.
    network
        ``fluid`` or ``packet``.
    """

    gpus: int
    pool: Pool
    mode: DispatchMode
    network: str = "fluid"
    overlap: Overlap = "ready"

    @property
    def links(self) -> Network:
        """The network."""
        router = Router(from_links([], leaf_of_gpu=[0] * self.gpus, servers=ServerLinks()), "hash")
        packet = PacketNetwork(router, chunk_bytes=WHOLE_MESSAGES)
        return packet if self.network == "packet" else FluidNetwork(router)

    @property
    def dispatching(self) -> DispatchOptions:
        """How tokens find their replicas."""
        return {"mode": self.mode, "replica_rule": "sglang_dynamic"}

    @property
    def parts(self) -> tuple[DataParallel, MessageSizes]:
        """Where tokens live, and what they send."""
        return DataParallel(R1.layers, self.gpus // 8, 8), MessageSizes.from_model(R1, self.mode)

    def rate(self, trace: RoutingTrace, placement: Placement, micro_batches: int) -> float:
        """Return tokens per second of a server."""
        return 8 * float(self.step(trace, placement, micro_batches).tokens_per_s_gpu or 0.0)

    def step(self, trace: RoutingTrace, placement: Placement, micro_batches: int) -> SimResult:
        """Return a step of it."""
        attention, sizes = self.parts
        return simulate(
            trace,
            placement,
            attention,
            network=self.links,
            sizes=sizes,
            compute=WithKernels(PoolCompute(R1, gpu_model("H100"), self.pool)),
            micro_batches=micro_batches,
            overlap=self.overlap,
            **self.dispatching,
        )


def prefill() -> Iterator[Got]:
    """Two micro-batches on a load that EPLB has not seen, and on a balanced one."""
    folder = data_folder()
    keys = [f"serving.prefill.{name}" for name in ("recorded", "balanced", "ratio")]
    if folder is None:
        yield from (Got(key, None) for key in keys)
        return
    deployment = Deployment(32, PrefillPool(1, PROMPT), "per_server")
    tokens, rng = deployment.pool.batch_tokens(32), np.random.default_rng(0)
    fitted, judged = (_load(folder, f"prefill_in{size}") for size in (512, 1024))
    drawn = draw_trace(judged, R1, tokens, rng)
    recorded = deployment.rate(drawn, packed(fitted, 32), 2)
    even = packed(np.ones_like(fitted), 32)
    balanced = deployment.rate(uniform_trace(tokens, rng), even, 2)
    yield from map(Got, keys, (recorded, balanced, balanced / recorded))


def decode() -> Iterator[Got]:
    """With and without two-batch overlap, on both networks that know concurrent collectives."""
    folder = data_folder()
    for network in ("fluid", "packet"):
        for requests in (256, 32):
            key = f"serving.overlap.{requests}"
            if folder is None:
                yield Got(key, None, network)
                continue
            alone, overlapped = (_decode(folder, requests, network, parts) for parts in (1, 2))
            if requests == 256:
                yield Got("serving.decode", overlapped, network)
            yield Got(key, overlapped / alone, network)
    if folder is None:
        yield Got("serving.decode", None)


def dispatch() -> Iterator[Got]:
    """Mean time of a rank's dispatch kernel, alone and in a step, which adds waiting for others.

    128 tokens a rank, half of 256, on the packet network without overlap; from when a rank is
    ready to send to when it has all messages, and the kernel's launch.
    """
    folder, keys = data_folder(), ("serving.dispatch", "serving.dispatch.ratio")
    if folder is None:
        yield from (Got(key, None) for key in keys)
        return
    deployment = Deployment(72, DecodePool(128, 2000), "per_expert", "packet")
    trace, placement = _decoding(folder, deployment.pool.batch_tokens(72))
    spans = deployment.step(trace, placement, 1).spans
    # Not layer 0, which all ranks begin at once; experts follow what they wait for.
    waited = (spans.start_ns[0, 3::2] - spans.end_ns[0, 2:-1:2])[spans.active[0, 3::2]]
    alone = float(_alone(deployment, trace, placement).mean()) * 1e-3 + LAUNCH_US
    engine = float(waited.mean()) * 1e-3 + LAUNCH_US
    yield Got(keys[0], (alone, engine))
    yield Got(keys[1], engine / alone)


def _alone(
    deployment: Deployment, trace: RoutingTrace, placement: Placement
) -> NDArray[np.float64]:
    """float64 [layers 1 and up, ranks]: ns until all is in, every layer's dispatch by itself."""
    attention, sizes = deployment.parts
    sent = exchange(trace, placement, attention, sizes=sizes, **deployment.dispatching).dispatch[0]
    found = np.zeros((R1.layers - 1, deployment.gpus))
    for layer in range(1, R1.layers):
        flows = sent.layer(layer)
        collective, _ = run_alone(deployment.links, flows)
        np.maximum.at(found[layer - 1], flows.dst, collective.delivered_ns)
    return found


def packed(load: NDArray[np.float64], gpus: int) -> Placement:
    """Return EPLB's placement of `SLOTS` slots a layer on servers of 8."""
    groups, nodes = (8, 4) if gpus == 32 else (1, 1)  # groups of experts divide by 4 servers only
    expert = eplb(load, replicas=SLOTS, groups=groups, nodes=nodes, gpus=gpus).phy2log
    layer, slot = np.indices(expert.shape, dtype=np.int32)
    return Placement(
        model=R1.name,
        layers=R1.layers,
        experts=R1.experts,
        gpus=gpus,
        gpus_per_server=8,
        slot_layer=layer.ravel(),
        slot_gpu=(slot // np.int32(SLOTS // gpus)).ravel(),
        slot_expert=expert.astype(np.int32).ravel(),
        policy="eplb",
    )


def uniform_trace(tokens: int, rng: np.random.Generator) -> RoutingTrace:
    """Return choices without any skew; layers are shuffles of the same choices."""
    base = uniform(rng, tokens, R1.experts, R1.top_k)
    topk = np.empty((tokens, R1.layers, R1.top_k), dtype=np.uint16)
    for layer in range(R1.layers):
        topk[:, layer] = rng.permutation(R1.experts)[base[rng.permutation(tokens)]]
    lengths = np.array([tokens], dtype=np.int32)
    return RoutingTrace(topk=topk, experts=R1.experts, seq_lens=lengths, source="uniform")


def _decode(folder: Path, requests: int, network: str, micro_batches: int) -> float:
    deployment = Deployment(72, DecodePool(requests, 2000), "per_expert", network, "turns")
    trace, placement = _decoding(folder, deployment.pool.batch_tokens(72))
    return deployment.rate(trace, placement, micro_batches)


@cache
def _decoding(folder: Path, tokens: int) -> tuple[RoutingTrace, Placement]:
    fitted, judged = (_load(folder, f"decode_{name}") for name in ("in500out1500", "in1000out1000"))
    return draw_trace(judged, R1, tokens, np.random.default_rng(0)), packed(fitted, 72)


def _load(folder: Path, name: str) -> NDArray[np.float64]:
    return read_logical_count(folder / "deepseek-r1-loads" / f"{name}.json", R1).load
