"""The paper's study end to end: run every cell, tell what came of it, draw the figures."""

from __future__ import annotations

import time
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.errors import RunError
from experiments.metrics import KEYS, links_frame, solve_row, study_row
from experiments.run import execute
from experiments.study import Study, runs
from experiments.sweeping.executors import default_workers, lane_pool
from experiments.sweeping.lane import WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.spec import RunSpec

    Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class StudyResult:
    """All tables of the study.

    Attributes
    ----------
    hops
        A row per run; see `experiments.metrics.study_row`, and `saving_pct` over round-robin.
    links
        A row per run and link.
    solves
        A row per run: status, bound, gap and seconds.
    seconds, workers
        Wall time of all runs, and the processes they were spread over.
    """

    hops: pd.DataFrame
    links: pd.DataFrame
    solves: pd.DataFrame
    seconds: float
    workers: int


def run_study(study: Study, *, workers: int | None, progress: Progress) -> StudyResult:
    """Run every cell on a pool of processes.

    Parameters
    ----------
    study
        What to run.
    workers
        Processes; None for one per core, 4 at most.
    progress
        Called with what has just finished, how many runs are done, and how many there are.
    """
    begun = time.perf_counter()
    specs, workers = runs(study), workers or default_workers()
    cells = _run_all(specs, workers, progress)
    hops = _with_saving(pd.DataFrame([row for row, _, _ in cells]))
    return StudyResult(
        hops=hops,
        links=pd.concat([links for _, _, links in cells], ignore_index=True),
        solves=pd.DataFrame([solve for _, solve, _ in cells]),
        seconds=time.perf_counter() - begun,
        workers=workers,
    )


Cell = tuple[dict[str, Any], dict[str, Any], pd.DataFrame]


def _run_all(specs: list[RunSpec], workers: int, progress: Progress) -> list[Cell]:
    """Run all specs; results come in the order of `specs`, whoever finished first."""
    cells: dict[int, Cell] = {}
    with lane_pool(min(workers, len(specs))) as pool:
        futures = {pool.submit(run_cell, spec): at for at, spec in enumerate(specs)}
        for future in as_completed(futures):
            at = futures[future]
            try:
                cells[at] = future.result()
            except WorkerLostError as error:
                raise RunError(
                    f"{describe(specs[at])}: {error}; fewer --workers need less memory"
                ) from error
            progress(describe(specs[at]), len(cells), len(specs))
    return [cells[at] for at in range(len(specs))]


def run_cell(spec: RunSpec) -> Cell:
    """Run one cell: its row of ``hops.csv``, of the manifest, and its links."""
    result = execute(spec)
    return study_row(spec, result), solve_row(spec, result), links_frame(spec, result)


def describe(spec: RunSpec) -> str:
    """Name a run in a few words."""
    words = [spec.model, spec.cluster, spec.placement.policy, spec.network.kind]
    if spec.attention.kind != "pipelined":
        words.append(spec.attention.kind)
    return " ".join(words)


def _with_saving(hops: pd.DataFrame) -> pd.DataFrame:
    """Add what each run saves of round-robin's hops, in percent, where round-robin ran."""
    same = [key for key in KEYS if key != "policy"]
    turns = hops.loc[hops["policy"] == "round-robin", [*same, "hops_per_token_layer"]]
    merged = hops.merge(
        turns, on=same, how="left", suffixes=("", "_of_turns"), validate="many_to_one"
    )
    saving = 100 * (1 - merged["hops_per_token_layer"] / merged["hops_per_token_layer_of_turns"])
    # Savings below a billionth are rounding.
    return hops.assign(saving_pct=saving.round(7) + 0.0)
