"""DeepEP's low-latency kernels on H800, from traffic, bandwidths and one constant.

What is modelled: every rank draws 8 experts for each of its 128 tokens and posts one message a
choice; servers of 8 share NVLink, every rank has a card of its own on a fabric that does not
block; what is posted leaves and arrives in order, link by link (`PacketNetwork`). A rank's
combine begins when its own dispatch is in. A kernel's time runs from the first rank that starts
it to the last that has everything, as the slowest rank's own timer shows it: so combine contains
the wait for the ranks that received most.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from experiments.validation.kernels import LAUNCH_US, WithKernels
from experiments.validation.line import Got, expectations
from experiments.validation.shares import evenly, one_layer, uniform
from placement import DataParallel
from sim import ConstantCompute, MessageSizes, PacketNetwork, simulate
from topologies import Router, ServerLinks, from_links
from workloads import model

if TYPE_CHECKING:
    from collections.abc import Iterator

NVLINK_BPS = 160e9
"""Usable of an H800's NVLink (DeepEP V1)."""
CARD_BPS = 50e9
"""A 400 Gb/s network card a GPU (DeepEP V1)."""
CONSTANTS = (
    f"Constants: NVLink {NVLINK_BPS / 1e9:g} GB/s, card {CARD_BPS / 1e9:g} GB/s, and "
    f"{LAUNCH_US:g} us a kernel (launch and synchronisation), "
    "the same for both directions and all ranks."
)
"""In one line for people."""

PUBLISHED, PREDICTED = (8, 32, 128), (16, 64, 256)
"""Ranks: rows of the table, and rows of which nothing is known here."""
TOKENS, EXPERTS, CHOICES = 128, 256, 8
TRACES = 5
"""Draws of the choices that a row is the mean of."""
DIRECTIONS = ("dispatch", "combine")


def rows() -> Iterator[Got]:
    """Compare with the published rows; the null model beside each."""
    for ranks in PUBLISHED:
        for direction, time in zip(DIRECTIONS, kernel_us(ranks), strict=True):
            yield Got(f"hardware.{direction}.{ranks}", time)
    for direction in DIRECTIONS:
        for ranks, time in zip(PUBLISHED, null_us(direction), strict=True):
            yield Got(f"hardware.null.{direction}.{ranks}", time)


def predictions() -> Iterator[Got]:
    """Predict other ranks."""
    for ranks in PREDICTED:
        yield Got("hardware.predicted", kernel_us(ranks), f"{ranks} ranks")


@cache
def kernel_us(ranks: int) -> tuple[float, float]:
    """Return the mean times of dispatch and combine."""
    times = np.array([_spans_us(ranks, seed) for seed in range(TRACES)]).mean(axis=0)
    return float(times[0]) + LAUNCH_US, float(times[1]) + LAUNCH_US


def null_us(direction: str) -> list[float]:
    """Return what mean bytes over bandwidth and a constant say, of the published rows.

    The constant is the one with the least squared relative errors.
    """
    published = np.array([float(_published(direction, ranks)) for ranks in PUBLISHED])
    size = getattr(_sizes(), f"{direction}_bytes")
    mean = np.array([_mean_us(ranks, size) for ranks in PUBLISHED])
    weight = published**-2
    constant = ((published - mean) * weight).sum() / weight.sum()
    found: list[float] = (mean + constant).tolist()
    return found


def _published(direction: str, ranks: int) -> float:
    return float(expectations()[f"hardware.{direction}.{ranks}"].numbers[0])


def _mean_us(ranks: int, size: int) -> float:
    """Return the time of a rank's mean bytes: NVLink inside a server, the card beyond."""
    if ranks == 8:
        return TOKENS * CHOICES * size * 7 / 8 / NVLINK_BPS * 1e6
    return TOKENS * CHOICES * size * (ranks - 8) / ranks / CARD_BPS * 1e6


def _sizes() -> MessageSizes:
    return MessageSizes.from_model(model("DeepSeek-R1"))


def _spans_us(ranks: int, seed: int) -> tuple[float, float]:
    """Return how long the bytes of dispatch and combine are under way."""
    servers = ServerLinks(nvlink_bandwidth_Bps=NVLINK_BPS, host_bandwidth_Bps=CARD_BPS)
    cluster = from_links([], leaf_of_gpu=[0] * ranks, servers=servers, name="h800")
    topk = uniform(np.random.default_rng(seed), ranks * TOKENS, EXPERTS, CHOICES)
    result = simulate(
        one_layer(topk, EXPERTS),
        evenly(EXPERTS, ranks, gpus_per_server=8),
        DataParallel(layers=1, servers=ranks // 8, gpus_per_server=8),
        network=PacketNetwork(Router(cluster, "hash")),
        sizes=_sizes(),
        compute=WithKernels(ConstantCompute(0.0)),
    )
    (out, back) = np.diff(result.collective_ns[0], axis=1)[:, 0] * 1e-3
    return float(out), float(back)
