"""Expert loads as DeepSeek's EPLB takes them: ``weight`` [layers, experts], npz, npy or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workloads.errors import WorkloadError
from workloads.readers.arrays import NPY, ZIP, first_bytes, npy_array, npz_array
from workloads.readers.counts import LoadCounts, expected_rows, moe_rows
from workloads.readers.json_file import check_keys, counts, listed, parse_json, read_text_file

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel

KEY = "weight"


def read_eplb_weight(path: str | PathLike[str], model: MoEModel) -> LoadCounts:
    """Read the load of every logical expert.

    ``{"weight": [rows][experts]}`` in JSON, ``weight`` of an npz file, or the array alone as an
    npy file; integers or numbers. The rows are the MoE layers, or all hidden layers with zeros
    in dense ones.

    Parameters
    ----------
    path
        The file.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and row.
    """
    file = Path(path)
    try:
        rows = _rows(file, model)
        return LoadCounts(moe_rows(rows[None], model, KEY), source=f"{KEY} of {file.name}")
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def _rows(file: Path, model: MoEModel) -> NDArray[np.float64]:
    shape = (None, model.experts)
    wanted = f"({expected_rows(model)} rows, {model.experts} experts)"
    start = first_bytes(file)
    if start.startswith(ZIP):
        return _checked(npz_array(file, KEY, shape, wanted, kinds="iuf"))
    if start.startswith(NPY):
        return _checked(npy_array(file, shape, wanted, kinds="iuf"))
    document = check_keys(parse_json(read_text_file(file)), required=[KEY])
    rows = listed(document[KEY], KEY, "rows")
    return np.stack([counts(row, f"{KEY}[{i}]", model.experts) for i, row in enumerate(rows)])


def _checked(array: NDArray[np.generic]) -> NDArray[np.float64]:
    values = np.asarray(array, dtype=np.float64)
    wrong = np.argwhere(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        row, place = (int(i) for i in wrong[0])
        raise WorkloadError(
            f"{KEY}[{row}][{place}]: {float(values[row, place])}, expected a finite number >= 0"
        )
    return values
