"""The validation table: its quick lines pass, its verdicts can fail, and the command says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from experiments import cli
from experiments.validation import hardware, laws, line, overlap, suite, times
from experiments.validation.line import (
    EXPLAINED,
    FAILED,
    PASSED,
    SHOWN,
    Expected,
    Finding,
    Got,
    expectations,
)
from experiments.validation.suite import SECTIONS, Section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.validation
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_quick_lines_pass(section: Section) -> None:
    """Every judged line that does not take long is within its tolerance."""
    failed = [line.row() for line in section.findings(quick=True) if line.verdict == FAILED]
    assert not failed


def test_every_line_has_a_section() -> None:
    """No expected line is left out because its section does not exist."""
    assert {key.split(".")[0] for key in expectations()} == {each.name for each in SECTIONS}


def test_published_rows_are_as_printed() -> None:
    """The rows of DeepEP stand in the table as published, with the tolerances asked for."""
    rows = {key: line for key, line in expectations().items() if key.startswith("hardware.")}
    for direction, times_us, rel in (
        ("dispatch", (77, 155, 192), 0.03),
        ("combine", (114, 273, 369), 0.1),
    ):
        for ranks, time in zip(hardware.PUBLISHED, times_us, strict=True):
            line = rows[f"hardware.{direction}.{ranks}"]
            assert (line.value, line.rel, line.abs, line.judged) == (time, rel, 0, True)
            assert rows[f"hardware.null.{direction}.{ranks}"].value == time


@pytest.mark.parametrize(
    ("options", "got", "verdict"),
    [
        ({"value": 3.0}, [3.0], PASSED),
        ({"value": 3.0}, [3.0000001], FAILED),
        ({"value": 0.0, "rel": 0.1}, [0.05], PASSED),
        ({"value": [10.0, 20.0], "rel": 0.1}, [10.9, 18.1], PASSED),
        ({"value": [10.0, 20.0], "rel": 0.1}, [10.0, 17.9], FAILED),
        ({"value": [10.0, 20.0], "abs": 0.5}, [10.4, 19.4], FAILED),
        ({"value": 0.5, "most": True}, [0.4], PASSED),
        ({"value": 0.5, "most": True}, [0.51], FAILED),
        ({"value": 3.0, "rel": 0.1}, [float("nan")], FAILED),
        ({"value": [1.0, 2.0]}, [1.0], FAILED),
        ({"value": 3.0, "rel": 0.1}, None, FAILED),
        ({"value": 3.0, "judged": False}, [30.0], SHOWN),
        ({"judged": False}, [30.0], SHOWN),
        ({"value": 3.0, "reason": "known"}, [4.0], EXPLAINED),
        ({"value": 3.0, "reason": "known"}, [3.0], PASSED),
        ({"value": 3.0, "reason": "known"}, None, FAILED),
    ],
)
def test_verdicts(options: dict[str, object], got: list[float] | None, verdict: str) -> None:
    """Deviations are judged against what was expected; NaN and missing numbers never pass."""
    expected = Expected.model_validate({"what": "", "source": ""} | options)
    assert Finding("", expected, None if got is None else tuple(got)).verdict == verdict


def test_a_line_nobody_measures_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A section names the lines that its checks forgot; slow ones only when all is measured."""
    section = Section("laws", "Laws", (lambda: iter([Got("laws.good", 0)]),))
    lines = {line.key: line.verdict for line in section.findings()}
    assert lines == {"laws.good": PASSED, "laws.caught": FAILED}
    slow = {key: line.model_copy(update={"slow": True}) for key, line in expectations().items()}
    monkeypatch.setattr(suite, "expectations", lambda: slow)
    assert [line.key for line in section.findings(quick=True)] == ["laws.good"]


def test_a_slower_link_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks look at the simulator: one ns more of service and the exact lines fail."""
    monkeypatch.setattr(times, "SERVICE_NS", times.SERVICE_NS + 1)
    assert {Finding.of(got).verdict for got in times.store_and_forward()} == {FAILED}


def test_a_wrong_bandwidth_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 40 GB/s does not give the published times of 32 ranks."""
    monkeypatch.setattr(hardware, "CARD_BPS", 40e9)
    found = hardware.kernel_us.__wrapped__(32)
    verdicts = [
        Finding.of(Got(f"hardware.{direction}.32", time)).verdict
        for direction, time in zip(hardware.DIRECTIONS, found, strict=True)
    ]
    assert verdicts == [FAILED, FAILED]


