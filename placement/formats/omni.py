"""omni-infer: an npy file of 0 and 1, [ranks, MoE layers, experts]."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.formats.base import MAX_MAP_BYTES, SlotFormat, SlotMap
from workloads.readers.arrays import npy_array

if TYPE_CHECKING:
    from pathlib import Path

    from placement.placement import Placement
    from workloads import MoEModel


def _parse(file: Path, model: MoEModel) -> SlotMap:
    wanted = f"(ranks, {model.layers} MoE layers of {model.name}, {model.experts} experts)"
    held = npy_array(
        file, (None, model.layers, model.experts), wanted, kinds="iub", limit=MAX_MAP_BYTES
    )
    wrong = np.argwhere((held != 0) & (held != 1))
    if len(wrong):
        rank, layer, expert = (int(i) for i in wrong[0])
        raise PlacementError(
            f"rank {rank}, layer {layer}, expert {expert}: {int(held[rank, layer, expert])}, "
            "expected 0 or 1"
        )
    layer_, gpu, expert_ = np.nonzero(held.transpose(1, 0, 2))
    return SlotMap(
        layer=layer_.astype(np.int64),
        expert=expert_.astype(np.int64),
        gpu=gpu.astype(np.int64),
        ranks=held.shape[0],
        names=tuple(f"layer {layer}" for layer in range(model.layers)),
    )


def _dump(placement: Placement, _model: MoEModel) -> bytes:
    held = np.zeros((placement.gpus, placement.layers, placement.experts), dtype=np.int32)
    held[placement.slot_gpu, placement.slot_layer, placement.slot_expert] = 1
    buffer = BytesIO()
    np.save(buffer, held, allow_pickle=False)
    return buffer.getvalue()


OMNI = SlotFormat("omni", "omni", _parse, _dump, carries_ranks=True)
"""Which rank holds which expert; ranks may hold unequal numbers."""
