"""64 instances of DeepSeek-R1 on 16,384 GPUs: eight planes of two levels, analytically."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks.hop_speed import peak_bytes
from experiments.benchmarks.section import Section, Target, column
from placement import Contiguous, DataParallel, PlacementProblem
from sim.instances import Instance, side_by_side
from sim.messages import MessageSizes, stream_exchange
from topologies import LinkClass, Router, preset
from workloads import SyntheticWorkload, model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from placement import Placement

INSTANCES, RANKS, GPUS_PER_SERVER = 64, 256, 8
TOKENS_PER_RANK = 128
MAX_SECONDS, MAX_GIB = 60.0, 8.0


@dataclass(frozen=True, slots=True)
class PlanesCase:
    """Where instances sit, and how their messages find their way.

    Attributes
    ----------
    scattered
        Whether an instance has one server of every n-th, over all groups of the fabric, instead
        of as many servers in a row, which share their leaves.
    rule
        Of the router.
    """

    scattered: bool
    rule: str = "hash"


CASES = (
    PlanesCase(scattered=False),
    PlanesCase(scattered=True),
    PlanesCase(scattered=True, rule="dmodk"),
)


def planes_rows(
    *,
    cases: tuple[PlanesCase, ...] = CASES,
    instances: int = INSTANCES,
    tokens_per_rank: int = TOKENS_PER_RANK,
) -> list[dict[str, Any]]:
    """Replay every case in a process of its own, on the preset `planes-16384`.

    Returns
    -------
    list of dict
        ``seats``, ``rule``, ``gpus``, ``switches``, ``cables`` between switches, ``instances``,
        ``pairs`` routed (dispatch and combine), ``step_ms``: dispatch and combine of all layers,
        all instances in step, ``alone_ms``: of the slowest instance without the others,
        ``fabric_ms``: what the links between switches alone would need, ``seconds`` of the wall
        and ``cpu_s`` from parameters to result (the tokens are drawn before), ``peak_gib`` of
        the process.
    """
    return [_apart(case, instances, tokens_per_rank) for case in cases]


def _apart(case: PlanesCase, instances: int, tokens: int) -> dict[str, Any]:
    """Measure in a fresh process, whose peak of memory is the case's own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, case, instances, tokens).result()


def measure(case: PlanesCase, instances: int, tokens_per_rank: int) -> dict[str, Any]:
    """Replay a case, compiled beforehand."""
    r1 = model("DeepSeek-R1")
    choices = SyntheticWorkload(r1, 0).trace(RANKS * tokens_per_rank).topk
    some = choices[:RANKS]
    side_by_side(
        Router(preset("planes-16384").spec.build(), case.rule),
        instances_of(some, case, 1),
    )
    begun, begun_cpu = time.perf_counter(), time.process_time()
    cluster = preset("planes-16384").spec.build()
    found = side_by_side(Router(cluster, case.rule), instances_of(choices, case, instances))
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    between = cluster.link_class >= LinkClass.LOCAL
    fabric_s = (found.link_bytes[:, :, between] / cluster.bandwidth_Bps[between]).max(axis=2)
    return {
        "seats": "scattered" if case.scattered else "in a row",
        "rule": case.rule,
        "gpus": cluster.gpus,
        "switches": cluster.switches,
        "cables": int(between.sum()) // 2,
        "instances": instances,
        "pairs": found.pairs,
        "step_ms": found.total_s * 1e3,
        "alone_ms": float((found.alone_s + found.latency_s).sum(axis=(1, 2)).max()) * 1e3,
        "fabric_ms": float(fabric_s.sum()) * 1e3,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_gib": peak_bytes() / 2**30,
    }


def instances_of(choices: NDArray[Any], case: PlanesCase, instances: int) -> Iterator[Instance]:
    """Yield instances that serve the same tokens, each in an order of its own.

    One expert sits on every GPU, in order; attention is data-parallel.

    Parameters
    ----------
    choices
        uint8 [tokens, layers, k]: drawing other tokens for every instance would take longer than
        all the rest, and loads would be as skewed.
    case
        Where instances sit.
    instances
        At most `INSTANCES`.
    """
    r1 = model("DeepSeek-R1")
    attention = DataParallel(r1.layers, RANKS // GPUS_PER_SERVER, GPUS_PER_SERVER)
    placement = _placement(attention)
    sizes = MessageSizes.from_model(r1)
    for number in range(instances):
        rng = np.random.default_rng(number)
        chunk = choices[rng.permutation(len(choices))]
        sent = stream_exchange([chunk], placement, attention, sizes=sizes)
        yield Instance(seats(number, scattered=case.scattered), sent)


def seats(instance: int, *, scattered: bool) -> NDArray[np.int64]:
    """Return int64 [ranks]: the GPUs of an instance, whole servers."""
    server = np.arange(RANKS // GPUS_PER_SERVER)
    server = server * INSTANCES + instance if scattered else server + instance * len(server)
    return (server[:, None] * GPUS_PER_SERVER + np.arange(GPUS_PER_SERVER)).ravel()


def _placement(attention: DataParallel) -> Placement:
    r1 = model("DeepSeek-R1")
    far = 1 - np.eye(attention.servers, dtype=np.int64)
    profile = SyntheticWorkload(r1, 0).profile(RANKS)
    return Contiguous()(
        PlacementProblem.build(
            r1, far, attention, profile, gpus_per_server=attention.gpus_per_server
        )
    )


PLANES_SECTION = Section(
    "16,384 GPUs: 64 instances of R1 on 256 each, 128 tokens a GPU, eight planes of two levels",
    lambda _data, everything: planes_rows() if everything else [],
    {
        "seats": ("servers of an instance", ""),
        "rule": ("routing", ""),
        "pairs": ("pairs routed", ",d"),
        "step_ms": ("all in step ms", ".2f"),
        "alone_ms": ("slowest alone ms", ".2f"),
        "fabric_ms": ("links between switches ms", ".2f"),
        "seconds": ("seconds", ".1f"),
        "cpu_s": ("processor seconds", ".1f"),
        "peak_gib": ("peak GiB", ".2f"),
    },
    (
        Target(
            "16,384 GPUs, 64 instances: processor seconds",
            column("cpu_s"),
            MAX_SECONDS,
            form=".1f",
        ),
        Target("16,384 GPUs, 64 instances: GiB", column("peak_gib"), MAX_GIB),
    ),
    needs_data=False,
)
