"""The benchmark's tables on recorded data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.benchmarks import eplb
from experiments.benchmarks.hop_speed import HopCase, hop_problem, hop_rows
from experiments.benchmarks.load_sections import LOAD_SECTIONS
from experiments.benchmarks.section import Section, Target, column, target_texts
from experiments.benchmarks.sections import SECTIONS, data_folder
from experiments.benchmarks.sweeping import SWEEP_SECTION, sweep_rows
from experiments.commands.bench import page

if TYPE_CHECKING:
    from pathlib import Path


def test_without_data_there_are_no_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not there is no folder."""
    monkeypatch.setenv("TOPOMOE_DATA", str(tmp_path / "none"))
    assert data_folder() is None
    monkeypatch.setenv("TOPOMOE_DATA", str(tmp_path))
    assert data_folder() == tmp_path


def test_markdown_of_a_section() -> None:
    """Title, headers and formatted cells; what is missing is a dash."""
    section = Section("Title", lambda _data, _all: [], {"a": ("A", ".1f"), "b": ("B", "")})
    text = section.markdown([{"a": 1.25, "b": None, "unseen": 3}])
    assert text == "### Title\n\n| A | B |\n| --- | ---: |\n| 1.2 | - |"
    folded = section.markdown([{"a": 1.25, "b": None}] * 25)
    assert folded.startswith("### Title\n\n<details><summary>25 rows</summary>\n\n| A | B |")
    assert folded.endswith("| 1.2 | - |\n\n</details>")


@pytest.mark.parametrize(
    ("sense", "values", "worst", "met"),
    [
        ("<=", [0.1, 0.3], 0.3, True),
        ("<=", [0.1, 0.31], 0.31, False),
        ("<", [0.3], 0.3, False),
        (">=", [0.4, 0.3], 0.3, True),
        (">=", [0.4, 0.29], 0.29, False),
        ("<=", [], None, None),
    ],
)
def test_a_target_judges_the_worst_case(
    sense: str, values: list[float], worst: float | None, met: bool | None
) -> None:
    """The worst figure decides; what was not measured is neither met nor missed."""
    row = Target("figure", lambda _rows: values, 0.3, sense, ".1f").judge([])
    assert (row["worst"], row["met"], row["needed"]) == (worst, met, f"{sense} 0.3")
    words = {True: "met", False: "MISSED", None: "not measured"}
    shown = "-" if worst is None else f"{worst:.1f}"
    assert target_texts([row]) == [
        ["figure", f"{sense} 0.3", str(len(values)), shown, words[met]],
    ]


def test_a_column_is_taken_from_the_rows_that_match() -> None:
    """Every other column given must be equal."""
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": "x"}]
    assert column("a", b="x")(rows) == [1.0, 3.0]
    assert column("a")(rows) == [1.0, 2.0, 3.0]


def test_replicas_are_held_to_balance_and_hops_of_eplb() -> None:
    """A placement with more load on its busiest GPU, or as many hops, misses the requirement."""
    section = next(each for each in LOAD_SECTIONS if each.title.startswith("Replicas"))
    row = {"rule": "equal", "eplb_balance": 1.0, "eplb_hops": 40.0}
    good = section.judged([row | {"balance": 1.0, "hops": 39.0}])
    assert [each["met"] for each in good] == [True, True, None, None]
    bad = section.judged([row | {"balance": 1.01, "hops": 40.0}])
    assert [each["met"] for each in bad] == [False, False, None, None]


def test_copies_across_tasks_are_judged_by_the_mean_of_both_directions() -> None:
    """18 % one way and 23 % the other are 20.5 %; the other way to count has 19 %."""
    section = next(each for each in LOAD_SECTIONS if each.title.startswith("Fewest copies, load"))
    cells = [("law", 0, 0.18), ("intent", 0, 0.23), ("law", 1, 0.18), ("intent", 1, 0.20)]
    rows = [{"judged": a, "flatten": b, "fewer": c} for a, b, c in cells]
    within, across = section.judged([*rows, {"judged": "odd blocks", "flatten": 0, "fewer": 0.31}])
    assert (within["worst"], within["met"]) == (0.31, True)
    assert across["worst"] == pytest.approx(0.19)
    assert (across["cases"], across["met"]) == (2, False)


