"""Stand-ins for runs, quick and countable, which worker processes import."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from experiments.spec import NetworkSpec, RunSpec
from experiments.sweeping.driver import Means, Tally, run_sweep
from experiments.sweeping.identity import identify
from experiments.sweeping.lane import Limits
from experiments.sweeping.lanes import LanePool
from experiments.sweeping.plan import Plan, Planned
from experiments.sweeping.record import encode
from experiments.sweeping.store import Store, create_store
from experiments.sweeping.work import Done, Failed, Job


def made_plan(runs: int, tables: tuple[str, ...] = ()) -> Plan:
    """Plan runs that differ by the seed of their network."""
    specs = [RunSpec(cluster="fat-tree", network=NetworkSpec(seed=at)) for at in range(runs)]
    planned = [
        Planned(identify(spec).run_id, spec, f"network.seed={at}") for at, spec in enumerate(specs)
    ]
    return Plan(planned, 0, tables)


def log(words: str) -> None:
    """Append a line to the log that counts what was executed, whole or not at all."""
    file = os.open(os.environ["SWEEP_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{words}\n".encode())
    os.close(file)


def done(job: Job) -> Done:
    """Return what a run gives: figures that depend on its spec alone."""
    figures = {"policy": "stub", "value": job.spec.network.seed / 7}
    arrays = {name: f"{job.run_id}{name}".encode() for name in job.tables}
    return Done(encode(identify(job.spec), figures), arrays, {"run_s": 0.01}, "a headline")


def quick(job: Job) -> Done:
    """Take some milliseconds, and count."""
    log(f"start {job.run_id} {os.getpid()}")
    time.sleep(0.005 + 0.002 * (job.spec.network.seed % 7))
    log(f"end {job.run_id} {os.getpid()}")
    return done(job)


def trouble(job: Job) -> Done | Failed:
    """Do what the seed says: 1 fails, 2 kills its worker, 3 once only, 4 hangs, 5 eats memory."""
    seed = job.spec.network.seed
    log(f"start {job.run_id} {os.getpid()}")
    if seed == 1:
        return Failed("error", "beta is too tight", "a traceback")
    if seed == 2:
        os.abort()
    once = Path(os.environ["SWEEP_LOG"]).with_suffix(".once")
    if seed == 3 and not once.exists():
        once.touch()
        os.kill(os.getpid(), 9)
    if seed == 4:
        time.sleep(60)
    if seed == 5:
        hog = b"x" * 700_000_000
        time.sleep(60)
        del hog
    return done(job)


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.running: list[int] = []

    def update(self, tally: Tally) -> None:
        """Remember how many ran."""
        self.running.append(tally.running)

    def note(self, line: str) -> None:
        """Remember the line."""
        self.lines.append(line)


def drive(store: Store, plan: Plan, work: Any = quick, **options: Any) -> tuple[Tally, Notes]:
    """Run a plan on a lane, or more."""
    notes = Notes()
    limits, again = options.pop("limits", Limits()), options.pop("retry_failed", False)
    with LanePool(options.pop("workers", 1), limits, preload=("sweep_stub",)) as pool:
        means = Means(pool, lambda: pool.window, lambda: 2, work)
        return run_sweep(plan, store, means, notes, retry_failed=again), notes


def life(folder: Path, runs: int) -> None:
    """Run a sweep as far as life allows: for a process that will be killed."""
    drive(create_store(folder), made_plan(runs, ("links",)), workers=2)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a store's runs and tables by name, unfinished ones left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in ("runs", "arrays")
        for path in sorted((folder / kind).iterdir())
        if not path.name.startswith(".partial-")
    }
