"""Hops typed in from a publication, to be laid beside ours."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import pandas as pd

from experiments.errors import FigureError
from experiments.limits import MAX_HOPS
from experiments.study import policy_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from experiments.study import Study

CELL = ("model", "cluster", "policy")
COLUMNS = (*CELL, "hops")


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Figures of somebody else, and the file they came in.

    Attributes
    ----------
    hops
        A row per figure: model, cluster, policy, hops (float64, per token and layer).
    name, sha256
        Of the file.
    """

    hops: pd.DataFrame
    name: str
    sha256: str


def read_expected(path: Path, study: Study) -> Expected:
    """Read figures typed in from the paper, and see that the study has a cell for each.

    The file is CSV with a header that names at least model, cluster, policy and hops; empty
    lines do not matter.

    Raises
    ------
    FigureError
        If the file cannot be read, misses a column, has no rows or a row of another length,
        names a cell twice or one the study does not have, or holds hops that are no positive
        number; the message names file and line.
    """
    try:
        content = path.read_bytes()
        lines = list(_lines(content.decode("utf-8-sig")))
    except OSError as error:
        raise FigureError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise FigureError(f"{path}: cannot be read as CSV: {error}") from error
    allowed = {
        "model": study.models,
        "cluster": study.clusters,
        "policy": policy_names(study),
    }
    try:
        frame = pd.DataFrame(_rows(lines, allowed), columns=list(COLUMNS))
    except FigureError as error:
        raise FigureError(f"{path}: {error}") from None
    return Expected(frame, path.name, hashlib.sha256(content).hexdigest())


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Return the number of every line that is not empty, and its fields."""
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    for fields in reader:
        if any(field.strip() for field in fields):
            yield reader.line_num, fields


def _rows(
    lines: Sequence[tuple[int, list[str]]], allowed: Mapping[str, Sequence[str]]
) -> list[tuple[str | float, ...]]:
    """Return the cells and their hops, all checked."""
    if not lines:
        raise FigureError(f"is empty; expected a header with {', '.join(COLUMNS)}")
    header = lines[0][1]
    for column in COLUMNS:
        if header.count(column) != 1:
            found = "missing" if column not in header else "repeated"
            raise FigureError(f"{found} column '{column}'; expected {', '.join(COLUMNS)}")
    if len(lines) == 1:
        raise FigureError("has a header and no rows; expected at least one figure")
    rows: dict[tuple[str, ...], tuple[int, float]] = {}
    for line, fields in lines[1:]:
        if len(fields) != len(header):
            raise FigureError(f"line {line}: {len(fields)} fields; expected {len(header)}")
        values = dict(zip(header, fields, strict=True))
        for column, names in allowed.items():
            if values[column] not in names:
                raise FigureError(
                    f"line {line}: unknown {column} '{values[column]}'; allowed: {', '.join(names)}"
                )
        cell = tuple(values[column] for column in CELL)
        if cell in rows:
            raise FigureError(f"line {line}: {', '.join(cell)} again, as on line {rows[cell][0]}")
        rows[cell] = line, _hops(values["hops"], line)
    return [(*cell, hops) for cell, (_, hops) in rows.items()]


def _hops(text: str, line: int) -> float:
    try:
        # float() also takes 1_000 and "infinity", which nobody types on purpose.
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_HOPS:
        raise FigureError(
            f"line {line}: hops is '{text}'; expected a number above 0, at most {MAX_HOPS:g}"
        )
    return value
