"""`topomoe stats`: how uneven, how correlated, how steady recordings are, and how sure that is."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from experiments.atomic import check_destinations, staged
from experiments.commands.show import console, write_json
from experiments.errors import ExperimentError
from experiments.recordings import read_recording
from workloads import correlations, total_variation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from experiments.recordings import Recording

LABELS = {
    "tokens": "tokens",
    "sequences": "sequences",
    "layers": "MoE layers",
    "experts": "experts",
    "gini": "Gini coefficient of the loads",
    "hottest_share": "share of the hottest expert",
    "top_eighth_share": "share of the hottest eighth",
    "max_over_mean": "hottest expert / mean",
    "max_over_mean_error": "  its standard error",
    "max_over_mean_most": "  in the worst layer",
    "loglog_slope": "log-log slope, hotter half",
    "unused_experts": "experts never chosen, all layers",
    "pair_excess": "pairs: variation from chance",
    "pair_top_share": "pairs: share of the top hundredth",
    "affinity_excess": "next layer: variation from chance",
    "prefill_decode_correlation": "prefill and decode: correlation",
    "prefill_decode_least": "  in the worst layer",
    "domain_correlation": "domains: correlation",
    "domain_least": "  in the worst layer",
    "drift_neighbours": "drift: variation of neighbouring eighths",
    "drift_ends": "drift: variation of first and last",
    "drift_ends_correlation": "drift: correlation of first and last",
    "design_effect": "variance / that of lone tokens",
    "load_error": "standard error of a load / mean",
}
"""Figures in the order tables list them; means over layers unless they say otherwise."""
FIGURES = ("loads", "choices")
_WHOLE = ("tokens", "sequences", "layers", "experts", "unused_experts")


def run(
    files: Sequence[Path], *, model: str | None, out: Path | None, json_file: Path | None
) -> None:
    """Count every file, print figures and warnings side by side, draw and write what was asked."""
    if not files:
        raise ExperimentError("no file: expected recorded loads or traces")
    drawn = [] if out is None else [out / f"{n}.{kind}" for n in FIGURES for kind in ("pdf", "png")]
    check_destinations([*drawn, json_file], inputs=files)
    recordings = [read_recording(path, model) for path in files]
    names = _names(recordings)
    console.print(table({n: asdict(r.figures) for n, r in zip(names, recordings, strict=True)}))
    between = compared(names, recordings)
    if between:
        console.print(_between_table(between))
    for name, recording in zip(names, recordings, strict=True):
        for line in recording.warnings:
            console.print(f"{name}: {line}", soft_wrap=True)
    if out is not None:
        _draw(names, recordings, out)
    described = [_for_programs(each) for each in recordings]
    write_json(json_file, {"files": described, "between": between})


def table(columns: dict[str, dict[str, Any]]) -> Table:
    """Lay figures out side by side; what none has is left out."""
    laid = Table(show_edge=False, header_style="bold")
    laid.add_column("means over layers", no_wrap=True)
    for name in columns:
        laid.add_column(name, justify="right", overflow="fold")
    for key, label in LABELS.items():
        values = [figures.get(key) for figures in columns.values()]
        if any(value is not None for value in values):
            laid.add_row(label, *(text(key, value) for value in values))
    return laid


def compared(names: Sequence[str], recordings: Sequence[Recording]) -> list[dict[str, Any]]:
    """Compare the loads of every two files of one shape: prefill with decode, task with task.

    Returns
    -------
    list of dict
        ``first`` and ``second`` file; ``correlation`` (Pearson) of their loads, mean over layers,
        and ``least`` of a layer; ``variation``, total, mean over layers.
    """
    rows = []
    for (one, first), (two, second) in combinations(zip(names, recordings, strict=True), 2):
        if first.load.shape != second.load.shape:
            continue
        values = correlations(first.load, second.load)
        known = values[np.isfinite(values)]
        rows.append(
            {
                "first": one,
                "second": two,
                "correlation": float(known.mean()) if len(known) else None,
                "least": float(known.min()) if len(known) else None,
                "variation": total_variation(first.load, second.load),
            }
        )
    return rows


def _between_table(rows: list[dict[str, Any]]) -> Table:
    laid = Table(show_edge=False, header_style="bold")
    laid.add_column("loads of two files")
    for name in ("correlation", "worst layer", "total variation"):
        laid.add_column(name, justify="right")
    for row in rows:
        values = (row["correlation"], row["least"], row["variation"])
        shown = ("-" if value is None else f"{value:.3f}" for value in values)
        laid.add_row(f"{row['first']}, {row['second']}", *shown)
    return laid


def text(key: str, value: float | None) -> str:
    """Return a figure as tables show it."""
    if value is None:
        return "-"
    return f"{value:,d}" if key in _WHOLE else f"{value:.4f}"


def _names(recordings: Sequence[Recording]) -> list[str]:
    """Return the files' names, with as much of their folders as tells them apart."""
    names = [each.name for each in recordings]
    if len(set(names)) < len(names):
        names = [str(each.path) for each in recordings]
    if len(set(names)) < len(names):
        raise ExperimentError(f"{recordings[0].path}: a file is given twice")
    return names


def _draw(names: Sequence[str], recordings: Sequence[Recording], out: Path) -> None:
    from experiments.figures import recorded, save  # noqa: PLC0415  matplotlib loads slowly

    named = dict(zip(names, recordings, strict=True))
    traces = {name: each.counts for name, each in named.items() if each.counts is not None}
    with staged(out) as stage:
        save(recorded.loads_figure({n: each.load for n, each in named.items()}), stage, "loads")
        if traces:
            save(recorded.choices_figure(traces), stage, "choices")
    console.print(f"figures written to {out}/")


def _for_programs(recording: Recording) -> dict[str, Any]:
    return {
        "file": str(recording.path),
        **asdict(recording.figures),
        "warnings": list(recording.warnings),
    }
