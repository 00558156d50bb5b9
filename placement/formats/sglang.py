"""SGLang: JSON for ``--init-expert-location``, a row of slots per hidden layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.formats.base import SlotFormat, SlotMap, slot_rows
from workloads import WorkloadError, read_load
from workloads.readers.json_file import check_keys, integers, listed, parse_json, read_text_file

if TYPE_CHECKING:
    from os import PathLike

    from placement.placement import Placement
    from workloads import MoEModel

KEY = "physical_to_logical_map"


def check_loads(path: str | PathLike[str], model: MoEModel) -> list[str]:
    """Return why SGLang would refuse a file of ``logical_count`` as initial location.

    It makes a map of its own from such loads; rows are all hidden layers.
    """
    try:
        read_load(path, model, form="sglang-load")
    except WorkloadError as error:
        return [str(error).removeprefix(f"{path}: ")]
    document = parse_json(read_text_file(Path(path)))["logical_count"]
    rows = document if not isinstance(document[0][0], list) else document[0]
    if len(rows) != model.hidden_layers:
        return [f"logical_count: {_wrong_rows(len(rows), model)}"]
    return []


def _wrong_rows(rows: int, model: MoEModel) -> str:
    return (
        f"{rows} rows, expected {model.hidden_layers}: SGLang counts all hidden layers of "
        f"{model.name}, dense ones included"
    )


def _parse(file: Path, model: MoEModel) -> SlotMap:
    document = check_keys(parse_json(read_text_file(file)), required=[KEY])
    rows = listed(document[KEY], KEY, "rows")
    if len(rows) != model.hidden_layers:
        raise PlacementError(f"{KEY}: {_wrong_rows(len(rows), model)}")
    names = [f"{KEY}[{i}]" for i in range(len(rows))]
    ids = [integers(row, name, below=model.experts) for row, name in zip(rows, names, strict=True)]
    whole = SlotMap.of_rows(ids, names)
    moe = list(model.moe_layers)
    width = len(whole.layer) // len(rows)
    kept = np.isin(whole.layer, moe)
    return SlotMap(
        layer=np.repeat(np.arange(len(moe)), width),
        expert=whole.expert[kept],
        gpu=None,
        ranks=None,
        names=tuple(names[layer] for layer in moe),
        findings=tuple(_dense_gaps(ids, names, model)),
    )


def _dense_gaps(ids: list[np.ndarray], names: list[str], model: MoEModel) -> list[str]:
    """Find the first row of a dense layer that lists less than all experts.

    Replica lists are built for every row, before any layer asks for its own.
    """
    for layer in sorted(set(range(model.hidden_layers)) - set(model.moe_layers)):
        bare = np.flatnonzero(np.bincount(ids[layer], minlength=model.experts) == 0)
        if len(bare):
            expert = int(bare[0])
            why = "expected every expert in every row, those of dense layers too"
            return [f"{names[layer]}: expert {expert} has no slot; {why}"]
    return []


def _dump(placement: Placement, model: MoEModel) -> bytes:
    """Write a map; dense layers, which have no experts, get the slots in turn."""
    rows = slot_rows(placement)
    every = np.tile(np.arange(rows.shape[1]) % model.experts, (model.hidden_layers, 1))
    every[list(model.moe_layers)] = rows
    return (json.dumps({KEY: every.tolist()}, separators=(",", ":")) + "\n").encode()


SGLANG = SlotFormat("sglang", "sglang", _parse, _dump)
"""``{"physical_to_logical_map": [hidden layers][slots]}``, no other key."""
