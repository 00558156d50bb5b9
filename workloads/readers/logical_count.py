"""Expert loads as SGLang records and takes them: JSON with the key ``logical_count``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.readers.counts import LoadCounts, expected_rows, moe_rows
from workloads.readers.json_file import check_keys, counts, listed, parse_json, read_text_file

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel
    from workloads.profile import ExpertProfile

KEY = "logical_count"


def read_logical_count(path: str | PathLike[str], model: MoEModel) -> ExpertProfile:
    """Read the loads of `read_logical_counts`, summed over the steps.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and row.
    """
    return read_logical_counts(path, model).profile()


def read_logical_counts(path: str | PathLike[str], model: MoEModel) -> LoadCounts:
    """Read the tokens routed to every logical expert.

    The file is ``{"logical_count": counts}`` with counts [rows][experts], or
    [steps][rows][experts]. The rows are all hidden layers (those of dense layers zero, as SGLang
    writes and expects them) or the MoE layers only. Like SGLang, the reader takes no other key
    beside this one.

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
        document = check_keys(parse_json(read_text_file(file)), required=[KEY])
        steps = _stacked(_steps(document[KEY]), model)
        return LoadCounts(moe_rows(steps, model, KEY), source=f"{KEY} of {file.name}")
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def _steps(value: Any) -> list[tuple[str, list[Any]]]:
    """Return the name and the rows of every step; one step where the file has no such axis."""
    rows = listed(value, KEY)
    first = listed(rows[0], f"{KEY}[0]")
    if not isinstance(first[0], list):
        return [(KEY, rows)]
    return [(f"{KEY}[{i}]", listed(row, f"{KEY}[{i}]")) for i, row in enumerate(rows)]


def _stacked(steps: list[tuple[str, list[Any]]], model: MoEModel) -> NDArray[np.float64]:
    """Return the counts of all steps, float64 [steps, rows, experts]."""
    depth, stack = len(steps[0][1]), []
    for name, rows in steps:
        if len(rows) not in (model.hidden_layers, model.layers):
            raise WorkloadError(f"{name}: {len(rows)} rows, expected {expected_rows(model)}")
        if len(rows) != depth:
            raise WorkloadError(f"{name}: {len(rows)} rows, expected {depth} as in {steps[0][0]}")
        stack.append([counts(row, f"{name}[{i}]", model.experts) for i, row in enumerate(rows)])
    return np.array(stack)
