"""`topomoe place`: one model on one cluster, beside the placement one would have had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.atomic import check_destinations, write_atomic
from experiments.commands.show import console, figures_table, write_json
from experiments.metrics import metrics
from experiments.run import RunResult, execute
from experiments.spec import RunSpec, input_files
from experiments.tables import resolve
from placement import InfeasibleError, placement_json

if TYPE_CHECKING:
    from pathlib import Path


def run(content: dict[str, Any], *, against: str, out: Path | None, json_file: Path | None) -> None:
    """Place, judge, compare, print, and write what was asked for."""
    spec = resolve(RunSpec, content, "place")
    check_destinations([out, json_file], inputs=input_files(spec))
    with console.status("drawing the trace, placing, replaying ..."):
        result = execute(spec)
        other = _other(spec, against)
    columns = {result.placement.policy: metrics(result)}
    if other is not None and against != result.placement.policy:
        columns[against] = metrics(other)
    console.print(
        f"{spec.model} on {spec.cluster}, {spec.attention.kind} attention; "
        f"{result.setting.workload.source}; {result.replay.tokens} tokens replayed"
    )
    console.print(figures_table(columns))
    for line in _remarks(result, other, against):
        console.print(line)
    if out is not None:
        write_atomic(out, placement_json(result.placement))
        console.print(f"placement written to {out}")
    write_json(json_file, _for_programs(spec, result, columns, against))


def _other(spec: RunSpec, policy: str) -> RunResult | None:
    """Run the policy to compare with; None where the caps leave it no placement."""
    placement = spec.placement.model_copy(update={"policy": policy, "file": None})
    try:
        return execute(spec.model_copy(update={"placement": placement}))
    except InfeasibleError:
        return None


def _remarks(result: RunResult, other: RunResult | None, against: str) -> list[str]:
    report, lines = result.placement.solve, []
    if report is not None:
        lines.append(
            f"solve: {report.status}, {report.seconds:.3f} s"
            + (f", stopped by the {report.limit} limit" if report.limit else "")
        )
    if symmetric(result.setting.problem.cost):
        lines.append(
            "Every placement has the same expected hops here: all servers are equally far from "
            "the tokens. Nothing is to gain on hops; what is left to win is balance, copies and "
            "replicas."
        )
    elif other is not None and other.placement.policy != result.placement.policy:
        hops = result.replay.hops_per_token_layer / other.replay.hops_per_token_layer - 1
        step = result.replay.step_s / other.replay.step_s - 1
        lines.append(
            f"against {against} on the same tokens: hops {100 * hops:+.1f} %, "
            f"step {100 * step:+.1f} %"
        )
    if other is None:
        lines.append(f"{against} does not fit the caps and is left out")
    return lines


def symmetric(cost: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Whether every server costs the same in every layer, to rounding."""
    return bool(np.ptp(cost, axis=1).max() <= 1e-9 * max(1.0, float(np.abs(cost).max())))


def _for_programs(
    spec: RunSpec, result: RunResult, columns: dict[str, dict[str, Any]], against: str
) -> dict[str, Any]:
    report = result.placement.solve
    return {
        "spec": spec.model_dump(mode="json"),
        "policy": result.placement.policy,
        **columns[result.placement.policy],
        "solve_s": report.seconds if report else result.place_s,
        "symmetric": symmetric(result.setting.problem.cost),
        "against": {"policy": against, **columns[against]} if against in columns else None,
    }
