"""Re-placement on recorded R1 loads: the curve of moves against hops, and the time it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.clusters import find_cluster
from experiments.curves import point_rows
from placement import IlpLoad, Pipelined, PlacementProblem, evaluate
from placement.moves.replace import Replace, count_moves, curve
from topologies import Router
from workloads import model, read_logical_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from placement import Placement

CASES = (
    ("decode 1000/1000 to 500/1500", "decode_in1000out1000", "decode_in500out1500"),
    ("prefill 1024 to decode 1000/1000", "prefill_in1024", "decode_in1000out1000"),
)
"""Name, load the previous placement was made for, and load that it meets."""

LAYER_SLOTS = (8, 16, 32)
KEPT = 0.943
"""Share of the pairs that the solve with a limit keeps."""
REPEATS = 2
"""Every solve runs so often; the shortest time counts (the first may compile)."""


def curve_rows(data: Path, *, points: int = 21, layer_slots: int = 8) -> list[dict[str, Any]]:
    """Return the whole curve of pairs moved against hops, for every case.

    Parameters
    ----------
    data
        Folder of the recorded loads.
    points
        Points of each curve.
    layer_slots
        C_layer, on 32 servers of 8 GPUs with C_exp 464.

    Returns
    -------
    list of dict
        ``case``, ``layer_slots``, ``moved`` (expert-server pairs), ``moved_share``, ``hops`` and
        ``bound_hops`` (per token and layer), ``recovered`` and ``bound_recovered`` (shares of
        what a full re-solve gains).
    """
    return [
        row
        for case, before, after in CASES
        for row in _curve(
            case, _problem(data, before, layer_slots), _problem(data, after, layer_slots), points
        )
    ]


def solve_rows(data: Path, *, layer_slots: Iterable[int] = LAYER_SLOTS) -> list[dict[str, Any]]:
    """Return what `Replace` keeps, recovers and takes, beside a full re-solve.

    Parameters
    ----------
    data
        Folder of the recorded loads.
    layer_slots
        Every C_layer to solve for.

    Returns
    -------
    list of dict
        ``case``, ``layer_slots``, ``policy``, ``kept`` (share of the expert-server pairs),
        ``slots_kept`` (share of the expert-GPU pairs), ``hops``, ``bound_hops``, ``recovered``
        and ``seconds``.
    """
    return [
        row
        for each in layer_slots
        for case, before, after in CASES
        for row in _solves(case, _problem(data, before, each), _problem(data, after, each))
    ]


def _curve(
    case: str, old: PlacementProblem, new: PlacementProblem, points: int
) -> Iterator[dict[str, Any]]:
    return point_rows(case, new, curve(new, IlpLoad()(old), points))


def _solves(case: str, old: PlacementProblem, new: PlacementProblem) -> Iterator[dict[str, Any]]:
    previous = IlpLoad()(old)
    kept = evaluate(previous, new).hops_per_token_layer
    limit = int((1 - KEPT) * new.layers * new.experts)
    full = _timed(IlpLoad(), new)[1]
    least = evaluate(full, new).hops_per_token_layer
    for name, policy in (
        ("full re-solve", IlpLoad()),
        ("replace", Replace(previous)),
        (f"replace, {limit} moves", Replace(previous, max_moves=limit)),
    ):
        seconds, placement = _timed(policy, new)
        report, moves = placement.solve, count_moves(previous, placement)
        assert report is not None  # noqa: S101  all of them report
        yield {
            "case": case,
            "layer_slots": new.layer_slots,
            "policy": name,
            "kept": moves.kept,
            "slots_kept": 1 - moves.slots / moves.experts,
            "hops": report.objective_hops,
            "bound_hops": report.bound_hops,
            "recovered": (kept - report.objective_hops) / (kept - least),
            "seconds": seconds,
        }


def _timed(policy: IlpLoad | Replace, problem: PlacementProblem) -> tuple[float, Placement]:
    best, placement = float("inf"), None
    for _ in range(REPEATS):
        begun = time.perf_counter()
        placement = policy(problem)
        best = min(best, time.perf_counter() - begun)
    assert placement is not None  # noqa: S101  it ran at least once
    return best, placement


def _problem(data: Path, load: str, layer_slots: int) -> PlacementProblem:
    r1 = model("DeepSeek-R1")
    return PlacementProblem.build(
        r1,
        Router(find_cluster("facts-fat-tree").spec.build()).server_distance().astype(np.int64),
        Pipelined(r1.layers, 32, 8),
        read_logical_count(data / "deepseek-r1-loads" / f"{load}.json", r1),
        gpus_per_server=8,
        layer_slots=layer_slots,
        server_slots=464,
    )
