"""The benchmark's tables on recorded data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from experiments.benchmarks.section import Section
from experiments.benchmarks.sections import data_folder

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


@pytest.mark.real_data
@pytest.mark.parametrize("section", CHEAP, ids=lambda section: section.title[:7])
def test_every_column_is_in_the_rows(real_data: Path, section: Section) -> None:
    """What a table shows is measured."""
    rows = section.rows(real_data, False)  # noqa: FBT003  a row source takes two values
    assert rows
    assert len(section.texts(rows)[0]) == len(section.header)
