"""`topomoe simulate`: one run file, one result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.atomic import check_destinations, staged, write_atomic
from experiments.commands.balance_said import cap_labels
from experiments.commands.remarks import described
from experiments.commands.show import console, figures_table, write_json
from experiments.errors import ExperimentError
from experiments.outputs import parquet
from experiments.programs import TABLES, lost_experts, run_figures, tables
from experiments.run import execute
from experiments.run_files import read_run
from experiments.spec import input_files
from sim.errors import LawViolation, SimulationError

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.run import RunResult
    from experiments.spec import RunSpec
    from sim import SimResult

NAMED = 8
"""Lost experts that are named in print; ``--json`` has all."""


def run(run_file: Path, *, out: Path | None, json_file: Path | None, perfetto: Path | None) -> None:
    """Replay the run, print its figures, and write what was asked for."""
    spec = read_run(run_file)
    files = [out / f"{name}.parquet" for name in TABLES] if out is not None else []
    check_destinations([*files, json_file, perfetto], inputs=[run_file, *input_files(spec)])
    result = _executed(spec, run_file)
    figures = run_figures(spec, result)
    console.print(
        f"{result.setting.model.name} on {spec.cluster}, {spec.attention.kind} attention, "
        f"{spec.network.kind} network with {spec.network.routing} routing, {_step(spec)}; "
        f"{result.setting.workload.source}; {result.replay.tokens} tokens"
    )
    console.print(figures_table({result.placement.policy: figures}, caps=cap_labels(spec)))
    for line in (*described(spec, result), *_lost(result.replay), *_late(spec, result.replay)):
        console.print(line)
    if out is not None:
        with staged(out) as stage:
            for name, table in tables(result.replay).items():
                write_atomic(stage / f"{name}.parquet", parquet(table))
        console.print(f"tables written to {out}/")
    if perfetto is not None:
        _write_trace(perfetto, result.replay)
    write_json(
        json_file,
        {
            "spec": spec.model_dump(mode="json"),
            "policy": result.placement.policy,
            **figures,
            **lost_experts(result.replay),
        },
    )


def _executed(spec: RunSpec, run_file: Path) -> RunResult:
    """Run; what the simulator refuses and routes that do not fit come from the run file."""
    try:
        return execute(spec)
    except LawViolation:
        raise
    except (SimulationError, ExperimentError) as error:
        text = str(error)
        named = text.startswith(tuple(name for name in input_files(spec) if name))
        raise type(error)(text if named else f"{run_file}: {text}") from error


def _step(spec: RunSpec) -> str:
    """What is sent and computed, in a few words."""
    step = spec.step
    gpu = "constant rate" if step.gpu is None else f"{step.phase} on {step.gpu}"
    parts = "" if step.micro_batches == 1 else f" in {step.micro_batches} micro-batches"
    return f"{spec.dispatch.mode} dispatch, {gpu}{parts}"


def _lost(replay: SimResult) -> list[str]:
    """Say which experts nobody answered for, a sentence or none."""
    if replay.losses is None or not len(replay.losses.experts):
        return []
    experts, choices = replay.losses.experts.tolist(), int(replay.losses.choices.sum())
    names = ", ".join(f"({layer}, {expert})" for layer, expert in experts[:NAMED])
    more = f" and {len(experts) - NAMED} more" if len(experts) > NAMED else ""
    said = f"{names}{more} had no living replica when their layer was issued"
    return [f"lost experts (layer, expert): {said}; {choices} choices were not answered"]


def _late(spec: RunSpec, replay: SimResult) -> list[str]:
    """Say which faults the step did not live to see, a sentence or none."""
    if replay.losses is None or len(replay.losses.faults) == len(spec.faults):
        return []
    whole, late = len(spec.faults), len(spec.faults) - len(replay.losses.faults)
    return [f"{late} of {whole} faults: after the step, which ends at {replay.step_s:.4g} s"]


def _write_trace(path: Path, replay: SimResult) -> None:
    from sim.perfetto import perfetto_trace  # noqa: PLC0415  brings in numba and SimPy

    trace = perfetto_trace(replay)
    write_atomic(path, trace.content)
    console.print(f"trace of {trace.events} events written to {path}; see ui.perfetto.dev")
    if trace.cut is not None:
        console.print(f"cut to {trace.cut}")
