"""Worker processes that can be killed one by one, and sweeps that survive their runs."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest
import sweep_stub
from sweep_stub import drive, made_plan

from experiments.errors import ExperimentError, RunError
from experiments.sweeping import create_store, lane
from experiments.sweeping.lane import Limits, WorkerLostError
from experiments.sweeping.lanes import LanePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stand-ins log."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def pool() -> Iterator[LanePool]:
    """Two bare lanes with a limit of half a second."""
    with LanePool(2, Limits(seconds=0.5), preload=()) as made:
        yield made


def test_results_and_errors_come_back(pool: LanePool) -> None:
    """A lane is an executor: values, errors, and other processes than ours."""
    assert [pool.submit(abs, -number).result() for number in range(5)] == list(range(5))
    assert os.getpid() not in {pool.submit(os.getpid).result() for _ in range(4)}
    with pytest.raises(ValueError, match="invalid literal"):
        pool.submit(int, "x").result()
    with pytest.raises(TypeError, match="positional"):
        pool.submit(int, "x", base=3)


def test_a_death_harms_its_own_call_alone(pool: LanePool) -> None:
    """The call a process died of is lost, the one beside it is not, and the lane goes on."""
    beside = pool.submit(time.sleep, 0.3)
    with pytest.raises(WorkerLostError, match=r"died \(SIGABRT\)") as caught:
        pool.submit(os.abort).result()
    assert caught.value.kind == "died"
    assert "Aborted" in caught.value.detail
    assert beside.result() is None
    assert pool.submit(abs, -1).result() == 1


def test_a_process_that_dies_idle_harms_nobody() -> None:
    """A worker killed between two calls is replaced without a word."""
    with LanePool(1, preload=()) as pool:
        os.kill(pool.submit(os.getpid).result(), 9)
        time.sleep(0.2)
        assert pool.submit(abs, -1).result() == 1


def test_calls_behind_a_death_start_anew() -> None:
    """A quick call is followed at once; when the next one dies, those handed out go on."""
    with LanePool(1, Limits(seconds=20), preload=()) as pool:
        assert pool.submit(abs, -1).result() == 1
        calls = [
            pool.submit(*call)
            for call in ((abs, -2), (os.abort,), (abs, -3), (bytes, 200_000), (len, b"x" * 100_000))
        ]
        assert calls[0].result() == 2
        with pytest.raises(WorkerLostError, match="SIGABRT"):
            calls[1].result()
        assert [calls[2].result(), len(calls[3].result()), calls[4].result()] == [
            3,
            200_000,
            100_000,
        ]


def test_a_long_call_has_nothing_waiting_behind_it() -> None:
    """Of two processes, one with a long call: the other does all the rest."""
    with LanePool(2, preload=()) as pool:
        long = pool.submit(time.sleep, 4)
        others = [pool.submit(os.getpid) for _ in range(8)]
        assert len({each.result() for each in others}) == 1
        assert not long.done()


def test_limits_kill(pool: LanePool) -> None:
    """A call that takes too long, or too much, is ended; the message says the limit."""
    begun = time.monotonic()
    with pytest.raises(WorkerLostError, match=r"longer than the limit of 0\.5 s") as caught:
        pool.submit(time.sleep, 60).result()
    assert caught.value.kind == "time"
    assert time.monotonic() - begun < 30
    with (
        LanePool(1, Limits(memory_bytes=200_000_000), preload=()) as small,
        pytest.raises(WorkerLostError, match=r"more memory than the limit of 0\.2 GB") as caught,
    ):
        small.submit(sorted, range(1 << 26)).result()
    assert caught.value.kind == "memory"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_are_numbers(seconds: float) -> None:
    """What is no time that passes is no limit."""
    with pytest.raises(ExperimentError, match="expected seconds above 0"):
        Limits(seconds)


def test_memory_that_cannot_be_watched_is_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc a memory limit is refused."""
    monkeypatch.setattr(lane, "_STATM", "/proc/self/no-such-thing")
    with pytest.raises(RunError, match="a memory limit needs"):
        Limits(memory_bytes=1)


