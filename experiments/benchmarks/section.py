"""A topic of the benchmark: rows that are measured, columns that are shown, what is required."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.markdown import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Rows = list[dict[str, Any]]

LONG = 24
"""Rows of a table that a page shows unfolded."""

_SENSES = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that is required.

    Attributes
    ----------
    what
        The figure, in words.
    values
        From a section's rows to the figures, one per case; none where the run left them out.
    limit, sense
        Every figure has to be ``<=``, ``<`` or ``>=`` the limit.
    form
        Format of limit and figures.
    """

    what: str
    values: Callable[[Rows], list[float]]
    limit: float
    sense: str = "<="
    form: str = ".2f"

    def judge(self, rows: Rows) -> dict[str, Any]:
        """Return ``what``, ``needed``, ``cases``, the ``worst`` figure and whether it is ``met``.

        `worst` and `met` are None where nothing was measured.
        """
        values = self.values(rows)
        row: dict[str, Any] = {"what": self.what, "cases": len(values), "worst": None, "met": None}
        row["needed"] = f"{self.sense} {self.limit:{self.form}}"
        if values:
            worst = min(values) if self.sense == ">=" else max(values)
            row |= {"worst": worst, "met": bool(_SENSES[self.sense](worst, self.limit))}
        return row | {"form": self.form}


@dataclass(frozen=True, slots=True)
class Section:
    """A topic of the benchmark.

    Attributes
    ----------
    title
        What is measured, on what.
    rows
        Called with the data folder and whether everything is asked for; no rows where the topic
        is measured only with everything.
    columns
        Header and format of every column shown, in order; the rows hold more for programs.
    targets
        What the rows are required to show.
    needs_data
        Whether recorded loads or traces are read.
    """

    title: str
    rows: Callable[[Path, bool], Rows]
    columns: Mapping[str, tuple[str, str]]
    targets: tuple[Target, ...] = ()
    needs_data: bool = True

    @property
    def header(self) -> list[str]:
        """Headers of the columns."""
        return [header for header, _ in self.columns.values()]

    def texts(self, rows: Rows) -> list[list[str]]:
        """Return the cells of the table, `None` as a dash."""
        return [
            [_text(row[name], form) for name, (_, form) in self.columns.items()] for row in rows
        ]

    def markdown(self, rows: Rows) -> str:
        """Return title and table, a long one folded."""
        table = markdown_table(self.header, self.texts(rows))
        if len(rows) > LONG:
            summary = f"<details><summary>{len(rows)} rows</summary>"
            table = f"{summary}\n\n{table}\n\n</details>"
        return f"### {self.title}\n\n{table}"

    def judged(self, rows: Rows) -> Rows:
        """Return what is required beside what was measured."""
        return [target.judge(rows) for target in self.targets]


TARGET_HEADER = ["required", "needed", "cases", "worst measured", "verdict"]


def target_texts(judged: Rows) -> list[list[str]]:
    """Return the cells of the table of requirements."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    return [
        [
            row["what"],
            row["needed"],
            str(row["cases"]),
            _text(row["worst"], row["form"]),
            words[row["met"]],
        ]
        for row in judged
    ]


def column(name: str, **fixed: object) -> Callable[[Rows], list[float]]:
    """Return what takes a column of the rows whose other columns are as given."""

    def values(rows: Rows) -> list[float]:
        return [
            float(row[name])
            for row in rows
            if all(row[key] == value for key, value in fixed.items())
        ]

    return values


def _text(value: object, form: str) -> str:
    return "-" if value is None else format(value, form)
