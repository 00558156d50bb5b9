"""Reader of expert loads as SGLang records them: JSON with the key ``logical_count``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.profile import ExpertProfile

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel

KEY = "logical_count"
MAX_FILE_BYTES = 256 << 20
"""Largest file that is parsed; JSON takes several times its size in memory."""


def read_logical_count(path: str | PathLike[str], model: MoEModel) -> ExpertProfile:
    """Read the tokens routed to every logical expert.

    The file is ``{"logical_count": counts}`` with counts [rows][experts], or
    [steps][rows][experts], which is summed over the steps. The rows are all hidden layers (those
    of dense layers zero, as SGLang writes and expects them) or the MoE layers only. Like SGLang,
    the reader takes no other key beside this one.

    Parameters
    ----------
    path
        The JSON file.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and row.
    """
    file = Path(path)
    try:
        steps = _steps(_counts_of(_parse(file)))
        moe = _moe_rows(_summed(steps, model), model)
        return ExpertProfile.from_counts(moe, source=f"{KEY} of {file.name}")
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def _parse(file: Path) -> Any:
    try:
        return json.loads(_content(file))
    except OSError as error:
        raise WorkloadError(f"cannot be read: {error.strerror or error}") from None
    except WorkloadError:
        raise
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"not valid JSON (truncated?): {error}") from None


def _content(file: Path) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise WorkloadError(f"larger than {MAX_FILE_BYTES} bytes, the most that is read")
    return content


def _counts_of(document: Any) -> Any:
    if not isinstance(document, dict):
        raise WorkloadError(f"expected an object with the key {KEY!r}, got a {_kind(document)}")
    if KEY not in document:
        have = ", ".join(repr(key) for key in list(document)[:5]) or "none"
        raise WorkloadError(f"key {KEY!r} is missing; keys there are: {have}")
    unknown = [key for key in document if key != KEY]
    if unknown:
        raise WorkloadError(f"unknown key {unknown[0]!r}: only {KEY!r} is allowed")
    return document[KEY]


def _steps(counts: Any) -> list[tuple[str, list[Any]]]:
    """Return the name and the rows of every step; one step where the file has no such axis."""
    rows = _listed(counts, KEY)
    first = _listed(rows[0], f"{KEY}[0]")
    if not isinstance(first[0], list):
        return [(KEY, rows)]
    return [(f"{KEY}[{i}]", _listed(row, f"{KEY}[{i}]")) for i, row in enumerate(rows)]


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        got = "an empty list" if isinstance(value, list) else f"a {_kind(value)}"
        raise WorkloadError(f"{name}: expected a list of counts, got {got}")
    return value


def _summed(steps: list[tuple[str, list[Any]]], model: MoEModel) -> NDArray[np.float64]:
    """Return the counts of all steps together, float64 [rows, experts]."""
    depth = len(steps[0][1])
    counts = np.zeros((depth, model.experts))
    for name, rows in steps:
        step = _step(name, rows, model)
        if len(step) != depth:
            raise WorkloadError(f"{name}: {len(step)} rows, expected {depth} as in {steps[0][0]}")
        # An overflow gives infinity, which is refused later with its row.
        with np.errstate(over="ignore"):
            counts += step
    return counts


def _step(name: str, rows: list[Any], model: MoEModel) -> NDArray[np.float64]:
    """Return one step's counts, float64 [rows, experts]."""
    if len(rows) not in (model.hidden_layers, model.layers):
        raise WorkloadError(
            f"{name}: {len(rows)} rows, expected {model.hidden_layers} (all layers of "
            f"{model.name}) or {model.layers} (its MoE layers)"
        )
    step = np.array([_row(f"{name}[{i}]", row, model.experts) for i, row in enumerate(rows)])
    dense = sorted(set(range(len(rows))) - set(model.moe_layers))
    if len(rows) == model.hidden_layers and step[dense].any():
        bad = next(i for i in dense if step[i].any())
        raise WorkloadError(
            f"{name}[{bad}]: counts above zero, but layer {bad} of {model.name} is dense"
        )
    return step


def _row(name: str, row: Any, experts: int) -> NDArray[np.float64]:
    values = _listed(row, name)
    if len(values) != experts:
        raise WorkloadError(f"{name}: {len(values)} counts, expected {experts}, one per expert")
    # JSON booleans are ints to Python: compare the types themselves.
    if not {int, float}.issuperset(map(type, values)):
        bad = next(i for i, value in enumerate(values) if type(value) not in (int, float))
        raise WorkloadError(f"{name}[{bad}]: expected a number, got a {_kind(values[bad])}")
    try:
        counts = np.array(values, dtype=np.float64)
    except OverflowError:
        raise WorkloadError(f"{name}: a count is beyond the range of float64") from None
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(wrong):
        bad = int(wrong[0])
        raise WorkloadError(
            f"{name}[{bad}]: count is {float(counts[bad])}, expected a finite number >= 0"
        )
    return counts


def _moe_rows(counts: NDArray[np.float64], model: MoEModel) -> NDArray[np.float64]:
    """Drop the dense rows, [rows, experts] -> [layers, experts].

    Raises
    ------
    WorkloadError
        If an MoE layer is unused, or its counts sum beyond the range of float64.
    """
    all_layers = len(counts) == model.hidden_layers
    rows = list(model.moe_layers) if all_layers else list(range(model.layers))
    empty = [row for row in rows if not counts[row].any()]
    if empty:
        raise WorkloadError(
            f"{KEY}: row {empty[0]} is all zero, but it is an MoE layer of {model.name}"
        )
    with np.errstate(over="ignore"):
        beyond = [row for row in rows if not np.isfinite(counts[row].sum())]
    if beyond:
        raise WorkloadError(f"{KEY}: the counts of row {beyond[0]} sum beyond the range of float64")
    return counts[rows]


def _kind(value: Any) -> str:
    """Return what JSON calls the type of `value`."""
    names = {bool: "boolean", str: "string", list: "list", dict: "object", type(None): "null"}
    return names.get(type(value), "number")