def test_kill_ends_everything_at_once() -> None:
    """Calls under way are lost, those that wait cancelled, and no process stays."""
    pool = LanePool(1, preload=())
    pid = pool.submit(os.getpid).result()
    # One handed out behind the running one, for that before it was quick.
    running, behind, waiting = (pool.submit(time.sleep, 60) for _ in range(3))
    time.sleep(0.1)
    pool.kill()
    for lost in (running, behind):
        with pytest.raises(WorkerLostError):
            lost.result()
    with pytest.raises(CancelledError):
        waiting.result()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(abs, 1)


def test_bad_runs_do_not_stop_the_rest(tmp_path: Path, log: Path) -> None:
    """One fails, one kills every worker it gets, one just once: the others are done."""
    store, plan = create_store(tmp_path / "store"), made_plan(8)
    tally, notes = drive(store, plan, work=sweep_stub.trouble, limits=Limits(2.0, 400_000_000))
    ids = [run.run_id for run in plan.runs]
    assert (tally.done, tally.failed) == (4, 4)
    assert store.ids() == sorted(ids[at] for at in (0, 3, 6, 7))
    kinds = {at: store.failure(ids[at])["kind"] for at in (1, 2, 4, 5)}
    assert kinds == {1: "error", 2: "died", 4: "time", 5: "memory"}
    assert store.failure(ids[2])["deaths"] == 3
    assert store.failure(ids[1])["message"] == "beta is too tight"
    assert "Aborted" in store.failure(ids[2])["detail"]
    starts = [line.split()[1] for line in log.read_text().splitlines()]
    assert [starts.count(run_id) for run_id in ids] == [1, 1, 3, 2, 1, 1, 1, 1]
    assert sum("tried alone" in line for line in notes.lines) == 3
    # Suspects run alone, after everything else.
    assert set(starts[-3:]) <= {ids[2], ids[3]}


def test_failed_runs_wait_to_be_asked_for(tmp_path: Path, log: Path) -> None:
    """They are not tried again until --retry-failed, and what then goes well is no failure."""
    store, plan = create_store(tmp_path / "store"), made_plan(2)
    assert drive(store, plan, work=sweep_stub.trouble, workers=1)[0].failed == 1
    assert drive(store, plan, work=sweep_stub.quick, workers=1)[0].failed == 1
    before = log.read_text()
    tally, _ = drive(store, plan, work=sweep_stub.quick, workers=1, retry_failed=True)
    assert (tally.before, tally.done, tally.failed) == (1, 1, 0)
    assert store.failed_ids() == []
    assert len(log.read_text().splitlines()) == len(before.splitlines()) + 2


def test_a_failure_says_what_it_was(tmp_path: Path) -> None:
    """Its file holds the spec without paths, the message and where it was."""
    store, plan = create_store(tmp_path / "store"), made_plan(2)
    drive(store, plan, work=sweep_stub.trouble, workers=1)
    about = json.loads((store.folder / "failed" / f"{plan.runs[1].run_id}.json").read_text())
    assert about["label"] == "network.seed=1"
    assert about["spec"]["network"]["seed"] == 1
    assert {"message", "detail", "host", "versions"} <= set(about)


def test_ctrl_c_leaves_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt ends a sweep with one line, no claim stays, and the same command goes on."""
    store, plan = create_store(tmp_path / "store"), made_plan(20)
    seen: list[Any] = []

    def interrupt(_self: object, tally: Any) -> None:
        seen.append(tally)
        if tally.done >= 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweep_stub.Notes, "update", interrupt)
        with pytest.raises(RunError, match=r"interrupted: \d+ of 20 runs are in .*same command"):
            drive(store, plan)
    done = len(store.ids())
    assert 5 <= done < 20
    assert not list((store.folder / "claims").iterdir())
    tally, _ = drive(store, plan)
    assert (tally.before, tally.done) == (done, 20 - done)
