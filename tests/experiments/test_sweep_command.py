"""`topomoe sweep` and `topomoe collect`, as people call them."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import sweep_stub
from rich.console import Console
from sweep_stub import made_plan

from experiments.cli import status
from experiments.sweeping import collect, create_store, open_store, plan, read_sweep
from experiments.sweeping.driver import Tally
from experiments.sweeping.estimate import estimate, guess_s
from experiments.sweeping.progress import LiveWatcher, PlainWatcher, counts, duration, watcher

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
[base]
model = "DeepSeek-V2-Lite"
cluster = "fat-tree"
tokens = 16
workload.profile_tokens = 64

[grid]
placement.policy = ["round-robin", "contiguous"]
workload.seed = [0, 1]
"""


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    """A sweep of four quick runs."""
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP)
    return path


def call(*words: object, seed: int = 0) -> str:
    """Run the command line in a fresh process and return what it printed."""
    code = "from experiments.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env=os.environ | {"PYTHONHASHSEED": str(seed)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_bytes_however_it_ran(sweep_file: Path, tmp_path: Path) -> None:
    """One worker and two, under other hash seeds, write the same files; one table collects them."""
    call("sweep", sweep_file, "--out", tmp_path / "one", "--workers", 1, seed=1)
    said = call("sweep", sweep_file, "--out", tmp_path / "two", "--workers", 2, seed=2)
    assert "4 of 4 done, 0 failed" in said
    one, two = (sweep_stub.contents(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 24
    assert one == two

    # Once more changes nothing, and runs nothing.
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "two" / "runs").iterdir()}
    assert status(["sweep", str(sweep_file), "--out", str(tmp_path / "two")]) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}

    table = tmp_path / "table.csv"
    assert status(["collect", str(tmp_path / "one"), "--out", str(table)]) == 0
    frame = pd.read_csv(table)
    assert len(frame) == 4
    assert set(frame["placement.policy"]) == {"round-robin", "contiguous"}
    assert (frame["hops_per_token_layer"] > 0).all()
    assert status(["collect", str(tmp_path / "one"), "--provenance"]) == 0
    whole = pd.read_parquet(tmp_path / "one" / "runs.parquet")
    assert (whole["provenance.run_s"] > 0).all()

    store = open_store(tmp_path / "one")
    run = frame["run"].iloc[0]
    assert list(store.arrays(run)) == ["links", "layers", "gpus", "utilisation", "hops"]
    assert store.arrays(run)["layers"]["layer"].tolist() == list(range(26))
    # A stored run tells how long the next one like it takes.
    todo = plan(read_sweep(sweep_file, {"tokens": 8})).runs
    assert "as stored runs like 4 of them took" in estimate(todo, store, 2)


