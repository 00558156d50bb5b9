"""vllm-ascend: JSON that lists the experts of every device of every MoE layer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.errors import PlacementError
from placement.formats.base import SlotFormat, SlotMap
from workloads.readers.json_file import (
    check_keys,
    integer,
    integers,
    listed,
    parse_json,
    read_text_file,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from placement.placement import Placement
    from workloads import MoEModel


def _parse(file: Path, model: MoEModel) -> SlotMap:
    document = check_keys(
        parse_json(read_text_file(file)), required=["moe_layer_count", "layer_list"]
    )
    count = integer(document["moe_layer_count"], "moe_layer_count", least=1)
    layers = listed(document["layer_list"], "layer_list", "layers")
    for what, number in (("moe_layer_count", count), ("layer_list", len(layers))):
        if number != model.layers:
            raise PlacementError(
                f"{what}: {number} layers, expected {model.layers} (MoE layers of {model.name})"
            )
    tables = [_layer(table, i, model) for i, table in enumerate(layers)]
    ranks = len(tables[0])
    for i, devices in enumerate(tables):
        if len(devices) != ranks:
            raise PlacementError(
                f"layer_list[{i}]: {len(devices)} devices, expected {ranks} as in layer_list[0]"
            )
    cells = [experts for devices in tables for experts in devices]
    cell = np.repeat(np.arange(len(cells)), [len(experts) for experts in cells])
    return SlotMap(
        layer=cell // ranks,
        expert=np.concatenate(cells),
        gpu=cell % ranks,
        ranks=ranks,
        names=tuple(f"layer_list[{i}]" for i in range(len(layers))),
    )


def _layer(table: Any, number: int, model: MoEModel) -> list[NDArray[np.int64]]:
    """Return the experts of every device of a layer, which must stand where their ids say."""
    where = f"layer_list[{number}]"
    check_keys(table, required=["layer_id", "device_count", "device_list"], where=where)
    _check_place(table["layer_id"], f"{where}.layer_id", number)
    devices = listed(table["device_list"], f"{where}.device_list", "devices")
    if integer(table["device_count"], f"{where}.device_count") != len(devices):
        raise PlacementError(
            f"{where}.device_count: {table['device_count']}, but device_list holds {len(devices)}"
        )
    found = []
    for i, device in enumerate(devices):
        place = f"{where}.device_list[{i}]"
        check_keys(device, required=["device_id", "device_expert"], where=place)
        _check_place(device["device_id"], f"{place}.device_id", i)
        found.append(
            integers(device["device_expert"], f"{place}.device_expert", below=model.experts)
        )
    return found


def _check_place(value: Any, name: str, place: int) -> None:
    """A list in another order than its ids could be read by either."""
    if integer(value, name) != place:
        raise PlacementError(f"{name}: {value}, expected {place}: lists in the order of their ids")


def _dump(placement: Placement, model: MoEModel) -> bytes:
    shape = (placement.layers, placement.gpus, -1)
    table = placement.slot_expert.reshape(shape).tolist()
    layers = [
        {
            "layer_id": layer,
            "device_count": placement.gpus,
            "device_list": [
                {"device_id": device, "device_expert": experts}
                for device, experts in enumerate(devices)
            ],
        }
        for layer, devices in enumerate(table)
    ]
    content = {"moe_layer_count": model.layers, "layer_list": layers}
    return (json.dumps(content, separators=(",", ":")) + "\n").encode()


ASCEND = SlotFormat("ascend", "ascend", _parse, _dump, carries_ranks=True)
"""``moe_layer_count`` and ``layer_list``; layer ids count MoE layers from 0."""
