"""The sweep itself: claim a run, have it done, write what came of it, until none is left."""

from __future__ import annotations

import time
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from experiments.errors import ExperimentError, RunError
from experiments.sweeping.claims import Claims
from experiments.sweeping.identity import identify
from experiments.sweeping.lane import WorkerLostError
from experiments.sweeping.record import DamagedError
from experiments.sweeping.reserve import Reserve
from experiments.sweeping.store import WriteError, no_space
from experiments.sweeping.work import Done, Failed, Job, about, perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from experiments.sweeping.plan import Plan, Planned
    from experiments.sweeping.store import Store

MOST_DEATHS = 3
"""Workers a run may take with it."""
_A_FEW = 5
"""Runs that give a pace of their own."""
_LOOK_S = 0.5
"""Seconds between two looks at the runs of other sweeps."""


@dataclass(slots=True)
class Tally:
    """How far a sweep is.

    Attributes
    ----------
    total
        Runs of the sweep.
    before
        Of them, done when it started.
    done, failed
        Since then; failed ones include those that failed before and are not tried again.
    elsewhere
        Runs that another sweep does now.
    running
        Runs under way here.
    last
        What came of the last one.
    begun, first
        When it started, and when its first run was done.
    """

    total: int
    before: int = 0
    done: int = 0
    failed: int = 0
    elsewhere: int = 0
    running: int = 0
    last: str = ""
    begun: float = field(default_factory=time.monotonic)
    first: float | None = None

    @property
    def left(self) -> int:
        """Runs that have not ended."""
        return self.total - self.before - self.done - self.failed

    @property
    def left_s(self) -> float | None:
        """Seconds the rest will take at the pace so far; None before there is one.

        Once a few runs are done, the start of the workers no longer counts.
        """
        if not self.done:
            return None
        now, first = time.monotonic(), self.first
        if first is None or self.done < _A_FEW:
            return (now - self.begun) / self.done * self.left
        return (now - first) / (self.done - 1) * self.left


