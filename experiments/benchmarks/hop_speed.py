"""Seconds and memory of the exact hop program, beside the program as the paper writes it."""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.clusters import find_cluster
from placement import IlpLoad, NaiveIlpLoad, Pipelined, PlacementProblem
from topologies import ClusterSpec, Router
from workloads import ExpertProfile, model, synthetic_load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from placement import Placement, Policy

REPEATS = 3
"""The flow is solved so often; the shortest time counts (the first imports the solver)."""

SOLVERS: dict[str, Policy] = {
    "flow": IlpLoad(),
    "as written, relaxed": NaiveIlpLoad(integer=False),
    "as written, binary": NaiveIlpLoad(),
}
"""The flow first; then the program as the paper writes it."""


@dataclass(frozen=True, slots=True)
class HopCase:
    """A model on a cluster, and the seconds that its hop program may take.

    Attributes
    ----------
    model, cluster
        Names; a cluster is one that `find_cluster` knows, or one of `SCALED`.
    needed_s
        Required seconds, model building included.
    """

    model: str
    cluster: str
    needed_s: float


SCALED: dict[str, dict[str, int]] = {
    "64 servers": {"servers_per_leaf": 8},
    "256 single-GPU servers": {"servers_per_leaf": 32, "gpus_per_server": 1},
    "512 servers": {"pods": 8, "leaves_per_pod": 8, "servers_per_leaf": 8},
    "2048 servers": {"pods": 16, "leaves_per_pod": 16, "servers_per_leaf": 8},
}
"""The reference fat-tree with other parameters."""

CASES = (
    HopCase("DeepSeek-R1", "fat-tree", 0.4),
    HopCase("DeepSeek-R1", "dragonfly", 0.4),
    HopCase("DeepSeek-R1", "fat-tree-sparse", 0.8),
    HopCase("DeepSeek-R1", "dragonfly-sparse", 0.8),
    HopCase("DeepSeek-R1", "64 servers", 0.5),
    HopCase("DeepSeek-R1", "256 single-GPU servers", 2.0),
    HopCase("Kimi-K2", "512 servers", 5.0),
    HopCase("Kimi-K2", "2048 servers", 8.0),
)


def hop_rows(
    *, naive: Mapping[str, tuple[str, ...]], cases: tuple[HopCase, ...] = CASES
) -> list[dict[str, Any]]:
    """Solve every case in a process of its own, and some as the paper writes them.

    Loads are synthetic with R1's skew, attention is pipelined, C_layer is twice a server's share
    of a layer and C_exp its share of all experts.

    Parameters
    ----------
    naive
        Other solvers by cluster; they run straight after the flow.
    cases
        What to solve.

    Returns
    -------
    list of dict
        ``model``, ``cluster``, ``servers``, ``solver``, ``seconds`` of the wall (best of `REPEATS`
        for the flow, of one for the program as written) and ``cpu_s`` of that run, ``needed_s``
        (None as written), ``peak_gib`` of the process, ``hops`` per token and layer, ``status``,
        ``slower``: processor seconds over the flow's, which a busy machine does not change.
    """
    rows = []
    for case in cases:
        ours = 0.0
        for solver in ("flow", *naive.get(case.cluster, ())):
            row = _apart(case, solver)
            ours = ours or row["cpu_s"]
            needed = case.needed_s if solver == "flow" else None
            rows.append(row | {"needed_s": needed, "slower": row["cpu_s"] / ours})
    return rows


def hop_problem(case: HopCase) -> PlacementProblem:
    """Build the problem of a case, with the caps that both bind."""
    shape = model(case.model)
    cluster = _spec(case.cluster).build()
    load = synthetic_load(shape, np.random.Generator(np.random.PCG64(0)))
    return PlacementProblem.build(
        shape,
        Router(cluster).server_distance().astype(np.int64),
        Pipelined(shape.layers, cluster.servers, cluster.gpus_per_server),
        ExpertProfile(load=load, source="synthetic, R1-like, seed 0"),
        gpus_per_server=cluster.gpus_per_server,
    )


def _spec(cluster: str) -> ClusterSpec:
    if cluster not in SCALED:
        return find_cluster(cluster).spec
    reference = find_cluster("facts-fat-tree").spec
    return replace(reference, parameters={**reference.parameters, **SCALED[cluster]})


def _apart(case: HopCase, solver: str) -> dict[str, Any]:
    """Measure in a fresh process, whose peak of memory is the case's own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, case, solver).result()


def _measure(case: HopCase, solver: str) -> dict[str, Any]:
    problem = hop_problem(case)
    repeats = REPEATS if solver == "flow" else 1
    runs = [_timed(solver, problem) for _ in range(repeats)]
    seconds, cpu_s, placement = min(runs, key=lambda run: run[0])
    report = placement.solve
    assert report is not None  # noqa: S101  both policies report
    return {
        "model": case.model,
        "cluster": case.cluster,
        "servers": problem.servers,
        "solver": solver,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_gib": peak_bytes() / 2**30,
        "hops": report.objective_hops,
        "status": report.status,
    }


def _timed(solver: str, problem: PlacementProblem) -> tuple[float, float, Placement]:
    """Return seconds of the wall, of the processors, and the placement."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    placement = SOLVERS[solver](problem)
    return time.perf_counter() - begun, time.process_time() - begun_cpu, placement


def peak_bytes() -> int:
    """Most memory that this process held at a time.

    Linux counts what the parent held before this program started into `getrusage`, so its own
    high-water mark is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        marks = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if marks:
            return int(marks[0].split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
