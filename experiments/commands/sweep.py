"""`topomoe sweep`: a base and its axes, run into a store that the same command resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.commands.show import console
from experiments.errors import ExperimentError, RunError
from experiments.sweeping.driver import Means, Tally, run_sweep
from experiments.sweeping.estimate import estimate
from experiments.sweeping.executors import default_workers, processes
from experiments.sweeping.grid import read_sweep
from experiments.sweeping.keys import parse_settings
from experiments.sweeping.lane import Limits
from experiments.sweeping.plan import Plan, plan
from experiments.sweeping.progress import counted, counts, watcher
from experiments.sweeping.store import MARK, create_store, open_store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from experiments.sweeping.store import Store

EXECUTORS = ("process", "dask")


def run(sweep_file: Path, out: Path, options: dict[str, Any]) -> None:
    """Plan the runs, do those that the store has not, and say how it went.

    Parameters
    ----------
    sweep_file, out
        See `experiments.sweeping.grid.read_sweep` and `experiments.sweeping.store`.
    options
        The other options of the command by name.
    """
    _check_options(options)
    limits = _limits(options)
    sweep = read_sweep(sweep_file, parse_settings(options["settings"]))
    found = plan(sweep, sure=options["yes"])
    if options["dry_run"]:
        _dry_run(found, out, options)
        return
    store = create_store(out)
    workers = min(options["workers"] or default_workers(), max(len(found.runs), 1))
    with _means(options, workers, limits) as means, watcher(console) as watching:
        tally = run_sweep(found, store, means, watching, retry_failed=options["retry_failed"])
    _conclude(tally, store)


def _check_options(options: dict[str, Any]) -> None:
    executor = options["executor"]
    if executor not in EXECUTORS:
        raise ExperimentError(f"--executor {executor}: unknown; allowed: {', '.join(EXECUTORS)}")
    if options["scheduler"] is not None and executor != "dask":
        raise ExperimentError("--scheduler goes with --executor dask")
    if options["scheduler"] is not None and options["workers"] is not None:
        raise ExperimentError("--workers: a scheduler brings its own; give one of the two")


def _limits(options: dict[str, Any]) -> Limits:
    seconds, memory = options["time_limit"], options["memory_limit"]
    return Limits(seconds, None if memory is None else round(memory * 1e9))


def _means(options: dict[str, Any], workers: int, limits: Limits) -> AbstractContextManager[Means]:
    """Return what the runs are done by."""
    if options["executor"] == "process":
        return processes(workers, limits)
    from experiments.sweeping.dask_cluster import dask_cluster  # noqa: PLC0415  an extra

    return dask_cluster(options["scheduler"], workers, limits)


def _dry_run(found: Plan, out: Path, options: dict[str, Any]) -> None:
    """Print the runs, their number, and how long they may take."""
    store = open_store(out) if (out / MARK).exists() else None
    done, failed = _ended(found, store) if store is not None else (set(), set())
    states = {True: "done", False: "to do"}
    for each in found.runs:
        state = "failed" if each.run_id in failed else states[each.run_id in done]
        console.print(f"{each.run_id[:12]}  {state:6}  {each.label}", soft_wrap=True)
    todo = [each for each in found.runs if each.run_id not in done]
    if not options["retry_failed"]:
        todo = [each for each in todo if each.run_id not in failed]
    console.print(f"{counted(len(found.runs), 'run')}{_repeats(found)}, {len(todo)} to do")
    if todo:
        workers = None if options["scheduler"] else options["workers"] or default_workers()
        console.print(estimate(todo, store, workers), soft_wrap=True)


def _ended(found: Plan, store: Store) -> tuple[set[str], set[str]]:
    """Return the runs that a sweep would not do again, and those that failed."""
    ids = [each.run_id for each in found.runs]
    done = {run_id for run_id in ids if store.holds(run_id, found.tables)}
    return done, set(store.failed_ids()) - done


def _repeats(found: Plan) -> str:
    if not found.repeats:
        return ""
    verb = "repeats" if found.repeats == 1 else "repeat"
    return f" ({counted(found.repeats, 'more combination')} {verb} one of them)"


def _conclude(tally: Tally, store: Store) -> None:
    console.print(
        f"{counts(tally)}; topomoe collect {store.folder} makes one table", soft_wrap=True
    )
    if tally.failed:
        raise RunError(
            f"{tally.failed} of {tally.total} runs failed; {store.folder / 'failed'} says why, and "
            "--retry-failed tries them again"
        )