class Watcher(Protocol):
    """Who is told how a sweep goes."""

    def update(self, tally: Tally) -> None:
        """Take note of how far it is."""

    def note(self, line: str) -> None:
        """Take note of something out of the ordinary."""


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What a sweep runs on.

    Attributes
    ----------
    executor
        Does the runs.
    window
        Gives the runs that it may have at a time, those that wait for a worker included.
    workers
        Runs it does at a time.
    work
        What it does with a job.
    alive
        Whether it still works at all.
    judge
        Says what an error of its futures means.
    """

    executor: Executor
    window: Callable[[], int]
    workers: Callable[[], int]
    work: Callable[[Job], Done | Failed] = perform
    alive: Callable[[], bool] = lambda: True
    judge: Callable[[Exception], Failed] = field(default_factory=lambda: judge)


def run_sweep(
    plan: Plan, store: Store, means: Means, watcher: Watcher, *, retry_failed: bool = False
) -> Tally:
    """Do every run of a plan that the store has not, and return how it went.

    Parameters
    ----------
    plan
        The runs.
    store
        Where results go. Runs that are in it are not done again, but for damaged ones, which are
        set aside, and those without a table that is to be kept.
    means
        What the runs are done by.
    watcher
        Who is told.
    retry_failed
        Whether to try again what failed before.

    Raises
    ------
    VersionError
        If the store holds results of another version.
    RunError
        If the disk gets full, or Ctrl-C comes; what is done is in the store.
    """
    claims = Claims(store.folder)
    try:
        if claims.alone:
            store.tidy()
        reserve = Reserve(claims.own_file("reserve"))
        driver = _Driver(plan, store, means, watcher, claims, reserve)
        try:
            return driver.run(retry_failed)
        finally:
            reserve.release()
    finally:
        claims.close()


class _Driver:
    """The state of a sweep."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        means: Means,
        watcher: Watcher,
        claims: Claims,
        reserve: Reserve,
    ) -> None:
        self._plan, self._store, self._means, self._watcher = plan, store, means, watcher
        self._claims, self._reserve = claims, reserve
        self._tally = Tally(len(plan.runs))
        self._waiting: deque[Planned] = deque()
        self._elsewhere: deque[Planned] = deque()
        self._suspects: deque[Planned] = deque()
        self._deaths: Counter[str] = Counter()
        self._under_way: dict[Future[Done | Failed], Planned] = {}
        self._unwritten: list[str] = []
        self._broken: str | None = None
        self._retry = False

    def run(self, retry_failed: bool) -> Tally:
        """Go through all runs."""
        self._retry = retry_failed
        self._waiting.extend(self._pending())
        try:
            while self._refill():
                self._step()
        except KeyboardInterrupt:
            self._settle_all([future for future in self._under_way if future.done()])
            raise RunError(f"interrupted: {self._so_far()}") from None
        if self._broken is not None:
            raise RunError(f"{self._broken}: {self._so_far()}{self._lost()}")
        self._watcher.update(self._tally)
        return self._tally

    def _stop(self, why: str) -> None:
        """Hand out nothing more."""
        self._broken = self._broken or why

    def _so_far(self) -> str:
        tally = self._tally
        return (
            f"{tally.before + tally.done} of {tally.total} runs are in {self._store.folder}; the "
            "same command does the rest"
        )

    def _lost(self) -> str:
        number = len(self._unwritten)
        if not number:
            return ""
        return f"; {number} finished run{'s are' if number > 1 else ' is'} lost"

    def _pending(self) -> Iterable[Planned]:
        """Return the runs to be done; damaged files are set aside."""
        failed = set() if self._retry else set(self._store.failed_ids())
        for run in self._plan.runs:
            if self._has(run):
                self._tally.before += 1
            elif run.run_id in failed:
                self._tally.failed += 1
            else:
                yield run

    def _has(self, run: Planned) -> bool:
        """Return whether the store has a run, whole and with all its tables."""
        if not self._store.has(run.run_id):
            return False
        try:
            self._store.read(run.run_id)
        except DamagedError as error:
            aside = self._store.set_aside(run.run_id)
            self._watcher.note(f"damaged, set aside as {aside} and run again: {error}")
            return False
        return not self._store.lacks(run.run_id, self._plan.tables)

    def _refill(self, *, ended: int = 0) -> bool:
        """Hand out runs as far as the window allows; False once nothing is left to wait for.

        `ended` of those under way are so no more.
        """
        if self._broken is None:
            while len(self._under_way) - ended < self._means.window() and self._waiting:
                self._hand_out(self._waiting.popleft())
            if not self._under_way and not self._waiting:
                self._rest()
        tally = self._tally
        tally.running = min(len(self._under_way) - ended, self._means.workers())
        tally.elsewhere = len(self._elsewhere)
        return bool(self._under_way or (self._elsewhere and self._broken is None))

    def _rest(self) -> None:
        """Look at what is left once nothing else runs: suspects alone, then others' runs."""
        if self._suspects:
            self._hand_out(self._suspects.popleft())
            return
        others, self._elsewhere = self._elsewhere, deque()
        for run in others:
            self._hand_out(run)

    def _hand_out(self, run: Planned) -> None:
        """Have a run done, unless another sweep does it or has done it."""
        try:
            ours = self._claims.take(run.run_id)
        except OSError as error:
            self._stop(f"{self._store.folder}: cannot be written: {error.strerror}")
            return
        if not ours:
            self._elsewhere.append(run)
        elif self._has(run):
            self._end(run, failed=False)
        elif not self._retry and self._store.has_failed(run.run_id):
            self._end(run, failed=True)
        else:
            self._submit(run)

    def _submit(self, run: Planned) -> None:
        job = Job(run.run_id, run.spec, self._plan.tables)
        try:
            self._under_way[self._means.executor.submit(self._means.work, job)] = run
        except Exception:
            if self._means.alive():
                raise
            self._stop("the workers are gone")

    def _step(self) -> None:
        """Wait for something to end, hand out the next, and only then write what has ended."""
        self._watcher.update(self._tally)
        if not self._under_way:
            time.sleep(_LOOK_S)
            return
        ended, _ = wait(self._under_way, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
        if not ended and not self._means.alive():
            # Futures of a cluster that has gone need not ever end.
            self._stop("the workers are gone")
            self._under_way.clear()
            return
        self._refill(ended=len(ended))
        self._settle_all(ended)

    def _settle_all(self, ended: Iterable[Future[Done | Failed]]) -> None:
        for future in ended:
            try:
                outcome = future.result()
            except Exception as error:  # noqa: BLE001  one bad run never stops the rest
                outcome = self._means.judge(error)
            self._settle(self._under_way[future], outcome)
            del self._under_way[future]

    def _settle(self, run: Planned, outcome: Done | Failed) -> None:
        """Write what came of a run."""
        if isinstance(outcome, Failed) and not self._means.alive():
            self._stop("the workers are gone")
            return
        if isinstance(outcome, Failed) and outcome.kind == "died":
            self._deaths[run.run_id] += outcome.deaths
            if self._deaths[run.run_id] < MOST_DEATHS:
                self._watcher.note(f"{outcome.message}; to be tried alone: {run.label}")
                self._suspects.append(run)
                return
        try:
            self._write(run, outcome)
        except WriteError as error:
            self._stop(str(error))
            self._reserve.release()
            self._write_again(run, outcome, error)

    def _write(self, run: Planned, outcome: Done | Failed) -> None:
        if isinstance(outcome, Done):
            record = (outcome.record, outcome.provenance, outcome.arrays)
            self._store.write(run.run_id, *record)
            self._tally.last = outcome.headline
        else:
            deaths = self._deaths[run.run_id]
            self._store.write_failure(run.run_id, failure(run, outcome, deaths))
            self._watcher.note(f"failed ({outcome.kind}): {run.label}: {outcome.message}")
            self._tally.last = f"failed: {outcome.message}"
        self._end(run, failed=isinstance(outcome, Failed))

    def _write_again(self, run: Planned, outcome: Done | Failed, error: WriteError) -> None:
        """Write into the space held back, if that is what was wanting."""
        try:
            if no_space(error):
                self._write(run, outcome)
                return
        except WriteError:
            pass
        self._unwritten.append(run.run_id)

    def _end(self, run: Planned, *, failed: bool) -> None:
        self._claims.drop(run.run_id)
        if failed:
            self._tally.failed += 1
            return
        self._tally.done += 1
        self._tally.first = self._tally.first or time.monotonic()


def failure(run: Planned, outcome: Failed, deaths: int) -> dict[str, object]:
    """Return the file of a run that failed."""
    try:
        spec = identify(run.spec).spec
    except ExperimentError:
        # That a file is gone may be why it failed.
        spec = None
    return {
        "label": run.label,
        "spec": spec,
        "kind": outcome.kind,
        "message": outcome.message,
        "detail": outcome.detail,
        "deaths": deaths,
        **about(time.time()),
    }


def judge(error: Exception) -> Failed:
    """Say why a run gave nothing: its worker is lost, or something is wrong with the executor."""
    if isinstance(error, WorkerLostError):
        return Failed(error.kind, str(error), error.detail, deaths=int(error.kind == "died"))
    if isinstance(error, CancelledError):
        return Failed("died", "its worker was taken away", deaths=1)
    return Failed("error", f"{type(error).__name__}: {error}")