def test_figures_are_those_of_simulate_and_place(sweep_file: Path, tmp_path: Path) -> None:
    """A row has whatever a single run gives to programs, but for seconds."""
    import json  # noqa: PLC0415

    sets = ["--set", "placement.policy=ilp-load", "--set", "workload.seed=0"]
    sweep_file.write_text(SWEEP[: SWEEP.index("[grid]")])
    words = ["sweep", str(sweep_file), "--out", str(tmp_path / "s"), "--workers", "1", *sets]
    assert status(words) == 0
    run_file = tmp_path / "run.toml"
    run_file.write_text(
        'model = "DeepSeek-V2-Lite"\ncluster = "fat-tree"\ntokens = 16\n'
        '[workload]\nprofile_tokens = 64\n[placement]\npolicy = "ilp-load"\n'
    )
    store = open_store(tmp_path / "s")
    stored = store.read(store.ids()[0])
    figures = tmp_path / "simulate.json"
    assert status(["simulate", str(run_file), "--json", str(figures)]) == 0
    single = json.loads(figures.read_text())
    assert single.pop("spec") == stored.spec
    assert single.items() <= stored.metrics.items()
    # `place` draws its profile from 16384 tokens: its names, other values.
    words = ["place", "--model", "DeepSeek-V2-Lite", "--cluster", "fat-tree", "--tokens", "16"]
    assert status([*words, "--json", str(figures)]) == 0
    names = set(json.loads(figures.read_text())) - {"spec", "against", "solve_s"}
    assert names <= set(stored.metrics)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "tokns=1"], "unknown key 'tokns'; allowed: model, cluster"),
        (["--executor", "slurm"], "--executor slurm: unknown; allowed: process, dask"),
        (["--scheduler", "tcp://x"], "--scheduler goes with --executor dask"),
        (
            ["--executor", "dask", "--scheduler", "tcp://x:1", "--workers", "2"],
            "--workers: a scheduler brings its own",
        ),
        (["--time-limit", "0"], "--time-limit"),
        (["--time-limit", "nan"], "--time-limit"),
        (["--memory-limit", "nan"], "--memory-limit"),
        (["--set", "placement.policy=best"], "--set placement.policy: it is an axis"),
        (["--set", "cluster=pisa"], "unknown cluster 'pisa'"),
        (["--set", "tokens=many"], "tokens: Input should be a valid integer"),
    ],
)
def test_what_is_refused(
    sweep_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    """Status 2, one line, and no store."""
    out = tmp_path / "store"
    assert status(["sweep", str(sweep_file), "--out", str(out), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


def test_a_million_runs_are_refused_at_once(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --yes, a dry run included."""
    numbers = list(range(1000))
    sweep_file.write_text(
        f'[base]\ncluster = "ep32"\n[grid]\nworkload.seed = {numbers}\nnetwork.seed = {numbers}\n'
    )
    for words in ([], ["--dry-run"]):
        assert status(["sweep", str(sweep_file), "--out", str(tmp_path / "s"), *words]) == 2
        error = capsys.readouterr().err
        assert "1,000,000 runs" in error
        assert "--yes" in error


def test_a_dry_run_runs_nothing(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the runs, their number and an estimate that does not claim much."""
    out = tmp_path / "store"
    assert status(["sweep", str(sweep_file), "--out", str(out), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("to do   placement.policy=round-robin workload.seed=0")
    assert lines[4] == "4 runs, 4 to do"
    assert "guessed from sizes" in lines[5]
    assert not out.exists()


def test_failed_runs_are_status_1(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is refused fails alone: the line says where to look; a dry run says so, too."""
    sweep_file.write_text(
        f"{SWEEP}".replace("16\n", "16\nplacement.layer_slots = 64\n", 1)
        + "placement.server_slots = [2, 64]\n"
    )
    out = tmp_path / "store"
    words = ["sweep", str(sweep_file), "--out", str(out), "--workers", "1"]
    assert status(words) == 1
    captured = capsys.readouterr()
    assert "4 of 8 runs failed" in captured.err
    assert captured.out.count("failed (error): ") == 4
    assert len(open_store(out).failed_ids()) == 4
    assert status([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("  failed  ") == 4
    assert "8 runs, 0 to do" in said


def test_a_dry_run_knows_what_a_sweep_would_do_again(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged run and one that lost a table are to do; readers say how damage is mended."""
    out = tmp_path / "store"
    words = ["sweep", str(sweep_file), "--out", str(out), "--workers", "1"]
    assert status(words) == 0
    one, two, *_ = open_store(out).ids()
    damaged = out / "runs" / f"{one}.json"
    damaged.write_bytes(b"")
    (out / "arrays" / f"{two}.links.parquet").unlink()
    capsys.readouterr()
    assert status([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "4 runs, 2 to do" in said
    assert "on 1 worker, " in said
    assert damaged.read_bytes() == b""
    for reader, target in (("collect", "new.csv"), ("report", "new.html"), ("figures", "new")):
        assert status([reader, str(out), "--out", str(tmp_path / target)]) == 2
        error = capsys.readouterr().err
        assert f"{one}.json: is no JSON" in error
        assert "the same sweep sets it aside and runs it again" in error
    assert status(words) == 0
    assert "4 of 4 done (2 before)" in capsys.readouterr().out


def test_what_collect_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No store, an empty one, a name of no format: one line each."""
    create_store(tmp_path / "empty")
    for words, message in (
        ([str(tmp_path / "none")], "is no store of runs"),
        ([str(tmp_path / "empty")], "has no run that is done"),
        ([str(tmp_path / "empty"), "--out", "x.xlsx"], "ends in .parquet or .csv"),
    ):
        assert status(["collect", *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody may write to")
def test_read_only_is_said_before_the_work(
    sweep_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be written stops the sweep at once."""
    assert status(["sweep", str(sweep_file), "--out", "/proc/store"]) == 2
    assert "/proc/store/topomoe-store.json: cannot be written" in capsys.readouterr().err


def test_counts_and_time_left() -> None:
    """10 of 40 in 30 s leave 30 at 3 s each: 90 s."""
    import time  # noqa: PLC0415

    tally = Tally(total=45, before=3, done=10, failed=2, running=2)
    tally.begun = time.monotonic() - 30
    assert tally.left == 30
    assert counts(tally) == ("13 of 45 done (3 before), 2 failed, 2 running, about 2 min left")
    # Of 30 s the first 3 were before the first run: 9 in 27 s, and 30 take 90 s, not 81.
    tally.first = tally.begun + 3
    assert tally.left_s == pytest.approx(90, rel=0.01)
    tally.done = 0
    assert tally.left_s is None
    tally.elsewhere = 4
    assert "4 in another sweep" in counts(tally)
    assert [duration(each) for each in (0.2, 5, 120, 7200, 864_000)] == [
        "1 s",
        "5 s",
        "2 min",
        "2.0 h",
        "10.0 days",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_watchers_show_counts_and_the_last_result(terminal: bool) -> None:
    """A terminal gets a live bar, anything else plain lines; names like [/b] are just text."""
    text = StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, markup=False, highlight=False)
    tally = Tally(total=2, done=1, running=1, last="own [/b]: 3.00 hops")
    made: Callable[..., object] = watcher(console)
    assert isinstance(made, LiveWatcher if terminal else PlainWatcher)
    with made as watching:
        watching.update(tally)
        watching.note("failed: [/b]")
        tally.done, tally.running = 2, 0
        watching.update(tally)
    shown = text.getvalue()
    assert "2 of 2 done, 0 failed, 0 running" in shown
    assert "own [/b]: 3.00 hops" in shown
    assert "failed: [/b]" in shown


def test_guesses_grow_with_the_run() -> None:
    """A packet run of the same tokens is thought to take longer than an analytic one."""
    spec = made_plan(1).runs[0].spec
    packet = spec.model_copy(
        update={"network": spec.network.model_copy(update={"kind": "packet", "routing": "hash"})}
    )
    fluid = spec.model_copy(update={"network": spec.network.model_copy(update={"kind": "fluid"})})
    assert guess_s(spec) < min(guess_s(packet), guess_s(fluid))


def test_collect_takes_a_part(tmp_path: Path) -> None:
    """The runs asked for alone, in the order asked for."""
    store = create_store(tmp_path / "s")
    ids = []
    for run in made_plan(3).runs:
        found = sweep_stub.done(sweep_stub.Job(run.run_id, run.spec))
        store.write(run.run_id, found.record, found.provenance, found.arrays)
        ids.append(run.run_id)
    assert collect(store, runs=ids[1:])["run"].tolist() == ids[1:]
