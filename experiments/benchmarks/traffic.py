"""Seconds and memory of counting a long trace's messages, bytes and hops from disk."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks.hop_speed import peak_bytes
from experiments.benchmarks.section import Section, Target, column
from experiments.clusters import find_cluster
from placement import Contiguous, DataParallel, Pipelined, PlacementProblem
from placement.field import Eplb
from sim.messages import MODES, MessageSizes, stream_exchange
from topologies import Router
from workloads import SyntheticWorkload, model, read_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from placement import Placement
    from sim.messages import DispatchMode, Exchange

TOKENS = 1_000_000
DRAWN = 1 << 15
"""Tokens that are drawn; the file repeats them, as drawing takes longer than counting."""
MAX_SECONDS, MAX_GIB = 25.0, 2.0


@dataclass(frozen=True, slots=True)
class TrafficCase:
    """How a trace is replayed.

    Attributes
    ----------
    mode, replica_rule
        As for `sim.messages.exchange`.
    redundant
        Slots of a layer beyond one per expert; placed by EPLB, without any contiguously.
    pipelined
        Results are collected elsewhere than they came from, so that both ways are counted;
        under data-parallel attention one mirrors the other.
    """

    mode: DispatchMode
    replica_rule: str = "equal"
    redundant: int = 0
    pipelined: bool = False


CASES = (
    *(TrafficCase(mode) for mode in MODES),
    TrafficCase("per_expert", "nearest", redundant=256),
    TrafficCase("per_server", "sglang_dynamic", redundant=256, pipelined=True),
)


def traffic_rows(
    *, tokens: int = TOKENS, cases: tuple[TrafficCase, ...] = CASES
) -> list[dict[str, Any]]:
    """Count every case in a process of its own, DeepSeek-R1 on 256 GPUs.

    Returns
    -------
    list of dict
        ``mode``, ``rule``, ``slots`` of a layer, ``attention``, ``tokens``, ``seconds`` of the
        wall from the file to bytes and hops, ``cpu_s``, ``peak_gib`` of the process,
        ``messages`` and ``hops`` per token and layer, ``byte_hops``.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder) / "choices.npy"
        write_trace(file, tokens)
        return [_apart(file, case) for case in cases]


def write_trace(file: Path, tokens: int) -> None:
    """Write choices uint8 [tokens, 58, 8] with R1-like loads, `DRAWN` tokens over and over."""
    r1 = model("DeepSeek-R1")
    drawn = SyntheticWorkload(r1, 0).trace(min(DRAWN, tokens)).topk
    shape = (tokens, r1.layers, r1.top_k)
    stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    for first in range(0, tokens, len(drawn)):
        stored[first : first + len(drawn)] = drawn[: tokens - first]
    stored.flush()


def _apart(file: Path, case: TrafficCase) -> dict[str, Any]:
    """Measure in a fresh process, whose peak of memory is the case's own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, file, case).result()


def measure(file: Path, case: TrafficCase) -> dict[str, Any]:
    """Count one case, compiled beforehand."""
    r1, router = model("DeepSeek-R1"), Router(find_cluster("facts-fat-tree").spec.build())
    servers, width = router.cluster.servers, router.cluster.gpus_per_server
    kind = Pipelined if case.pipelined else DataParallel
    attention = kind(r1.layers, servers, width)
    distance = router.server_distance().astype(np.int64)
    placement = _placement(case, attention, distance)
    sizes = MessageSizes.from_model(r1, case.mode)

    def count(chunks: Iterator[Any]) -> tuple[Exchange, int, int]:
        both = stream_exchange(
            chunks,
            placement,
            attention,
            sizes=sizes,
            mode=case.mode,
            replica_rule=case.replica_rule,
            server_distance=distance,
        )
        return both, *_hops(both, router)

    count(iter([next(read_chunks(file, r1, tokens=256))]))
    begun, begun_cpu = time.perf_counter(), time.process_time()
    both, hops, byte_hops = count(read_chunks(file, r1))
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    tokens = int(both.origin_tokens[0].sum())
    messages = sum(int(each.count.sum()) for each in (*both.dispatch, *both.combine))
    return {
        "mode": case.mode,
        "rule": case.replica_rule,
        "slots": r1.experts + case.redundant,
        "attention": attention.name,
        "tokens": tokens,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_gib": peak_bytes() / 2**30,
        "messages": messages / (tokens * r1.layers),
        "hops": hops / (tokens * r1.layers),
        "byte_hops": byte_hops,
    }


def _placement(case: TrafficCase, attention: DataParallel | Pipelined, distance: Any) -> Placement:
    r1 = model("DeepSeek-R1")
    problem = PlacementProblem.build(
        r1,
        distance,
        attention,
        SyntheticWorkload(r1, 0).profile(4096),
        gpus_per_server=attention.gpus_per_server,
    )
    return Eplb(redundant=case.redundant)(problem) if case.redundant else Contiguous()(problem)


def _hops(both: Exchange, router: Router) -> tuple[int, int]:
    """Return network links crossed, and bytes times links, of all messages."""
    hops = byte_hops = 0
    for each in (*both.dispatch, *both.combine):
        crossed = int(router.hops(each.src, each.dst).astype(np.int64) @ each.count)
        hops += crossed
        byte_hops += crossed * each.message_bytes
    return hops, byte_hops


TRAFFIC_SECTION = Section(
    "Counting a long trace: 1,000,000 tokens of R1 from disk to messages, bytes and hops",
    lambda _data, everything: traffic_rows() if everything else [],
    {
        "mode": ("dispatch", ""),
        "attention": ("attention", ""),
        "slots": ("slots", ""),
        "rule": ("replica rule", ""),
        "messages": ("messages/token/layer", ".3f"),
        "hops": ("hops/token/layer", ".3f"),
        "seconds": ("seconds", ".1f"),
        "cpu_s": ("cpu seconds", ".1f"),
        "peak_gib": ("peak GiB", ".2f"),
    },
    (
        Target("1,000,000 R1 tokens counted: seconds", column("seconds"), MAX_SECONDS, form=".1f"),
        Target("1,000,000 R1 tokens counted: GiB", column("peak_gib"), MAX_GIB),
    ),
    needs_data=False,
)
