"""vLLM: the slot table of its EPLB, and two file formats that are proposals still."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.formats.base import MAX_MAP_BYTES, SlotFormat, SlotMap, slot_rows
from workloads.readers.arrays import npy_array
from workloads.readers.json_file import (
    check_keys,
    integer,
    integers,
    parse_json,
    parse_json_lines,
    read_text_file,
)
from workloads.readers.vllm_stats import check_record

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from placement.placement import Placement
    from workloads import MoEModel

RECORD = "eplb_initial_mapping"
ASSIGNMENTS = "initial_global_assignments"
RECORD_KEYS = ("record_type", "version", "num_redundant_experts", "num_slots", ASSIGNMENTS)
RANKS = "expert_to_ep_rank"


def check_ids(ids: NDArray[np.integer], names: list[str], experts: int) -> None:
    """Refuse ids [layers, slots] of experts that a model has not.

    Raises
    ------
    PlacementError
        The first such id, with its place.
    """
    wrong = np.argwhere((ids < 0) | (ids >= experts))
    if len(wrong):
        layer, slot = (int(i) for i in wrong[0])
        raise PlacementError(
            f"{names[layer]}[{slot}]: expert {int(ids[layer, slot])}, expected 0..{experts - 1}"
        )


def _parse_p2l(file: Path, model: MoEModel) -> SlotMap:
    wanted = f"({model.layers} MoE layers of {model.name}, slots)"
    ids = npy_array(file, (model.layers, None), wanted, limit=MAX_MAP_BYTES)
    names = [f"row {layer}" for layer in range(model.layers)]
    check_ids(ids, names, model.experts)
    return SlotMap.of_rows(list(ids.astype(np.int64)), names)


def _dump_p2l(placement: Placement, _model: MoEModel) -> bytes:
    buffer = BytesIO()
    np.save(buffer, slot_rows(placement), allow_pickle=False)
    return buffer.getvalue()


def _parse_mapping(file: Path, model: MoEModel) -> SlotMap:
    records = parse_json_lines(read_text_file(file))
    where, record = records[0]
    check_record(where, record, RECORD, RECORD_KEYS)
    if len(records) > 1:
        raise PlacementError(f"{records[1][0]}: a second record, expected one")
    slots = integer(record["num_slots"], f"{where}: num_slots", least=1)
    redundant = integer(record["num_redundant_experts"], f"{where}: num_redundant_experts")
    if slots != model.experts + redundant:
        raise PlacementError(
            f"{where}: num_slots is {slots}, expected {model.experts + redundant}: "
            f"{model.experts} experts of {model.name} and {redundant} redundant ones"
        )
    wanted = [str(layer) for layer in range(model.layers)]
    table = check_keys(record[ASSIGNMENTS], required=wanted, where=f"{where}: {ASSIGNMENTS}")
    names = [f"{where}: {ASSIGNMENTS}[{key!r}]" for key in wanted]
    rows = [
        integers(table[key], name, below=model.experts)
        for key, name in zip(wanted, names, strict=True)
    ]
    if len(rows[0]) != slots:
        raise PlacementError(f"{names[0]}: {len(rows[0])} slots, expected {slots} (num_slots)")
    return SlotMap.of_rows(rows, names)


def _dump_mapping(placement: Placement, model: MoEModel) -> bytes:
    rows = slot_rows(placement)
    record = {
        "record_type": RECORD,
        "version": 1,
        "num_redundant_experts": rows.shape[1] - model.experts,
        "num_slots": rows.shape[1],
        ASSIGNMENTS: {str(layer): row for layer, row in enumerate(rows.tolist())},
    }
    return (json.dumps(record, separators=(",", ":")) + "\n").encode()


def _parse_ranks(file: Path, model: MoEModel) -> SlotMap:
    document = check_keys(parse_json(read_text_file(file)), required=[RANKS])
    # More ranks than experts would leave some without any.
    rank = integers(document[RANKS], RANKS, below=model.experts, what="ranks")
    if len(rank) != model.experts:
        raise PlacementError(
            f"{RANKS}: {len(rank)} ranks, expected {model.experts}, one per expert of {model.name}"
        )
    ranks = int(rank.max()) + 1
    idle = np.flatnonzero(np.bincount(rank, minlength=ranks) == 0)
    if len(idle):
        raise PlacementError(
            f"{RANKS}: rank {int(idle[0])} holds no expert, but rank {ranks - 1} does; expected "
            "experts on every rank"
        )
    expert = np.argsort(rank, kind="stable")
    return SlotMap(
        layer=np.repeat(np.arange(model.layers), model.experts),
        expert=np.tile(expert, model.layers),
        gpu=np.tile(rank[expert], model.layers),
        ranks=ranks,
        names=tuple(f"{RANKS}, layer {layer}" for layer in range(model.layers)),
    )


def _dump_ranks(placement: Placement, _model: MoEModel) -> bytes:
    if placement.redundant:
        raise PlacementError(
            f"{placement.redundant:,} redundant slots; the format {VLLM_RANKS.name} holds one GPU "
            "per expert and no replicas, vllm-p2l and vllm-proposal-mapping hold them"
        )
    gpu = placement.gpu_of_expert
    other = np.flatnonzero((gpu != gpu[0]).any(axis=1))
    if len(other):
        raise PlacementError(
            f"layer {int(other[0])} is placed otherwise than layer 0; the format holds one map "
            "for all layers"
        )
    return (json.dumps({RANKS: gpu[0].tolist()}, separators=(",", ":")) + "\n").encode()


VLLM_P2L = SlotFormat("vllm-p2l", "vllm", _parse_p2l, _dump_p2l)
"""The table of vLLM's EPLB, integer [MoE layers, slots], as npy."""

VLLM_MAPPING = SlotFormat("vllm-proposal-mapping", "vllm", _parse_mapping, _dump_mapping)
"""A proposal: one JSON line ``eplb_initial_mapping``; its layers count MoE layers from 0."""

VLLM_RANKS = SlotFormat(
    "vllm-proposal-ranks", "vllm", _parse_ranks, _dump_ranks, carries_ranks=True
)
"""A proposal: ``{"expert_to_ep_rank": [experts]}``, the same in every layer, no replicas."""
