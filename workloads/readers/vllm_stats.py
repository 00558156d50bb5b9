"""Expert loads in a format that is proposed for vLLM: JSON lines ``eplb_load_stats``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.readers.counts import LoadCounts, moe_rows
from workloads.readers.json_file import (
    check_keys,
    counts,
    integer,
    integers,
    kind,
    listed,
    parse_json_lines,
    read_text_file,
)

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel

RECORD = "eplb_load_stats"
KEYS = ("record_type", "version", "step", "num_ranks", "expert_load", "p2l_map")
MAX_SLOTS = 1 << 20
"""Most slots of a layer that are believed."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadRecord:
    """One line of the file.

    Attributes
    ----------
    step, ranks
        As the line says.
    slot_load
        float64 [layers, slots]: tokens that each physical slot took.
    p2l
        int64 [layers, slots]: the logical expert of every slot.
    """

    step: int
    ranks: int
    slot_load: NDArray[np.float64]
    p2l: NDArray[np.int64]


def read_vllm_stats(path: str | PathLike[str], model: MoEModel) -> LoadCounts:
    """Read the tokens routed to every logical expert, a step a line.

    `expert_load` counts tokens of physical slots, [MoE layers][slots]; the line's own `p2l_map`
    says whose they are. Lines may come in any order, a step at most once.

    Parameters
    ----------
    path
        The file of JSON lines.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, line, key and row.
    """
    file = Path(path)
    try:
        records = sorted(_records(file, model), key=lambda record: record.step)
        logical = np.stack([_logical(record, model.experts) for record in records])
        rows = moe_rows(logical, model, "expert_load")
        return LoadCounts(rows, source=f"{RECORD} of {file.name}")
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def read_load_records(path: str | PathLike[str], model: MoEModel) -> list[LoadRecord]:
    """Return the lines of such a file as they are, by ascending step.

    Raises
    ------
    WorkloadError
        As `read_vllm_stats`.
    """
    file = Path(path)
    try:
        return sorted(_records(file, model), key=lambda record: record.step)
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def _records(file: Path, model: MoEModel) -> list[LoadRecord]:
    found: dict[int, LoadRecord] = {}
    for where, value in parse_json_lines(read_text_file(file)):
        record = _record(where, value, model)
        if record.step in found:
            raise WorkloadError(f"{where}: step {record.step} stands twice, expected once")
        found[record.step] = record
    return list(found.values())


def _record(where: str, value: dict[str, Any], model: MoEModel) -> LoadRecord:
    check_record(where, value, RECORD, KEYS)
    load = listed(value["expert_load"], f"{where}: expert_load", "rows")
    p2l = listed(value["p2l_map"], f"{where}: p2l_map", "rows")
    for key, rows in (("expert_load", load), ("p2l_map", p2l)):
        if len(rows) != model.layers:
            raise WorkloadError(
                f"{where}: {key}: {len(rows)} rows, expected {model.layers} (MoE layers of "
                f"{model.name})"
            )
    slots = [
        integers(row, f"{where}: p2l_map[{i}]", below=model.experts) for i, row in enumerate(p2l)
    ]
    return LoadRecord(
        step=integer(value["step"], f"{where}: step", most=1 << 53),
        ranks=integer(value["num_ranks"], f"{where}: num_ranks", least=1),
        slot_load=_rows(load, slots, where),
        p2l=np.stack(slots),
    )


def _rows(load: list[Any], slots: list[NDArray[np.int64]], where: str) -> NDArray[np.float64]:
    """Return the counts of all rows, as many slots in each as in the first row of the map."""
    width = len(slots[0])
    for i, row in enumerate(slots):
        if len(row) != width:
            raise WorkloadError(
                f"{where}: p2l_map[{i}]: {len(row)} slots, expected {width} as in p2l_map[0]"
            )
    for i, row in enumerate(load):
        if isinstance(row, list) and len(row) != width:
            raise WorkloadError(
                f"{where}: expert_load[{i}]: {len(row)} counts, expected {width}, one per slot of "
                "p2l_map: loads of physical slots, not of logical experts"
            )
    rows = [counts(row, f"{where}: expert_load[{i}]", width) for i, row in enumerate(load)]
    return np.stack(rows)


def check_record(where: str, value: dict[str, Any], record: str, keys: tuple[str, ...]) -> None:
    """See that a line is a record of one type in version 1, with exactly these keys.

    Raises
    ------
    WorkloadError
        It is another one.
    """
    if value.get("record_type") != record:
        got = value.get("record_type")
        said = repr(got[:40]) if isinstance(got, str) else f"a {kind(got)}"
        raise WorkloadError(f"{where}: record_type: {said}, expected {record!r}")
    check_keys(value, required=keys, where=where)
    integer(value["version"], f"{where}: version", least=1, most=1)


def _logical(record: LoadRecord, experts: int) -> NDArray[np.float64]:
    """Add the counts of an expert's slots up, float64 [layers, experts]."""
    layers = len(record.p2l)
    flat = (np.arange(layers)[:, None] * experts + record.p2l).ravel()
    with np.errstate(over="ignore"):
        total = np.bincount(flat, record.slot_load.ravel(), layers * experts)
    return np.asarray(total, dtype=np.float64).reshape(layers, experts)
