"""What a sweep adds to its runs: milliseconds in the store, and its share of the whole."""

from __future__ import annotations

import time
from concurrent.futures import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from experiments.benchmarks.section import Section, Target, column
from experiments.spec import NetworkSpec, RunSpec
from experiments.sweeping.claims import Claims
from experiments.sweeping.driver import Means, Tally, run_sweep
from experiments.sweeping.grid import TABLES
from experiments.sweeping.identity import identify
from experiments.sweeping.lanes import LanePool
from experiments.sweeping.plan import Plan, Planned
from experiments.sweeping.record import encode
from experiments.sweeping.store import create_store
from experiments.sweeping.work import Done, Job, about

if TYPE_CHECKING:
    from experiments.sweeping.store import Store

WORKERS, RUN_S = 2, 0.05
TABLE_BYTES = {
    "links": 15_000,
    "layers": 12_000,
    "gpus": 9_000,
    "utilisation": 17_000,
    "hops": 3_000,
}
"""Sizes of a small run's tables: 26 layers on 256 GPUs."""
METRICS = 60
"""Figures of a run, about."""

STORED, SWEPT = "a run in the store", "a sweep of runs of 50 ms on 2 workers"


class Silent:
    """A watcher that looks away."""

    def update(self, tally: Tally) -> None:
        """Look away."""

    def note(self, line: str) -> None:
        """Look away."""


def stand_in(job: Job) -> Done:
    """Take the time of a run, and return what one of that size returns."""
    begun, started = time.perf_counter(), time.time()
    time.sleep(RUN_S)
    found = _result(job)
    return Done(
        found.record,
        found.arrays,
        about(started) | {"run_s": time.perf_counter() - begun},
        found.headline,
    )


def _result(job: Job) -> Done:
    figures = {f"figure_{at}": at / 7 for at in range(METRICS)}
    arrays = {name: bytes(size) for name, size in TABLE_BYTES.items()}
    return Done(encode(identify(job.spec), figures), arrays, about(0.0), "a stand-in")


def sweep_rows(runs: int, stored: int = 300) -> list[dict[str, Any]]:
    """Measure the store alone, and a sweep of stand-ins that sleep.

    Parameters
    ----------
    runs
        Of the sweep.
    stored
        Runs written to measure the store.

    Returns
    -------
    list of dict
        ``what``, ``runs``, ``seconds`` of the wall; of the store ``ms`` a run, the mean, flushing
        to disk included, and ``least_ms``; of the sweep ``start_s`` of the workers, ``overhead``,
        the part of their time that no run had, and ``later``, that part after their start.
    """
    with TemporaryDirectory(dir=Path.cwd()) as name:
        return [
            _stored(create_store(Path(name) / "stored"), _plan(stored)),
            _swept(create_store(Path(name) / "swept"), _plan(runs)),
        ]


def _plan(runs: int) -> Plan:
    specs = [RunSpec(cluster="fat-tree", network=NetworkSpec(seed=at)) for at in range(runs)]
    return Plan([Planned(identify(spec).run_id, spec, "") for spec in specs], 0, TABLES)


def _stored(store: Store, plan: Plan) -> dict[str, Any]:
    """Claim, look, write and let go, as a sweep does for each run."""
    results = [_result(Job(run.run_id, run.spec)) for run in plan.runs]
    claims, taken = Claims(store.folder), []
    for run, found in zip(plan.runs, results, strict=True):
        begun = time.perf_counter()
        claims.take(run.run_id)
        store.has(run.run_id)
        store.write(run.run_id, found.record, found.provenance, found.arrays)
        claims.drop(run.run_id)
        taken.append(time.perf_counter() - begun)
    claims.close()
    mean = sum(taken) / len(taken)
    return _row(STORED, len(taken), sum(taken)) | {"ms": 1e3 * mean, "least_ms": 1e3 * min(taken)}


def _swept(store: Store, plan: Plan) -> dict[str, Any]:
    begun = time.perf_counter()
    with LanePool(WORKERS) as pool:
        wait([pool.submit(abs, 0) for _ in range(WORKERS)])
        start_s = time.perf_counter() - begun
        means = Means(pool, lambda: pool.window, lambda: WORKERS, stand_in)
        tally = run_sweep(plan, store, means, Silent())
    seconds = time.perf_counter() - begun
    at_work = sum(store.provenance(run_id)["run_s"] for run_id in store.ids())
    row = _row(SWEPT, tally.done, seconds)
    return row | {
        "start_s": start_s,
        "overhead": 1 - at_work / (WORKERS * seconds),
        "later": 1 - at_work / (WORKERS * (seconds - start_s)),
    }


def _row(what: str, runs: int, seconds: float) -> dict[str, Any]:
    missing = dict.fromkeys(("ms", "least_ms", "start_s", "overhead", "later"))
    return {"what": what, "runs": runs, "seconds": seconds, **missing}


SWEEP_SECTION = Section(
    "Sweeps: what the store adds to a run, and the sweep to its runs",
    lambda _data, everything: sweep_rows(1000 if everything else 200),
    {
        "what": ("what", ""),
        "runs": ("runs", "d"),
        "seconds": ("seconds", ".1f"),
        "ms": ("ms a run", ".2f"),
        "least_ms": ("least ms", ".2f"),
        "start_s": ("workers start, s", ".1f"),
        "later": ("no run's time, then", ".1%"),
        "overhead": ("in all", ".1%"),
    },
    (
        Target("a run in the store, ms", column("ms", what=STORED), 5),
        Target(
            "1,000 runs of 50 ms on 2 workers, overhead",
            column("overhead", what=SWEPT, runs=1000),
            0.1,
            "<",
            ".1%",
        ),
    ),
    needs_data=False,
)
