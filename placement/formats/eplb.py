"""DeepSeek EPLB: ``phy2log``, ``log2phy`` and ``logcnt``, as npz or as JSON."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.errors import PlacementError
from placement.formats.base import MAX_MAP_BYTES, SlotFormat, SlotMap, slot_rows
from placement.formats.vllm import check_ids
from workloads.readers.arrays import ZIP, first_bytes, npz_array, npz_headers
from workloads.readers.json_file import check_keys, listed, parse_json, read_text_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from placement.placement import Placement
    from workloads import MoEModel

MAP, INVERSE, COUNTS = "phy2log", "log2phy", "logcnt"


def _parse(file: Path, model: MoEModel) -> SlotMap:
    tables = _npz(file) if first_bytes(file).startswith(ZIP) else _json(file)
    rows = tables[MAP]
    if len(rows) not in (model.layers, model.hidden_layers):
        raise PlacementError(
            f"{MAP}: {len(rows)} rows, expected {model.layers} (MoE layers of {model.name}) or "
            f"{model.hidden_layers} (all its layers)"
        )
    names = [f"{MAP}[{i}]" for i in range(len(rows))]
    check_ids(rows, names, model.experts)
    _check_counts(tables, model.experts)
    _check_inverse(tables, model.experts)
    kept = range(model.layers) if len(rows) == model.layers else model.moe_layers
    return SlotMap.of_rows([rows[i] for i in kept], [names[i] for i in kept])


def _npz(file: Path) -> dict[str, NDArray[np.int64]]:
    have = npz_headers(file)
    check_keys(dict.fromkeys(have), required=[MAP], optional=[INVERSE, COUNTS])
    axes = {
        MAP: "(layers, slots)",
        INVERSE: "(layers, experts, slots)",
        COUNTS: "(layers, experts)",
    }
    found = {}
    for key in have:
        shape: tuple[int | None, ...] = (None,) * len(axes[key].split(","))
        table = npz_array(file, key, shape, axes[key], limit=MAX_MAP_BYTES)
        found[key] = table.astype(np.int64)
    return found


def _json(file: Path) -> dict[str, NDArray[np.int64]]:
    document = check_keys(
        parse_json(read_text_file(file)), required=[MAP], optional=[INVERSE, COUNTS]
    )
    return {key: _table(value, key, 3 if key == INVERSE else 2) for key, value in document.items()}


def _table(value: Any, name: str, axes: int) -> NDArray[np.int64]:
    """Return nested lists of whole numbers as an array; lists of a level are of one length."""
    values = listed(value, name, "whole numbers" if axes == 1 else "rows")
    if axes > 1:
        rows = [_table(row, f"{name}[{i}]", axes - 1) for i, row in enumerate(values)]
        for i, row in enumerate(rows):
            if row.shape != rows[0].shape:
                raise PlacementError(
                    f"{name}[{i}]: shape {row.shape}, expected {rows[0].shape} as in {name}[0]"
                )
        return np.stack(rows)
    for i, each in enumerate(values):
        if type(each) is not int or not -(1 << 31) <= each < 1 << 31:
            raise PlacementError(f"{name}[{i}]: expected a whole number of 32 bits")
    return np.array(values, dtype=np.int64)


def _counted(rows: NDArray[np.int64], experts: int) -> NDArray[np.int64]:
    flat = np.arange(len(rows))[:, None] * experts + rows
    return np.bincount(flat.ravel(), minlength=len(rows) * experts).reshape(-1, experts)


def _check_counts(tables: dict[str, NDArray[np.int64]], experts: int) -> None:
    if COUNTS not in tables:
        return
    have, want = tables[COUNTS], _counted(tables[MAP], experts)
    if have.shape != want.shape:
        raise PlacementError(f"{COUNTS}: shape {have.shape}, expected {want.shape}")
    off = np.argwhere(have != want)
    if len(off):
        layer, expert = (int(i) for i in off[0])
        raise PlacementError(
            f"{COUNTS}[{layer}][{expert}]: {int(have[layer, expert])}, but {MAP}[{layer}] lists "
            f"expert {expert} {int(want[layer, expert])} times"
        )


def _check_inverse(tables: dict[str, NDArray[np.int64]], experts: int) -> None:
    """See that the slots listed for each expert are exactly those that hold it."""
    if INVERSE not in tables:
        return
    rows, inverse = tables[MAP], tables[INVERSE]
    if inverse.shape[:2] != (len(rows), experts):
        raise PlacementError(
            f"{INVERSE}: shape {inverse.shape}, expected {len(rows)} layers x {experts} experts"
        )
    listed_, slots = inverse >= 0, rows.shape[1]
    place = np.clip(inverse, 0, slots - 1)
    layer = np.arange(len(rows))[:, None, None]
    holds = rows[layer, place] == np.arange(experts)[None, :, None]
    wrong = (inverse < -1) | (inverse >= slots) | (listed_ & ~holds)
    wrong[:, :, 1:] |= listed_[:, :, 1:] & ~listed_[:, :, :-1]
    bad = np.argwhere(wrong)
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise PlacementError(
            f"{INVERSE}[{at[0]}][{at[1]}][{at[2]}]: {int(inverse[at])}, expected a slot of expert "
            f"{at[1]} in {MAP}[{at[0]}], or -1 after the last"
        )
    ordered = np.sort(inverse, axis=2)
    twice = ((ordered[:, :, 1:] == ordered[:, :, :-1]) & (ordered[:, :, 1:] >= 0)).any(axis=2)
    short = np.argwhere(twice | (listed_.sum(axis=2) != _counted(rows, experts)))
    if len(short):
        layer_, expert = (int(i) for i in short[0])
        raise PlacementError(
            f"{INVERSE}[{layer_}][{expert}]: expected every slot of expert {expert} in "
            f"{MAP}[{layer_}], once"
        )


def _tables(placement: Placement, model: MoEModel) -> dict[str, NDArray[np.int64]]:
    rows = slot_rows(placement)
    counts = _counted(rows, model.experts)
    inverse = np.full((*counts.shape, int(counts.max())), -1, dtype=np.int64)
    # Slots by expert, in their order; the replica's number is its place in the run of its expert.
    order = np.argsort(rows, axis=1, kind="stable")
    layer = np.arange(len(rows))[:, None]
    expert = rows[layer, order]
    first = np.cumsum(counts, axis=1) - counts
    inverse[layer, expert, np.arange(rows.shape[1])[None, :] - first[layer, expert]] = order
    return {MAP: rows, INVERSE: inverse, COUNTS: counts}


def _dump_npz(placement: Placement, model: MoEModel) -> bytes:
    buffer = BytesIO()
    tables: dict[str, Any] = dict(_tables(placement, model))
    np.savez(buffer, **tables)
    return buffer.getvalue()


def _dump_json(placement: Placement, model: MoEModel) -> bytes:
    tables = {key: table.tolist() for key, table in _tables(placement, model).items()}
    return (json.dumps(tables, separators=(",", ":")) + "\n").encode()


EPLB = SlotFormat("eplb", None, _parse, _dump_npz)
"""Written as npz; read as npz or JSON. Slot p of P is on GPU ``p // (P / GPUs)``."""

EPLB_JSON = SlotFormat("eplb-json", None, _parse, _dump_json)
"""The same, written as JSON."""
