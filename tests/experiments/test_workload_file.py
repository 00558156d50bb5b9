"""Workload files, `topomoe fit`, and runs that use its result."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from experiments.cli import status
from experiments.commands import fit
from experiments.errors import ExperimentError
from experiments.spec import WorkloadSpec
from experiments.workload import load_workload
from experiments.workload_file import fitted_file, read_workload, workload_text
from workloads import R1_LIKE, LoadCurve, SyntheticWorkload, Topics, TraceWriter, model

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = model("DeepSeekMoE-16B")
CURVE = LoadCurve((-1.5, -0.25, 0.125, 1.0), (0.1, 0.0, 0.0, 0.2), 0.25, 0.5)
TOPICS = Topics(
    8,
    1.5,
    affinity=0.75,
    home=0.25,
    seq_len=30,
    domains=(('law "x"', 0.25), ("code\n\x7f", 0.75)),
    domain_separation=0.5,
    decode_share=0.5,
    phase_separation=0.125,
    drift=0.5,
    drift_tokens=1000,
)


@pytest.mark.parametrize("suffix", [".toml", ".json"])
@pytest.mark.parametrize("topics", [None, TOPICS], ids=["loads", "topics"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, topics: Topics | None) -> None:
    """Both formats hold the same workload, names with quotes and control characters included."""
    path = tmp_path / f"x{suffix}"
    file = fitted_file("a.npz", CURVE, topics)
    path.write_text(workload_text(file, as_json=suffix == ".json"), encoding="utf-8")
    found = read_workload(path)
    assert found == file
    workload = found.workload(SHAPE, 3)
    assert workload == SyntheticWorkload(SHAPE, 3, CURVE, topics, "like a.npz")
    assert workload.source == "synthetic, like a.npz, seed 3"


def test_a_hand_written_file_needs_little(tmp_path: Path) -> None:
    """Loads are R1-like and choices independent where nothing is said."""
    path = tmp_path / "x.toml"
    head = 'format = "topomoe-workload"\nversion = 1\nname = "mine"\n'
    path.write_text(head)
    assert read_workload(path).workload(SHAPE, 0).skew == R1_LIKE
    path.write_text(head + "[topics]\ncount = 4\nstrength = 1.0\n")
    assert read_workload(path).workload(SHAPE, 0).topics == Topics(4, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"extra": 1}, "unknown key 'extra'; allowed: format"),
        ({"loads": {"log_loads": [1, 0]}}, "loads: curve: log_loads must ascend"),
        ({"loads": {"log_loads": [0, "1"]}}, "loads.log_loads.1"),
        ({"loads": {"log_loads": [0], "x": 1}}, "loads: unknown key 'x'"),
        ({"topics": {"count": 2}}, "topics.strength"),
        ({"topics": {"count": 0, "strength": 1}}, "topics: topics: count is 0"),
        ({"topics": {"count": True, "strength": 1}}, "topics.count"),
        ({"topics": {"count": 2, "strength": 1e400}}, "topics.strength"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """One line with the file and the key."""
    path = tmp_path / "x.json"
    content = {"format": "topomoe-workload", "version": 1, "name": "x", **change}
    path.write_text(json.dumps(content))
    with pytest.raises(ExperimentError, match=f"x.json: {message}") as caught:
        read_workload(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.json", "{"), ("x.json", "[]"), ("x.json", "[" * 9999), ("x.toml", "a ="), ("x.txt", "")],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: str) -> None:
    """Truncated, nested, foreign and absent ones."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ExperimentError, match=name):
        read_workload(path)
    with pytest.raises(ExperimentError, match="cannot be read"):
        read_workload(tmp_path / "none.json")


