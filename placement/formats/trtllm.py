"""TensorRT-LLM: the YAML of its MoE load balancer, layers by their absolute numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from placement.errors import PlacementError
from placement.formats.base import SlotFormat, SlotMap, slot_rows
from placement.formats.yaml_file import parse_yaml
from workloads.readers.json_file import check_keys, integer, integers, read_text_file

if TYPE_CHECKING:
    from pathlib import Path

    from placement.placement import Placement
    from workloads import MoEModel

SLOTS, UPDATES, ASSIGNMENTS = "num_slots", "layer_updates_per_iter", "initial_global_assignments"


def _parse(file: Path, model: MoEModel) -> SlotMap:
    document = check_keys(
        parse_yaml(read_text_file(file)), required=[SLOTS, ASSIGNMENTS], optional=[UPDATES]
    )
    slots = integer(document[SLOTS], SLOTS, least=1)
    integer(document.get(UPDATES, 0), UPDATES)
    table = document[ASSIGNMENTS]
    if not isinstance(table, dict):
        raise PlacementError(f"{ASSIGNMENTS}: expected a map from layers to slots")
    _check_layers(table, model)
    names = [f"{ASSIGNMENTS}[{layer}]" for layer in model.moe_layers]
    rows = [
        integers(table[layer], name, below=model.experts)
        for layer, name in zip(model.moe_layers, names, strict=True)
    ]
    for row, name in zip(rows, names, strict=True):
        if len(row) != slots:
            raise PlacementError(f"{name}: {len(row)} slots, expected {slots} ({SLOTS})")
    return SlotMap.of_rows(rows, names)


def updates_per_iter(file: Path) -> int:
    """Return how many layers TensorRT-LLM rebalances an iteration, of a file that can be read.

    Raises
    ------
    WorkloadError, PlacementError
        It cannot be read.
    """
    document = check_keys(
        parse_yaml(read_text_file(file)), required=[SLOTS, ASSIGNMENTS], optional=[UPDATES]
    )
    return integer(document.get(UPDATES, 0), UPDATES)


def _check_layers(table: dict[Any, Any], model: MoEModel) -> None:
    """See that the keys are the MoE layers by their absolute numbers, no more and no less."""
    moe = model.moe_layers
    run = f"{moe[0]}..{moe[-1]}" if len(moe) == moe[-1] - moe[0] + 1 else ", ".join(map(str, moe))
    strange = [key for key in table if key not in moe]
    if strange:
        key = strange[0]
        mtp = isinstance(key, int) and 0 <= key - model.hidden_layers < model.mtp_layers
        what = (
            "a layer for multi-token prediction, which a placement does not hold"
            if mtp
            else ("no MoE layer")
        )
        raise PlacementError(
            f"{ASSIGNMENTS}: key {str(key)[:40]} is {what}; expected the MoE layers of "
            f"{model.name} by their absolute numbers, {run}"
        )
    missing = [layer for layer in moe if layer not in table]
    if missing:
        raise PlacementError(
            f"{ASSIGNMENTS}: layer {missing[0]} is missing; expected the MoE layers of "
            f"{model.name} by their absolute numbers, {run}"
        )


def _dump(placement: Placement, model: MoEModel) -> bytes:
    rows = slot_rows(placement)
    lines = [f"{SLOTS}: {rows.shape[1]}", f"{UPDATES}: 0", f"{ASSIGNMENTS}:"]
    lines += [
        f"  {layer}: [{', '.join(map(str, row))}]"
        for layer, row in zip(model.moe_layers, rows.tolist(), strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


TRTLLM = SlotFormat("trtllm", "trtllm", _parse, _dump)
"""``num_slots``, ``layer_updates_per_iter`` (0: static), ``initial_global_assignments``."""
