"""Two micro-batches on fluid and packet: where the two networks agree, and where not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.validation.kernels import WithKernels
from experiments.validation.line import Got
from experiments.validation.shares import evenly, one_layer, uniform
from placement import DataParallel
from sim import ConstantCompute, FluidNetwork, MessageSizes, PacketNetwork, simulate
from topologies import Router, ServerLinks, from_links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.turns import Overlap
    from workloads import RoutingTrace

GPUS, LAYERS, TOKENS = 32, 4, 64
"""Tokens of a GPU, 8 choices each of 128 experts, 4 on every GPU."""
EXPERTS, CHOICES = 128, 8
SIZES = MessageSizes(dispatch_bytes=7408, combine_bytes=14_336)
SECONDS = 1e-7
"""Of a choice: 512 of them take about as long as their results."""


def two_batches() -> Iterator[Got]:
    """Step time on packet over that on fluid; cards of 50 GB/s on one switch."""
    for key, case, overlap in (
        ("even", "even, in turns", "turns"),
        ("uneven", "even, as ready", "ready"),
        ("uneven", "at random, in turns", "turns"),
        ("uneven", "at random, as ready", "ready"),
    ):
        found = _ratio(case.startswith("even"), "turns" if overlap == "turns" else "ready")
        yield Got(f"fidelity.overlap.{key}", found, "" if key == "even" else case)


def _ratio(even: bool, overlap: Overlap) -> float:
    cluster = from_links([], leaf_of_gpu=[0] * GPUS, servers=ServerLinks(gpus_per_server=1))
    router = Router(cluster, "hash")
    chunks = PacketNetwork(router, chunk_bytes=16_384)
    fluid, packet = (
        _step_ns(even, overlap, network) for network in (FluidNetwork(router, steps=None), chunks)
    )
    return packet / fluid


def _step_ns(even: bool, overlap: Overlap, network: Any) -> int:
    placement = evenly(EXPERTS, GPUS)
    layer = np.repeat(np.arange(LAYERS, dtype=np.int32), EXPERTS)
    return simulate(
        _trace(even),
        replace(
            placement,
            layers=LAYERS,
            slot_layer=layer,
            slot_gpu=np.tile(placement.slot_gpu, LAYERS),
            slot_expert=np.tile(placement.slot_expert, LAYERS),
        ),
        DataParallel(LAYERS, GPUS, 1),
        network=network,
        sizes=SIZES,
        compute=WithKernels(ConstantCompute(SECONDS)),
        micro_batches=2,
        overlap=overlap,
    ).step_ns


def _trace(even: bool) -> RoutingTrace:
    """Return choices at random, or such that each half of a GPU's tokens fills all experts."""
    tokens = GPUS * TOKENS
    if not even:
        rng = np.random.default_rng(0)
        layers = [uniform(rng, tokens, EXPERTS, CHOICES) for _ in range(LAYERS)]
        drawn = np.stack(layers, axis=1).astype(np.uint8)
        return replace(one_layer(layers[0], EXPERTS), topk=drawn)
    home = DataParallel(1, GPUS, 1).origin_gpu(tokens)[0]
    number = np.empty(tokens, dtype=np.int64)
    number[np.argsort(home, kind="stable")] = np.tile(np.arange(TOKENS), GPUS)
    topk = (number[:, None] * CHOICES + np.arange(CHOICES)) % EXPERTS
    layers_alike = np.repeat(topk[:, None], LAYERS, axis=1).astype(np.uint8)
    return replace(one_layer(topk, EXPERTS), topk=layers_alike)