def test_runs_draw_from_the_file(tmp_path: Path) -> None:
    """Profile and judged trace are those of the workload; a file and a load exclude each other."""
    path = tmp_path / "x.toml"
    path.write_text(workload_text(fitted_file("a", CURVE, TOPICS), as_json=False))
    spec = WorkloadSpec(file=str(path), seed=2, profile_tokens=64)
    found = load_workload(SHAPE.name, spec, 32)
    expected = SyntheticWorkload(SHAPE, 2, CURVE, TOPICS, "like a")
    assert np.array_equal(found.trace.topk, expected.trace(32).topk)
    assert np.array_equal(found.profile.load, expected.profile(64).load)
    assert found.source == expected.source
    with pytest.raises(ValueError, match="not several"):
        WorkloadSpec(file="a", load="b")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Return a folder with a short stored trace by topics and loads of a 16B model."""
    drawn = SyntheticWorkload(SHAPE, 0, CURVE, Topics(4, 1.5, affinity=0.9, seq_len=20)).trace(600)
    with TraceWriter(
        tmp_path / "x.trace", model=SHAPE, experts=64, layers=27, top_k=6, source="made"
    ) as out:
        out.append(drawn.topk, seq_lens=drawn.seq_lens)
    counts = np.zeros((28, 64), int)
    counts[1:] = np.random.default_rng(0).integers(1, 100, (27, 64))
    (tmp_path / "x.json").write_text(json.dumps({"logical_count": counts.tolist()}))
    return tmp_path


def test_fit_says_how_like_it_is(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace gives topics; the file that is written places experts, and simulates."""
    out, written = recorded / "like.toml", recorded / "like.json"
    arguments = ["fit", str(recorded / "x.trace"), "--out", str(out), "--json", str(written)]
    assert status(arguments) == 0
    printed = capsys.readouterr().out
    assert "pairs: variation from chance" in printed
    content = json.loads(written.read_text())
    row = content["figures"]["pair_excess"]
    assert row["least"] <= row["drawn"] <= row["most"]
    assert row["off"] == pytest.approx(row["drawn"] / row["recorded"] - 1)
    assert abs(row["off"]) < 0.15
    off = content["figures"]["drift_ends_correlation"]
    assert off["off"] == pytest.approx(off["drawn"] - off["recorded"])
    assert content["workload"]["topics"]["seq_len"] == 20
    assert read_workload(out).name == "x.trace"
    place = ["place", "--cluster", "ep32", "--model", SHAPE.name, "--tokens", "64"]
    assert status([*place, "--workload", str(out), "--policy", "greedy-load"]) == 0
    assert "like x.trace, seed 0" in " ".join(capsys.readouterr().out.split())
    run = recorded / "run.toml"
    run.write_text(
        f'model = "{SHAPE.name}"\ncluster = "ep32"\ntokens = 64\n'
        '[workload]\nfile = "like.toml"\nprofile_tokens = 64\n[placement]\npolicy = "contiguous"\n'
    )
    assert status(["simulate", str(run)]) == 0


def test_fit_of_loads(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loads give a curve and no topics, twice the same bytes."""
    arguments = ["fit", str(recorded / "x.json"), "--model", SHAPE.name, "--out"]
    assert status([*arguments, str(recorded / "a.json")]) == 0
    assert status([*arguments, str(recorded / "b.json")]) == 0
    assert "Gini" in capsys.readouterr().out
    assert (recorded / "a.json").read_bytes() == (recorded / "b.json").read_bytes()
    assert read_workload(recorded / "a.json").topics is None


def test_numbers_stay_whole_on_a_narrow_screen(
    recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns labels are broken into lines, no number is cut."""
    monkeypatch.setattr(fit.console, "_width", 80)
    assert status(["fit", str(recorded / "x.trace")]) == 0
    printed = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    rows = [line for line in printed.splitlines() if line.count("\N{BOX DRAWINGS LIGHT VERTICAL}")]
    assert max(len(line) for line in rows) <= 80
    (gini,) = (line for line in rows if "Gini" in line)
    assert len(re.findall(r"\d\.\d{4}", gini)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.json", "--out", "y.txt"], "expected the name of a .toml or .json file"),
        (["none.json"], "cannot be read"),
        (["x.json"], "--model names another"),
        (["x.trace", "--model", "DeepSeek-R1"], "a trace of DeepSeekMoE-16B"),
        (["x.json", "--out", "x.json"], "both read and to be written"),
    ],
)
def test_bad_input_is_one_line(
    recorded: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit status 2, and nothing written."""
    monkeypatch.chdir(recorded)
    before = sorted(path.name for path in recorded.rglob("*"))
    assert status(["fit", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in recorded.rglob("*")) == before
