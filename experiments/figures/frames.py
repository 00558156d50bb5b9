"""Checks on the tables that figures are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.errors import FigureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

CELL = ("model", "cluster", "policy")
"""Columns that name a cell of the study."""


def select(
    frame: pd.DataFrame,
    table: str,
    *,
    keys: Sequence[str],
    numbers: Sequence[str],
    columns: Sequence[str] = (),
    where: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the rows that match `where`, once they are known to be fit to draw.

    Parameters
    ----------
    frame
        The table.
    table
        What messages call it.
    keys
        Columns that together name a row; with none, rows may repeat.
    numbers
        Columns that must hold finite numbers at least 0.
    columns
        Further columns that are read, and may have gaps.
    where
        The value wanted in each of some further columns.

    Raises
    ------
    FigureError
        If a column is missing, no row matches, a number is missing, infinite or negative, or
        two rows have the same keys.
    """
    where = where or {}
    for column in (*where, *keys, *numbers, *columns):
        if column not in frame.columns:
            found = ", ".join(map(str, frame.columns))
            raise FigureError(f"{table}: missing column '{column}'; found: {found}")
    rows = frame
    for column, value in where.items():
        rows = _matching(rows, table, column, value)
    if rows.empty:
        raise FigureError(f"{table}: it has no rows, expected at least one to draw")
    for column in numbers:
        _check_numbers(rows, table, column)
    if keys:
        _check_keys(rows, table, keys)
    return rows


def _matching(rows: pd.DataFrame, table: str, column: str, value: str) -> pd.DataFrame:
    matching = rows[rows[column] == value]
    if matching.empty and not rows.empty:
        found = ", ".join(in_order(rows[column]))
        raise FigureError(f"{table}: no row with {column} '{value}'; found: {found}")
    return matching


def _check_numbers(rows: pd.DataFrame, table: str, column: str) -> None:
    values = rows[column].to_numpy()
    if values.dtype.kind not in "iuf":
        raise FigureError(f"{table}: column '{column}' holds {values.dtype}, expected numbers")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise FigureError(
            f"{table}: column '{column}' holds {values[wrong[0]]} in row {rows.index[wrong[0]]}, "
            "expected a finite number >= 0"
        )


def _check_keys(rows: pd.DataFrame, table: str, keys: Sequence[str]) -> None:
    repeated = rows.duplicated(list(keys))
    if repeated.any():
        row = rows.loc[repeated, list(keys)].iloc[0]
        raise FigureError(f"{table}: two rows for {', '.join(map(str, row))}; expected one")


def in_order(values: Iterable[str], first: Iterable[str] = ()) -> list[str]:
    """Return the distinct values: those named in `first` in that order, then as they appear."""
    distinct = dict.fromkeys(map(str, values))
    ahead = [name for name in first if name in distinct]
    return ahead + [name for name in distinct if name not in ahead]
