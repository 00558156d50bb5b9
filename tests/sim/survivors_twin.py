"""What is left of a step without some GPUs, by hand: the oracle of a GPU dead from the start."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.batch import PartAttention, part_trace

if TYPE_CHECKING:
    from placement import Placement


def survivors(trace: Any, placement: Placement, attention: Any, dead: set[int]) -> Any:
    """Return trace, placement and attention of tokens and slots on other GPUs."""
    origin, collector = attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens)
    kept = np.array(
        [
            token
            for token in range(trace.tokens)
            if not dead & {*origin[:, token].tolist(), *collector[:, token].tolist()}
        ]
    )
    slots = [at for at, gpu in enumerate(placement.slot_gpu.tolist()) if gpu not in dead]
    columns = {name: getattr(placement, name)[slots] for name in ("slot_layer", "slot_gpu")}
    left = replace(placement, **columns, slot_expert=placement.slot_expert[slots])
    return part_trace(trace, kept), left, PartAttention(attention, kept, trace.tokens)


def doubled(one: Placement, step: int = 2) -> Placement:
    """Return a placement with a second replica of every slot, some GPUs further on."""
    return replace(
        one,
        slot_layer=np.tile(one.slot_layer, 2),
        slot_expert=np.tile(one.slot_expert, 2),
        slot_gpu=np.concatenate([one.slot_gpu, (one.slot_gpu + step) % one.gpus]),
    )
