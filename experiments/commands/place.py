"""`topomoe place`: one model on one cluster, beside the placement one would have had."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.atomic import check_destinations, write_atomic
from experiments.commands.front import front_files, write_front
from experiments.commands.show import console, figures_table, write_json
from experiments.metrics import expected_metrics, metrics
from experiments.run import place_experts, replayed
from experiments.spec import PlacementSpec, RunSpec, input_files
from experiments.tables import resolve
from placement import InfeasibleError, placement_json, read_placement
from placement.engines import accepting
from placement.moves import count_moves

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.run import Placed
    from placement import Placement, SolveReport
    from placement.moves import Moves


def run(
    content: dict[str, Any],
    *,
    against: str,
    out: Path | None,
    json_file: Path | None,
    pareto: Path | None = None,
) -> None:
    """Place, judge, compare, print, and write what was asked for."""
    spec = resolve(RunSpec, content, "place")
    fronts = [] if pareto is None else front_files(pareto)
    check_destinations([out, json_file, *fronts], inputs=input_files(spec))
    with console.status("drawing the trace, placing, replaying ..."):
        placed = place_experts(spec)
        other = _other(spec, against)
        columns = _judged(spec, placed, other, against)
    setting, placement = placed.setting, placed.placement
    console.print(
        f"{spec.model} on {spec.cluster}, {spec.attention.kind} attention; "
        f"{setting.workload.source}; "
        + (
            "not replayed"
            if placement.redundant
            else f"{setting.workload.trace.tokens} tokens replayed"
        )
    )
    console.print(figures_table(columns))
    for line in _remarks(spec, placed, columns, against):
        console.print(line)
    if out is not None:
        write_atomic(out, placement_json(placement))
        console.print(f"placement written to {out}")
    if pareto is not None:
        write_front(spec, setting.problem, pareto)
    write_json(json_file, _for_programs(spec, placed, columns, against))


def _other(spec: RunSpec, policy: str) -> Placed | None:
    """Place by the policy to compare with; None where the caps leave it no placement."""
    caps = {name: getattr(spec.placement, name) for name in ("layer_slots", "server_slots")}
    try:
        return place_experts(
            spec.model_copy(update={"placement": PlacementSpec(policy=policy, **caps)})
        )
    except InfeasibleError:
        return None


def _judged(
    spec: RunSpec, placed: Placed, other: Placed | None, against: str
) -> dict[str, dict[str, Any]]:
    """Figures of both placements: replayed, or as the profile expects them of replicas."""
    both = {placed.placement.policy: placed}
    if other is not None:
        both.setdefault(against, other)
    if any(each.placement.redundant for each in both.values()):
        return {name: expected_metrics(each) for name, each in both.items()}
    return {name: metrics(replayed(spec, each)) for name, each in both.items()}


def _remarks(
    spec: RunSpec, placed: Placed, columns: dict[str, dict[str, Any]], against: str
) -> list[str]:
    report, lines = placed.placement.solve, _what_it_is(spec, placed.placement)
    if report is not None:
        lines.append(
            f"solve: {report.status}, {report.seconds:.3f} s"
            + (f", stopped by the {report.limit} limit" if report.limit else "")
            + _in_its_unit(report)
        )
    if symmetric(placed.setting.problem.cost):
        lines.append(
            "Every placement has the same expected hops here: all servers are equally far from "
            "the tokens. Nothing is to gain on hops; what is left to win is balance, copies and "
            "replicas."
        )
    elif against in columns and against != placed.placement.policy:
        lines.append(_gains(columns[placed.placement.policy], columns[against], against))
    if against not in columns:
        lines.append(f"{against} does not fit the caps and is left out")
    return lines


def _in_its_unit(report: SolveReport) -> str:
    """Say what was minimised where it is not hops, which the table has."""
    if report.unit == "hops":
        return ""
    bound = "none" if report.bound is None else f"{report.bound:.6g} (gap {report.gap:.2%})"
    return f"; minimised {report.objective:.6g} in {report.unit}, proven lower bound {bound}"


def _gains(figures: dict[str, Any], others: dict[str, Any], against: str) -> str:
    if "step_s" not in figures:
        hops = figures["expected_hops"] / others["expected_hops"] - 1
        return f"against {against}: expected hops {100 * hops:+.1f} %"
    hops = figures["hops_per_token_layer"] / others["hops_per_token_layer"] - 1
    step = figures["step_s"] / others["step_s"] - 1
    return (
        f"against {against} on the same tokens: hops {100 * hops:+.1f} %, step {100 * step:+.1f} %"
    )


def _what_it_is(spec: RunSpec, placement: Placement) -> list[str]:
    """Say which engines load the placement, what moves and what is replicated."""
    lines = []
    if spec.placement.engine is None:
        loading = ", ".join(accepting(placement)) or "none"
        lines.append(f"engines that would load this placement: {loading} (--engine adds its rules)")
    if placement.redundant:
        each = placement.redundant / placement.layers
        lines.append(
            f"{each:g} redundant slots a layer, an expert's tokens shared equally by its "
            "replicas: priced from the profile, for a replay takes one slot per expert"
        )
    moves = _moves(spec, placement)
    if moves is not None:
        lines.append(
            f"moves {moves.slots:,} of {moves.experts:,} slots, {moves.inside:,} of them inside "
            f"their server; {100 * moves.kept:.1f} % of the expert-server pairs stay"
        )
    return lines


def _moves(spec: RunSpec, placement: Placement) -> Moves | None:
    if spec.placement.previous is None:
        return None
    return count_moves(read_placement(spec.placement.previous), placement)


def symmetric(cost: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Whether every server costs the same in every layer, to rounding."""
    return bool(np.ptp(cost, axis=1).max() <= 1e-9 * max(1.0, float(np.abs(cost).max())))


def _for_programs(
    spec: RunSpec, placed: Placed, columns: dict[str, dict[str, Any]], against: str
) -> dict[str, Any]:
    placement = placed.placement
    report, moves = placement.solve, _moves(spec, placement)
    return {
        "spec": spec.model_dump(mode="json"),
        "policy": placement.policy,
        **columns[placement.policy],
        "solve_s": report.seconds if report else placed.place_s,
        "symmetric": symmetric(placed.setting.problem.cost),
        "engines": accepting(placement),
        "redundant_slots": placement.redundant,
        "moves": {**asdict(moves), "kept": moves.kept} if moves else None,
        "against": {"policy": against, **columns[against]} if against in columns else None,
    }
