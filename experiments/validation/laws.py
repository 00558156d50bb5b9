"""Laws of every run: a good run obeys them, and none lets a doctored result pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.validation.kernels import WithKernels
from experiments.validation.line import Got
from experiments.validation.shares import evenly, one_layer, uniform
from placement import DataParallel
from sim import (
    AnalyticNetwork,
    ConstantCompute,
    FluidNetwork,
    LawViolation,
    MessageSizes,
    PacketNetwork,
    SimResult,
    simulate,
)
from sim.laws import check_laws
from sim.messages import per_expert
from sim.pairs import survey
from topologies import LinkClass, Router, preset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sim.network import Network
    from sim.pairs import Surveyed

SIZES = MessageSizes(dispatch_bytes=7408, combine_bytes=14_336)


class Run(NamedTuple):
    """A run and all that the laws compare it with."""

    result: SimResult
    legs: list[Surveyed]
    router: Router
    inputs: Any


def every_law() -> Iterator[Got]:
    """Run every network, then doctor what it says."""
    router = Router(preset("ep32").spec.build(), "hash")
    networks: tuple[Network, ...] = (
        AnalyticNetwork(router),
        FluidNetwork(router),
        PacketNetwork(router),
    )
    for network in networks:
        run = sample(network)
        yield Got("laws.good", breaks(run), network.name)
        passed = [law for law, doctor in DOCTORS.items() if not breaks(_doctored(run, doctor))]
        case = f"{network.name}: {', '.join(passed)}" if passed else network.name
        yield Got("laws.caught", len(passed), case)


def _doctored(run: Run, doctor: Callable[[SimResult], SimResult]) -> Run:
    return run._replace(result=doctor(run.result))


def sample(network: Network) -> Run:
    """Return a run of 32 GPUs with 16 tokens each; the engine has checked it."""
    cluster = network.router.cluster
    topk = uniform(np.random.default_rng(0), 16 * cluster.gpus, 64, 8)
    inputs = (
        one_layer(topk, 64),
        evenly(64, cluster.gpus, cluster.gpus_per_server),
        DataParallel(1, cluster.gpus // cluster.gpus_per_server, cluster.gpus_per_server),
    )
    result = simulate(
        *inputs, network=network, sizes=SIZES, compute=WithKernels(ConstantCompute(1e-8))
    )
    legs = [survey(each, cluster.gpus) for each in per_expert(*inputs, SIZES)]
    return Run(result, legs, network.router, inputs)


def breaks(run: Run) -> bool:
    """Whether a law is broken."""
    try:
        check_laws(*run)
    except LawViolation:
        return True
    return False


def a_byte_more(result: SimResult) -> SimResult:
    """Let a GPU send a byte that nobody injected."""
    link_bytes = result.link_bytes.copy()
    link_bytes[0, 0, result.cluster.nic_up[3]] += 1
    return replace(result, link_bytes=link_bytes)


def a_detour(result: SimResult) -> SimResult:
    """Move a byte from one cable to another."""
    link_bytes = result.link_bytes.copy()
    own = np.isin(result.cluster.link_class, (LinkClass.HOST, LinkClass.NVLINK))
    cables = np.flatnonzero(~own)
    used = cables[link_bytes[0, 1, cables] > 0]
    link_bytes[0, 1, used[0]] -= 1
    link_bytes[0, 1, used[1]] += 1
    return replace(result, link_bytes=link_bytes)


def a_hop_more(result: SimResult) -> SimResult:
    """Count a message that took one hop more."""
    histogram = result.hop_histogram.copy()
    histogram[0, -1] += 1
    return replace(result, hop_histogram=histogram)


def links_too_fast(result: SimResult) -> SimResult:
    """Halve the time in which links served their bytes."""
    usage = result.usage
    half = replace(usage, busy_ns=usage.busy_ns / 2, busy_bins_ns=usage.busy_bins_ns / 2)
    return replace(result, usage=half)


def too_soon(result: SimResult) -> SimResult:
    """End a dispatch a nanosecond before its busiest link can have done its part."""
    times = result.collective_ns.copy()
    times[0, 0, 1] = times[0, 0, 0] + int(result.busiest_s[0, 0] * 1e9) - 1
    return replace(result, collective_ns=times)


def back_in_time(result: SimResult) -> SimResult:
    """Let combine begin before the dispatch that it answers."""
    times = result.collective_ns.copy()
    times[0, 0] += times[0, 1, 1] + 1
    return replace(result, collective_ns=times)


def two_tasks_at_once(result: SimResult) -> SimResult:
    """Let a GPU begin its experts when it begins attention."""
    start = result.spans.start_ns.copy()
    start[0, 1, 0] = start[0, 0, 0]
    return replace(result, spans=replace(result.spans, start_ns=start))


def beyond_the_end(result: SimResult) -> SimResult:
    """Let a GPU compute its experts until after the step."""
    end = result.spans.end_ns.copy()
    end[0, 1, 0] = result.step_ns + 1
    return replace(result, spans=replace(result.spans, end_ns=end))


DOCTORS: dict[str, Callable[[SimResult], SimResult]] = {
    "delivery": a_byte_more,
    "routes": a_detour,
    "hops": a_hop_more,
    "capacity": links_too_fast,
    "durations": too_soon,
    "time": back_in_time,
    "gpu time": two_tasks_at_once,
    "end": beyond_the_end,
}
"""A way to doctor a result against every law, and two against that of a GPU's time."""
