"""Everything a run gives to programs: its figures, what its solve says, and its tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from experiments.commands.remarks import memory_figures, moves_made, symmetric
from experiments.commands.solved import congestion_figures
from experiments.metrics import metrics, profile_metrics
from placement.engines import accepting
from sim.tables import gpus_table, hops_table, layers_table, links_table, utilisation_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from experiments.run import Placed, RunResult
    from experiments.spec import RunSpec
    from sim import SimResult

_MAKERS = {
    "links": links_table,
    "layers": layers_table,
    "gpus": gpus_table,
    "utilisation": utilisation_table,
    "hops": hops_table,
}

TABLES = tuple(_MAKERS)
"""Tables a replay can be written as."""


def run_figures(spec: RunSpec, result: RunResult) -> dict[str, Any]:
    """Return the figures of a run by name: expected, replayed, and where the step's time went."""
    return {
        **metrics(result),
        **profile_metrics(result, capped=spec.placement.beta is not None),
        **result.replay.step_metrics(),
        **result.replay.fault_metrics(),
    }


def lost_experts(replay: SimResult) -> dict[str, list[list[int]]]:
    """Return layer and expert of those without a living replica; nothing without faults."""
    return {} if replay.losses is None else {"lost_expert_ids": replay.losses.experts.tolist()}


def placement_figures(spec: RunSpec, placed: Placed) -> dict[str, Any]:
    """Return what the solve says of a placement, and who would load it."""
    placement, congestion = placed.placement, placed.choice.congestion
    report, moves = placement.solve, moves_made(spec, placed)
    return {
        "objective": report.objective if report else None,
        "bound": report.bound if report else None,
        "unit": report.unit if report else None,
        "limit": report.limit if report else None,
        "symmetric": symmetric(placed.setting.problem.cost),
        "engines": accepting(placement),
        "redundant_slots": placement.redundant,
        "replica_rule": spec.placement.replica_rule if placement.redundant else None,
        "moves": {**asdict(moves), "kept": moves.kept} if moves else None,
        "congestion": congestion_figures(congestion) if congestion else None,
        "memory": memory_figures(placed),
        "notes": list(placed.choice.notes),
    }


def solve_seconds(placed: Placed) -> float:
    """Wall seconds of the solve: as its report says, else of the whole policy."""
    report = placed.placement.solve
    return report.seconds if report else placed.place_s


def tables(replay: SimResult, names: Iterable[str] = TABLES) -> dict[str, pd.DataFrame]:
    """Return what a replay measured, by link, layer, GPU, link and time, and hops."""
    return {name: _MAKERS[name](replay) for name in names}