def test_a_law_that_looks_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the laws every doctored result passes, and the line says which."""
    monkeypatch.setattr(laws, "check_laws", lambda *_: None)
    caught = [Finding.of(got) for got in laws.every_law() if got.key == "laws.caught"]
    assert {line.got for line in caught} == {(8.0,)}
    assert {line.verdict for line in caught} == {FAILED}
    assert caught[0].case == (
        "analytic: delivery, routes, hops, capacity, durations, time, gpu time, end"
    )


def test_null_model_by_hand() -> None:
    """Mean bytes over bandwidth differ by rows as they should, and the constant is between."""
    # 8 ranks: 1024 * 7/8 * 7408 B / 160 GB/s = 41.48 us; 32: 1024 * 24/32 * 7408 / 50e9 = 113.79.
    eight, thirty_two, _ = hardware.null_us("dispatch")
    assert thirty_two - eight == pytest.approx(113.787 - 41.485, abs=0.001)
    assert 77 - 41.485 < eight - 41.485 < 155 - 113.787


def _lines(*values: float) -> tuple[Section]:
    def check() -> Iterator[Got]:
        for value in values:
            yield Got("laws.good", value, "case")

    return (Section("laws", "Laws", (check, lambda: iter([Got("laws.caught", 0)]))),)


def test_command_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All lines pass: exit status 0, a table for people and the lines for programs."""
    monkeypatch.setattr(suite, "SECTIONS", _lines(0.0))
    file = tmp_path / "lines.json"
    assert cli.status(["validate", "--only", "laws", "--json", str(file)]) == 0
    assert "2 judged lines pass, 0 miss" in capsys.readouterr().out
    good, caught = json.loads(file.read_text())["lines"]
    assert (good["key"], good["case"], good["got"], good["error"]) == ("laws.good", "case", [0], 0)
    assert (good["expected"], good["tolerance"], good["verdict"]) == (0, "equal", "pass")
    assert caught["key"] == "laws.caught"


def test_command_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A judged line fails: exit status 1 and one line that says how many."""
    monkeypatch.setattr(suite, "SECTIONS", _lines(0.0, 1.0))
    assert cli.status(["validate"]) == 1
    out, err = capsys.readouterr()
    assert FAILED in out
    assert "1 of 3 judged lines fail" in err


def test_a_miss_with_a_reason_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is printed as a miss with its reason, counted and named last; exit status 0."""
    good = expectations()["laws.good"]
    known = {**expectations(), "laws.good": good.model_copy(update={"reason": "It is\nknown."})}
    monkeypatch.setattr(line, "expectations", lambda: known)
    monkeypatch.setattr(suite, "SECTIONS", _lines(0.0, 1.0))
    page = tmp_path / "page.md"
    assert cli.status(["validate", "--table", str(page)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "2 judged lines pass, 1 miss for a stated reason (laws.good case), 0 are skipped" in out
    for text in (out, page.read_text()):
        assert f"{good.what}: It is known." in text
    assert "| miss |" in page.read_text()
    assert "FAIL" not in out


def test_published_ratios_are_judged() -> None:
    """SGLang's ratios stand in the table as published, within 0.1."""
    for key, value in (("prefill.ratio", 1.18), ("overlap.256", 1.255), ("overlap.32", 0.73)):
        expected = expectations()[f"serving.{key}"]
        assert (expected.value, expected.abs, expected.rel, expected.judged) == (
            value,
            0.1,
            0,
            True,
        )


def test_every_reason_is_of_a_published_figure() -> None:
    """What theory, laws and other fidelities say has no excuse."""
    excused = {key.split(".")[0] for key, expected in expectations().items() if expected.reason}
    assert excused == {"serving"}


def test_even_traffic_in_turns_is_where_networks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line would fail for what is not in turns, and for what is not even."""
    monkeypatch.setattr(overlap, "LAYERS", 2)
    found = [Finding.of(got) for got in overlap.two_batches()]
    assert [each.verdict for each in found] == [PASSED, SHOWN, SHOWN, SHOWN]
    judged = [Finding.of(Got("fidelity.overlap.even", each.got)) for each in found]
    assert [each.verdict for each in judged] == [PASSED, FAILED, FAILED, FAILED]


def test_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and the sections there are."""
    assert cli.status(["validate", "--only", "hope"]) == 2
    allowed = ", ".join(section.name for section in SECTIONS)
    assert f"unknown section 'hope'; allowed: {allowed}" in capsys.readouterr().err
