"""`topomoe figures`, from a store of real runs to files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from experiments.cli import status
from experiments.commands.simulate import read_run
from experiments.sweeping import Done, Job, create_store, identify, perform

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tiny

TABLES = ("links", "layers")


@pytest.fixture
def store(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of two policies on two seeds, with the tables of one sweep."""
    monkeypatch.chdir(tiny.folder)
    made = create_store(tmp_path / "store")
    for policy in ("round-robin", "ilp-load"):
        for seed in (0, 1):
            path = tmp_path / "run.toml"
            path.write_text(
                f'model = "Tiny"\ncluster = "tiny.toml"\ntokens = 64\nworkload.seed = {seed}\n'
                'attention.kind = "pipelined"\n'
                f'[placement]\npolicy = "{policy}"\nlayer_slots = 6\nserver_slots = 16\n'
            )
            (tiny.folder / "run.toml").write_text(path.read_text())
            spec = read_run(tiny.folder / "run.toml")
            job = Job(identify(spec).run_id, spec, TABLES)
            done = perform(job)
            assert isinstance(done, Done), done
            made.write(job.run_id, done.record, done.provenance, done.arrays)
    return tmp_path / "store"


def test_figures_of_a_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All figures that the runs allow, with captions and tables; the others are said with why."""
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert status(["figures", str(store)]) == 0
    said = capsys.readouterr().out
    folder = store / "figures" / "acm"
    pages = {path.stem for path in folder.glob("*.pdf")}
    assert pages == {"hops", "link-map", "link-cdf", "time", "solve-time", "layers"}
    assert {path.stem for path in folder.glob("*.png")} == pages
    assert "not drawn: figure tradeoff: runs: none has a time per output token" in said
    assert "not drawn: figure drift: runs: none with a workload.load" in said
    assert "6 figures, 15 files written to" in said
    captions = (folder / "figures.md").read_text()
    assert all(f"![{page}]({page}.png)" in captions for page in pages)
    assert "4 runs. Means over runs that differ by their seeds alone" in captions
    assert "| ilp-load |" in (folder / "comparison.md").read_text()
    assert (folder / "comparison.tex").read_text().endswith("seeds.\n")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_one_figure_elsewhere(store: Path, tmp_path: Path) -> None:
    """One figure by name, of chosen runs, at another venue's widths, into another folder."""
    out = tmp_path / "out"
    options = ["--figure", "hops", "--style", "ieee", "--where", "policy=ilp-load", "--out"]
    assert status(["figures", str(store), *options, str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["figures.md", "hops.pdf", "hops.png"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--figure", "pie"], "--figure pie: unknown; allowed: hops, tradeoff, link-map"),
        (["--style", "nature"], "--style nature: unknown; allowed: acm, ieee, usenix, mlsys"),
        (["--where", "cluster"], "--where cluster: expected column=value"),
        (["--where", "a=1", "--where", "a=2"], "--where a is given twice"),
        (["--over", "seed"], "--over seed: no such column; allowed: "),
        (["--figure", "tradeoff"], "figure tradeoff: runs: none has a time per output token"),
        (["--figure", "hops", "--figure", "drift"], "figure drift: runs: none with a workload"),
    ],
)
def test_bad_input(
    options: list[str], said: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong options are one line and exit status 2, and nothing is written."""
    assert status(["figures", str(store), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (store / "figures").exists()


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is none, and one without runs, are refused."""
    assert status(["figures", str(tmp_path)]) == 2
    assert "is no store of runs" in capsys.readouterr().err
    create_store(tmp_path / "empty")
    assert status(["figures", str(tmp_path / "empty")]) == 2
    assert "has no run that is done" in capsys.readouterr().err


def test_a_store_without_tables(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A figure of links asked of runs that kept none says how to get them."""
    for path in (store / "arrays").iterdir():
        path.unlink()
    assert status(["figures", str(store), "--figure", "link-cdf"]) == 2
    assert "has no table of links; name it in the sweep's `tables`" in capsys.readouterr().err
