"""`topomoe stats`: figures, pictures and warnings of recordings, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.cli import status
from experiments.errors import FigureError
from experiments.figures import recorded
from workloads import StoredTrace, TraceWriter, count_trace, expected_pairs, model, trace_statistics

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = model("DeepSeekMoE-16B")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one recording of every kind, of a 16B model."""
    rng = np.random.default_rng(0)
    topk = np.argsort(rng.random((60, 27, 64)) * np.arange(1, 65), axis=2)[:, :, :6]
    np.savez(tmp_path / "a.npz", topk_ids=topk, seq_lens=np.full(6, 10))
    with TraceWriter(
        tmp_path / "b.trace", model=SHAPE, experts=64, layers=27, top_k=6, source="made"
    ) as out:
        out.append(topk[:30], seq_lens=[10, 20], phase=0, domain="law")
        out.append(topk[30:], phase=1, domain="code")
    counts = np.zeros((28, 64), int)
    counts[1:] = rng.integers(1, 100, (27, 64))
    (tmp_path / "c.json").write_text(json.dumps({"logical_count": counts.tolist()}))
    (tmp_path / "other.txt").write_text("neither loads nor choices\n")
    return tmp_path


def test_recordings_stand_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of file is read; figures, comparisons and warnings are printed and written."""
    files = [str(folder / name) for name in ("a.npz", "b.trace", "c.json")]
    out, written = folder / "drawn", folder / "stats.json"
    options = ["--model", SHAPE.name, "--out", str(out), "--json", str(written)]
    assert status(["stats", *files, *options]) == 0
    printed = capsys.readouterr().out
    assert "Gini coefficient of the loads" in printed
    assert "too few tokens: standard error of a load" in printed
    content = json.loads(written.read_text())
    first, second, third = content["files"]
    assert (first["tokens"], second["sequences"], third["tokens"]) == (60, 3, None)
    assert first["gini"] == pytest.approx(second["gini"])
    assert first["prefill_decode_correlation"] is None
    assert -1 <= second["prefill_decode_correlation"] <= 1
    assert second["domain_correlation"] == second["prefill_decode_correlation"]
    assert first["warnings"][0].startswith("too few tokens")
    assert third["warnings"] == []
    assert [(row["first"], row["second"]) for row in content["between"]] == [
        ("a.npz", "b.trace"),
        ("a.npz", "c.json"),
        ("b.trace", "c.json"),
    ]
    assert content["between"][0]["correlation"] == pytest.approx(1)
    assert content["between"][0]["variation"] == pytest.approx(0)
    names = {f"{name}.{kind}" for name in ("loads", "choices") for kind in ("pdf", "png")}
    assert {path.name for path in out.iterdir()} == names


def test_loads_alone_draw_no_choices(folder: Path) -> None:
    """Of loads there is nothing to say about pairs."""
    out = folder / "drawn"
    arguments = ["stats", str(folder / "c.json"), "--model", SHAPE.name, "--out", str(out)]
    assert status(arguments) == 0
    assert {path.name for path in out.iterdir()} == {"loads.pdf", "loads.png"}


def test_a_stored_trace_needs_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says itself what it holds; other files are taken for the default, and say so."""
    assert status(["stats", str(folder / "b.trace")]) == 0
    assert status(["stats", str(folder / "a.npz")]) == 2
    error = capsys.readouterr().err
    assert "taken for DeepSeek-R1; --model names another" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["none.npz"], "none.npz: cannot be read: No such file or directory\n"),
        (["none.txt"], "none.txt: cannot be read: No such file or directory\n"),
        (["other.txt"], "expected recorded loads"),
        (["a.npz", "a.npz"], "a.npz: a file is given twice"),
        (["a.npz", "--model", "none"], "none"),
        (["b.trace", "--json", "b.trace/topk.npy"], "lies inside"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path,
    names: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit status 2, one line, and nothing written."""
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in folder.rglob("*"))
    options = [] if "--model" in names else ["--model", SHAPE.name]
    assert status(["stats", *names, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_concentration_ends_with_all_pairs(folder: Path) -> None:
    """The curve rises to 1 and passes the top share of the statistics at one per cent."""
    counts = count_trace(StoredTrace.open(folder / "b.trace"))
    pairs = counts.pairs.astype(float)
    pairs[:, np.arange(64), np.arange(64)] = 0
    percent, share = recorded.concentration(pairs)
    assert (percent[-1], share[-1]) == pytest.approx((100, 1))
    # 20 of the 2016 pairs are the top hundredth.
    at = np.interp(100 * 20 / 2016, percent, share)
    assert at == pytest.approx(trace_statistics(counts).pair_top_share, rel=0.02)
    assert (recorded.concentration(expected_pairs(pairs))[1] <= 1 + 1e-9).all()


def test_nothing_to_draw() -> None:
    """A figure without recordings is refused."""
    for draw in (recorded.loads_figure, recorded.choices_figure):
        with pytest.raises(FigureError, match="nothing to draw"):
            draw({})
