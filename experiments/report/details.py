"""What the page draws of single runs: their cluster under load, and their layers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.report.network import Drawing, cluster_of, rounded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from experiments.report.runs import ReportRun

LAYERS = {
    "dispatch_busiest_link_s": ("busiest link in dispatch, us", 1e6),
    "combine_busiest_link_s": ("busiest link in combine, us", 1e6),
    "balance_gpu": ("busiest GPU / mean", 1.0),
    "balance_server": ("busiest server / mean", 1.0),
    "compute_s": ("a GPU computes, us", 1e6),
    "exposed_transfer_s": ("a GPU sends or receives meanwhile idle, us", 1e6),
    "waiting_s": ("a GPU waits for others, us", 1e6),
    "straggler_s": ("last GPU behind the median, us", 1e6),
}
"""Columns of the table of layers that are drawn: what they are called, and their scale."""


@dataclass(frozen=True, slots=True, eq=False)
class Details:
    """Of those runs that have tables, and for which there is room.

    Attributes
    ----------
    drawings
        Clusters, as `Drawing.content`.
    of_run
        By run id: ``cluster`` (index into `drawings`, None without a drawing), ``lines``, ``gpus``
        and ``layers``.
    left_out
        Runs that have tables, but no room.
    """

    drawings: list[dict[str, Any]]
    of_run: dict[str, dict[str, Any]]
    left_out: int


def read_details(runs: Iterable[ReportRun], room: int) -> Details:
    """Read the tables of runs, the first of every policy and cell first.

    Parameters
    ----------
    runs
        In the order of the page.
    room
        Bytes that all of it may take.
    """
    found: dict[str, dict[str, Any]] = {}
    drawn: dict[str, tuple[int, Drawing | None]] = {}
    left_out = 0
    for run in _in_turn(runs):
        if room <= 0:
            left_out += 1
            continue
        tables = run.store.arrays(run.run_id)
        detail = _detail(run, tables, drawn)
        if detail is not None:
            room -= len(json.dumps(detail))
            found[run.run_id] = detail
    drawings = [each.content for _, each in drawn.values() if each is not None]
    return Details(drawings, found, left_out)


def _in_turn(runs: Iterable[ReportRun]) -> list[ReportRun]:
    """Return one run of every policy and cell, then the second ones, and so on."""
    seen: dict[tuple[str, str], int] = {}
    turns = []
    for run in runs:
        turn = seen[run.cell, run.policy] = seen.get((run.cell, run.policy), -1) + 1
        turns.append((turn, run))
    return [run for _, run in sorted(turns, key=lambda each: each[0])]


def _detail(
    run: ReportRun, tables: dict[str, pd.DataFrame], drawn: dict[str, tuple[int, Drawing | None]]
) -> dict[str, Any] | None:
    detail: dict[str, Any] = {}
    if "layers" in tables:
        layers = tables["layers"]
        detail["layers"] = {
            key: rounded(layers[key] * scale) for key, (_, scale) in LAYERS.items() if key in layers
        }
    if "gpus" in tables:
        detail["gpus"] = [int(tokens) for tokens in tables["gpus"]["expert_tokens"]]
    if "links" in tables:
        at, drawing = _drawing(run, tables, drawn)
        if drawing is not None:
            detail |= {"cluster": at, "lines": drawing.loads(tables["links"])}
    return detail or None


def _drawing(
    run: ReportRun, tables: dict[str, pd.DataFrame], drawn: dict[str, tuple[int, Drawing | None]]
) -> tuple[int, Drawing | None]:
    key = f"{run.spec['cluster']}\0{run.spec.get('sha256.cluster')}"
    if key not in drawn:
        cluster = cluster_of(run, tables)
        index = sum(each is not None for _, each in drawn.values())
        drawn[key] = (index, None if cluster is None else Drawing(cluster))
    return drawn[key]
