"""A square matrix from a file: ``.npy``, or CSV without a header."""

from __future__ import annotations

import csv
from io import BytesIO, StringIO
from tokenize import TokenError
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np

from topologies.checks import shown
from topologies.errors import TopologyError
from topologies.source import read_bytes, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_RANKS = 1 << 13
"""Rows of a matrix."""


def read_matrix(path: Path) -> NDArray[np.float64]:
    """Return float64 [ranks, ranks], every entry but the diagonal finite and at least 0.

    The diagonal, which a benchmark may leave empty in its own way, comes back as 0.

    Raises
    ------
    TopologyError
        In one line that starts with the file's name, with row and column, counted from 0.
    """
    npy = path.suffix == ".npy"
    content = read_bytes(path) if npy else read_text(path, kind="CSV")
    try:
        matrix = _npy(content) if isinstance(content, bytes) else _csv(content)
        _check_entries(matrix)
    except TopologyError as error:
        raise TopologyError(f"{path}: {error}") from None
    return matrix


def _check_entries(matrix: NDArray[np.float64]) -> None:
    np.fill_diagonal(matrix, 0.0)
    bad = ~(np.isfinite(matrix) & (matrix >= 0))
    if bad.any():
        row, column = (int(at) for at in np.argwhere(bad)[0])
        raise TopologyError(
            f"row {row}, column {column}: is {matrix[row, column]}; expected a finite number of "
            "at least 0"
        )


def _npy(content: bytes) -> NDArray[np.float64]:
    """Return the array of an .npy file; its header is checked before anything is allocated."""
    stream = BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        with catch_warnings():
            simplefilter("error")  # of headers that NumPy would mend
            shape, fortran, dtype = read(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, TokenError, Warning):
        raise TopologyError("is no .npy file of version 1 or 2") from None
    _check_shape(shape)
    if dtype.kind not in "iuf":
        raise TopologyError(f"holds {dtype}; expected numbers")
    found = len(content) - stream.tell()
    if found != shape[0] * shape[1] * dtype.itemsize:
        raise TopologyError(
            f"holds {found} bytes; expected {shape[0] * shape[1] * dtype.itemsize} for "
            f"{shape} of {dtype}"
        )
    flat = np.frombuffer(content, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").astype(np.float64)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[0] != shape[1] or not 1 <= shape[0] <= MAX_RANKS:
        raise TopologyError(
            f"has the shape {shown(shape)}; expected [ranks, ranks] with 1 to {MAX_RANKS} ranks"
        )


def _csv(text: str) -> NDArray[np.float64]:
    rows: list[NDArray[np.float64]] = []
    reader = csv.reader(StringIO(text), strict=True)
    try:
        for cells in reader:
            if not cells:
                continue
            if len(rows) == MAX_RANKS or (rows and len(cells) != len(rows[0])):
                expected = f"{len(rows[0])}, as in row 0" if rows else "some"
                raise TopologyError(
                    f"row {len(rows)}: has {len(cells)} cells; expected {expected}, and at most "
                    f"{MAX_RANKS} rows"
                )
            rows.append(_numbers(cells, len(rows)))
    except csv.Error as error:
        raise TopologyError(f"row {len(rows)}: is no CSV: {error}") from None
    _check_shape((len(rows), len(rows[0]) if rows else 0))
    return np.array(rows)


def _numbers(cells: list[str], row: int) -> NDArray[np.float64]:
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        column = next(at for at, cell in enumerate(cells) if not is_number(cell))
        # A diagonal may be left empty.
        if column == row and not cells[column].strip():
            return _numbers([*cells[:column], "0", *cells[column + 1 :]], row)
        raise TopologyError(
            f"row {row}, column {column}: is {shown(cells[column])}; expected a number"
        ) from None


def is_number(cell: Any) -> bool:
    """Say whether a cell of a table reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
