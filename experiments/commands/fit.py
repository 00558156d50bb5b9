"""`topomoe fit`: a synthetic workload like a recorded one, and how like it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from experiments.atomic import check_destinations, write_atomic
from experiments.commands.show import console, write_json
from experiments.commands.stats import LABELS, text
from experiments.errors import ExperimentError
from experiments.recordings import read_recording, recorded_model
from experiments.workload_file import fitted_file, workload_text
from workloads import (
    count_trace,
    fit_curve,
    fit_trace,
    load_statistics,
    trace_statistics,
)

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.recordings import Recording
    from experiments.workload_file import WorkloadFile
    from workloads import MoEModel, WorkloadStatistics

SEEDS = (1, 2, 3)
"""Seeds the fitted workload is drawn from for the table; none is that of the fit."""
MOST_TOKENS = 1 << 16
"""Most tokens that are drawn for the table."""
_SHAPE = ("tokens", "sequences", "layers", "experts", "unused_experts")
_CORRELATIONS = (
    "prefill_decode_correlation",
    "prefill_decode_least",
    "domain_correlation",
    "domain_least",
    "drift_ends_correlation",
)
"""Figures about zero, whose difference is said, not a ratio."""


def run(
    file: Path, *, model: str | None, out: Path | None, seed: int, json_file: Path | None
) -> None:
    """Fit, draw the fit anew, print both beside each other, and write what was asked for."""
    if out is not None and out.suffix not in (".toml", ".json"):
        raise ExperimentError(f"{out}: expected the name of a .toml or .json file")
    check_destinations([out, json_file], inputs=[file])
    recording = read_recording(file, model)
    shape = recorded_model(file, model)
    with console.status("fitting ..."):
        fitted = _fitted(recording, shape, seed)
        drawn = [_figures(recording, fitted, shape, each) for each in SEEDS]
    rows = compared(recording.figures, drawn)
    seeds = ", ".join(map(str, SEEDS))
    console.print(f"{recording.name}, and drawn from its fit, mean of seeds {seeds}")
    console.print(_table(rows))
    for line in recording.warnings:
        console.print(f"{recording.name}: {line}", soft_wrap=True)
    if out is not None:
        write_atomic(out, workload_text(fitted, as_json=out.suffix == ".json"))
        console.print(f"workload written to {out}")
    write_json(
        json_file, {"workload": fitted.model_dump(mode="json", exclude_none=True), "figures": rows}
    )


def _fitted(recording: Recording, shape: MoEModel, seed: int) -> WorkloadFile:
    if recording.counts is None:
        return fitted_file(recording.name, fit_curve(recording.load, shape), None)
    curve, topics = fit_trace(recording.counts, recording.figures, shape, seed=seed)
    return fitted_file(recording.name, curve, topics)


def _figures(
    recording: Recording, fitted: WorkloadFile, shape: MoEModel, seed: int
) -> WorkloadStatistics:
    workload = fitted.workload(shape, seed)
    if recording.counts is None:
        return load_statistics(workload.load, source=workload.source)
    trace = workload.trace(min(recording.counts.tokens, MOST_TOKENS))
    return trace_statistics(count_trace(trace))


def compared(
    wanted: WorkloadStatistics, drawn: list[WorkloadStatistics]
) -> dict[str, dict[str, Any]]:
    """Return every figure as recorded and as drawn.

    Returns
    -------
    dict
        By name: ``recorded``; ``drawn``, the mean over seeds; ``off``, their ratio less 1, or the
        difference of correlations; ``least`` and ``most`` of the seeds.
    """
    rows: dict[str, dict[str, Any]] = {}
    columns = [asdict(each) for each in drawn]
    for key, value in asdict(wanted).items():
        values = [column[key] for column in columns]
        if key in _SHAPE or not isinstance(value, float) or None in values:
            continue
        mean = sum(values) / len(values)
        off = mean - value if key in _CORRELATIONS else mean / value - 1 if value else None
        least, most = min(values), max(values)
        rows[key] = {"recorded": value, "drawn": mean, "off": off, "least": least, "most": most}
    return rows


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    laid = Table(show_edge=False, header_style="bold")
    laid.add_column("means over layers", no_wrap=True)
    for head in ("recorded", "drawn", "off"):
        laid.add_column(head, justify="right", no_wrap=True)
    for key, label in LABELS.items():
        if key not in rows:
            continue
        row = rows[key]
        off = "-" if row["off"] is None else f"{100 * row['off']:+.1f} %"
        if key in _CORRELATIONS:
            off = f"{row['off']:+.3f}"
        laid.add_row(label, text(key, row["recorded"]), text(key, row["drawn"]), off)
    return laid
