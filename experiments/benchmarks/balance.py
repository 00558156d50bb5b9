"""Balanced placements of recorded R1 loads: hops against their bound, and the GPUs inside."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.clusters import find_cluster
from placement import IlpLoad, Pipelined, PlacementProblem, evaluate
from placement.balance.balanced import Balanced
from placement.balance.caps import layer_caps
from placement.balance.inside import spread_gpus
from topologies import Router
from workloads import model, read_logical_count

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BETAS = (1.1, 1.25, 1.5, 2.0, 3.0)
LAYER_SLOTS = (8, 16, 32)


def balance(
    data: Path,
    *,
    betas: Iterable[float] = BETAS,
    layer_slots: Iterable[int] = LAYER_SLOTS,
    repeats: int = 1,
) -> list[dict[str, Any]]:
    """Solve R1 on 32 servers of 8 GPUs, C_exp 464, for every beta and C_layer, layers relaxed.

    Parameters
    ----------
    data
        Folder of the recorded loads.
    betas, layer_slots
        The cases.
    repeats
        Every solve runs so often; the shortest time counts.

    Returns
    -------
    One row per case: hops, bound and gap; server balance; layers whose cap is above beta x mean
    with the largest such cap and its bound, both over the mean; seconds of the wall (shortest)
    and ``cpu_s`` of the processors (mean); what limited the search.
    """
    betas = tuple(betas)
    _compile(data)
    return [
        _case(r1_problem(data, slots), beta, repeats) for slots in layer_slots for beta in betas
    ]


def inside(data: Path, *, layer_slots: Iterable[int] = LAYER_SLOTS) -> list[dict[str, Any]]:
    """Deal the experts of hop-optimal servers to their GPUs: balance before, after, and bound."""
    rows = []
    _compile(data)
    for slots in layer_slots:
        problem = r1_problem(data, slots)
        placement = IlpLoad()(problem)
        begun = time.perf_counter()
        dealt = spread_gpus(problem, placement.server_of_expert)
        seconds = time.perf_counter() - begun
        gpus = placement.gpus
        rows.append(
            {
                "layer_slots": slots,
                "balance_gpu_in_turn": evaluate(placement, problem).balance_gpu,
                "balance_gpu": float(dealt.busiest.mean()) * gpus,
                "bound": float(dealt.bound.mean()) * gpus,
                "layers_proven": int(dealt.proven.sum()),
                "seconds": seconds,
            }
        )
    return rows


def r1_problem(data: Path, layer_slots: int) -> PlacementProblem:
    """Build R1 decode 1000/1000, pipelined, on the reference fat-tree."""
    r1 = model("DeepSeek-R1")
    loads = data / "deepseek-r1-loads" / "decode_in1000out1000.json"
    distance = Router(find_cluster("facts-fat-tree").spec.build()).server_distance()
    return PlacementProblem.build(
        r1,
        distance.astype(np.int_),
        Pipelined(r1.layers, 32, 8),
        read_logical_count(loads, r1),
        gpus_per_server=8,
        layer_slots=layer_slots,
        server_slots=464,
    )


def _case(problem: PlacementProblem, beta: float, repeats: int) -> dict[str, Any]:
    policy = Balanced(beta, relax=True)
    begun = time.process_time()
    placements = [policy(problem) for _ in range(repeats)]
    cpu_s = (time.process_time() - begun) / repeats
    report, judged = placements[0].solve, evaluate(placements[0], problem)
    assert report is not None  # noqa: S101  the policy reports
    caps = layer_caps(problem, beta, relax=True)
    short = np.flatnonzero(caps.short)
    return {
        "layer_slots": problem.layer_slots,
        "beta": beta,
        "hops": judged.hops_per_token_layer,
        "bound": report.bound_hops,
        "gap": report.gap,
        "balance_server": judged.balance_server,
        "layers_relaxed": len(short),
        "largest_cap": float(caps.cap.max()) * problem.servers,
        "largest_cap_bound": float(caps.least_bound[short].max(initial=0.0)) * problem.servers,
        "seconds": min(p.solve.seconds for p in placements if p.solve is not None),
        "cpu_s": cpu_s,
        "limit": report.limit,
    }


def _compile(data: Path) -> None:
    """Compile the kernels before anything is timed."""
    problem = r1_problem(data, 16)
    spread_gpus(problem, Balanced(3.0, relax=True, proposals=1)(problem).server_of_expert)