def test_the_published_balancer_example_is_counted_slot_by_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both forms agree with the published slots, and a wrong slot is noticed."""
    monkeypatch.setattr(eplb, "REPEATS", 1)
    assert [row["different"] for row in eplb.eplb_rows()] == [0, 0, None, None]
    wrong = ((11, *eplb.GLOBAL[0][1:]), eplb.GLOBAL[1])
    monkeypatch.setattr(eplb, "GLOBAL", wrong)
    assert [row["different"] for row in eplb.eplb_rows()] == [0, 1, None, None]


def test_a_hop_case_is_solved_apart_and_its_memory_is_its_own() -> None:
    """The child's peak leaves out what this process holds: 300 MB more here are not seen there."""
    case = HopCase("DeepSeek-R1", "ep32", 1.0)
    (alone,) = hop_rows(naive={}, cases=(case,))
    held = np.ones(300_000_000, dtype=np.uint8)
    (again,) = hop_rows(naive={}, cases=(case,))
    assert held.all()
    assert again["peak_gib"] < alone["peak_gib"] + 0.1
    assert (alone["solver"], alone["servers"], alone["status"]) == ("flow", 4, "optimal")
    assert alone["slower"] == 1.0
    assert 0 < alone["peak_gib"] < 4


def test_scaled_clusters_have_the_servers_they_are_called_by() -> None:
    """64 and 256 servers, the latter of one GPU, with the caps that both bind."""
    problem = hop_problem(HopCase("DeepSeek-R1", "64 servers", 1.0))
    # 2 * 256 / 64 = 8, 58 * 256 / 64 = 232.
    assert (problem.servers, problem.layer_slots, problem.server_slots) == (64, 8, 232)
    single = hop_problem(HopCase("DeepSeek-R1", "256 single-GPU servers", 1.0))
    assert (single.servers, single.gpus_per_server, single.layer_slots) == (256, 1, 2)


@pytest.mark.real_data
@pytest.mark.parametrize("title", ["GPUs inside", "Routing groups", "Balance from"])
def test_every_column_is_in_the_rows(real_data: Path, title: str) -> None:
    """What a table shows is measured, and what is required of it is met."""
    section = next(each for each in SECTIONS if each.title.startswith(title))
    rows = section.rows(real_data, False)  # noqa: FBT003  a row source takes two values
    assert rows
    assert len(section.texts(rows)[0]) == len(section.header)
    assert all(row["met"] for row in section.judged(rows))


def test_a_page_tells_what_was_not_measured() -> None:
    """Requirements come first, all of them; tables follow for what has rows."""
    row = {"case": "R1", "slots": 512, "gpus": 256, "different": None, "seconds": 0.2}
    title = next(each.title for each in SECTIONS if each.title.startswith("EPLB"))
    text = page({title: [row]})
    assert text.startswith("### What is required, and the worst case measured\n\n| required |")
    assert "| EPLB, 256 GPUs, 512 slots: seconds | <= 0.15 | 1 | 0.20 | MISSED |" in text
    assert "| busiest links: gap to the bound | <= 3.00% | 0 | - | not measured |" in text
    assert text.count("###") == 2
    assert text.endswith("| R1 | 512 | 256 | - | 0.2000 |\n")


def test_what_a_sweep_adds_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows hold every column; the parts of time are shares, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    rows = sweep_rows(4, stored=3)
    assert [row["runs"] for row in rows] == [3, 4]
    assert all(set(SWEEP_SECTION.columns) <= set(row) for row in rows)
    assert 0 < rows[0]["least_ms"] <= rows[0]["ms"]
    assert rows[1]["start_s"] < rows[1]["seconds"]
    assert 0 < rows[1]["later"] < rows[1]["overhead"] < 1
    assert not list(tmp_path.iterdir())
    # 4 runs are not the 1,000 that are judged.
    assert [row["met"] for row in SWEEP_SECTION.judged(rows)][1] is None
