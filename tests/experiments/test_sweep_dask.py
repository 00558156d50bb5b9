"""Sweeps on a real Dask scheduler and workers, processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sweep_stub

from experiments.cli import status
from experiments.errors import ExperimentError, RunError
from experiments.sweeping import create_store
from experiments.sweeping.dask_cluster import dask_cluster
from experiments.sweeping.driver import run_sweep
from experiments.sweeping.lane import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.cluster,
    # Dask's own, in our process.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
HERE = Path(__file__).resolve()


class Cluster:
    """A scheduler and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        paths = [str(HERE.parent), str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")]
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        words = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        self.processes = [self.start(*words, "--no-dashboard")]
        self.worker(), self.worker()

    @property
    def address(self) -> str:
        """The scheduler's."""
        deadline = time.monotonic() + 60
        while not self.file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return str(json.loads(self.file.read_text())["address"])

    def start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a process of Dask's."""
        return subprocess.Popen(
            [sys.executable, "-m", module, "--scheduler-file", str(self.file), *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker without a nanny, so that a kill is a kill."""
        words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        self.processes.append(self.start("distributed.cli.dask_worker", *words))
        return self.processes[-1]

    def close(self) -> None:
        """Kill what still lives."""
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stand-ins log, on the workers too."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def cluster(tmp_path: Path, log: Path) -> Iterator[Cluster]:
    """One scheduler, two workers of one thread."""
    pytest.importorskip("distributed")
    assert log
    made = Cluster(tmp_path)
    yield made
    made.close()


def test_a_worker_killed_mid_sweep_changes_nothing(
    cluster: Cluster, tmp_path: Path, log: Path
) -> None:
    """Every run is done, none fails, and the files are those of a sweep on processes here."""
    store, plan = create_store(tmp_path / "dask"), sweep_stub.made_plan(60, ("links",))
    notes = sweep_stub.Notes()
    with dask_cluster(cluster.address, 1, Limits()) as means:
        killed: list[int] = []

        def kill_one(_self: object, tally: sweep_stub.Tally) -> None:
            if tally.done >= 10 and not killed:
                victim = cluster.processes[1]
                os.killpg(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)
                cluster.worker()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweep_stub.Notes, "update", kill_one)
            tally = run_sweep(plan, store, replace(means, work=sweep_stub.quick), notes)
    assert killed
    assert (tally.done, tally.failed) == (60, 0)
    here = create_store(tmp_path / "here")
    sweep_stub.drive(here, plan)
    assert sweep_stub.contents(store.folder) == sweep_stub.contents(here.folder)
    assert len({line.split()[2] for line in log.read_text().splitlines()}) >= 3


def test_limits_and_bad_runs_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Runs that fail, hang, eat memory or kill their process fail alone; the workers live."""
    store, plan = create_store(tmp_path / "dask"), sweep_stub.made_plan(8)
    with dask_cluster(cluster.address, 1, Limits(5.0, 400_000_000)) as means:
        means.work.work = sweep_stub.trouble
        tally = run_sweep(plan, store, means, sweep_stub.Notes())
    ids = [run.run_id for run in plan.runs]
    assert (tally.done, tally.failed) == (4, 4)
    kinds = {at: store.failure(ids[at])["kind"] for at in (1, 2, 4, 5)}
    assert kinds == {1: "error", 2: "died", 4: "time", 5: "memory"}
    assert all(process.poll() is None for process in cluster.processes)


def test_a_scheduler_that_goes_away_ends_the_sweep(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, no run counted as failed, and the store resumes."""
    store, plan = create_store(tmp_path / "dask"), sweep_stub.made_plan(200)

    def kill_scheduler(_self: object, tally: sweep_stub.Tally) -> None:
        if tally.done >= 5 and cluster.processes[0].poll() is None:
            os.killpg(cluster.processes[0].pid, signal.SIGKILL)

    monkeypatch.setattr(sweep_stub.Notes, "update", kill_scheduler)
    with dask_cluster(cluster.address, 1, Limits()) as means:
        quick = replace(means, work=sweep_stub.quick)
        with pytest.raises(RunError, match=r"workers are gone: \d+ of 200 runs are in"):
            run_sweep(plan, store, quick, sweep_stub.Notes())
    assert store.failed_ids() == []
    done = len(store.ids())
    assert 5 <= done < 200


def test_no_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody answers, or that is none, is said."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("experiments.sweeping.dask_cluster._START_S", 1)
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with (
            pytest.raises(ExperimentError, match="no Dask scheduler answers"),
            dask_cluster(address, 1, Limits()),
        ):
            pass


def test_the_command_line_gives_the_bytes_of_processes(cluster: Cluster, tmp_path: Path) -> None:
    """Real runs on the cluster, and on two processes here, make the same files."""
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        '[base]\nmodel = "DeepSeek-V2-Lite"\ncluster = "fat-tree"\ntokens = 16\n'
        "workload.profile_tokens = 64\n"
        '[grid]\nplacement.policy = ["round-robin", "ilp-load"]\nnetwork.seed = [0, 1]\n'
    )
    words = ["sweep", str(sweep), "--out"]
    dask = ["--executor", "dask", "--scheduler", cluster.address]
    assert status([*words, str(tmp_path / "dask"), *dask]) == 0
    assert status([*words, str(tmp_path / "here"), "--workers", "2"]) == 0
    here, there = (sweep_stub.contents(tmp_path / name) for name in ("here", "dask"))
    # 4 runs and 5 tables of each.
    assert len(here) == 24
    assert here == there
