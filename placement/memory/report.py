"""What the fullest GPU of a placement holds."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError
from placement.memory.budget import Budget, Memory, gb

if TYPE_CHECKING:
    from placement.placement import Placement
    from workloads import MoEModel


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes of the fullest GPU by what they hold.

    Attributes
    ----------
    gpu, slots
        The fullest GPU, and its slots over all MoE layers.
    gpu_bytes
        Its memory.
    experts, mtp_experts
        Its slots of MoE layers, and of MTP layers.
    attention, dense, shared_experts, routers, embeddings
        Weights every GPU holds, those of MTP layers included.
    kv_cache
        Of the tokens asked for.
    reserve
        Kept free.
    kv_token
        Bytes of a token in the cache.
    """

    gpu: int
    slots: int
    gpu_bytes: int
    experts: int
    mtp_experts: int
    attention: int
    dense: int
    shared_experts: int
    routers: int
    embeddings: int
    kv_cache: int
    reserve: int
    kv_token: float

    @property
    def resident(self) -> int:
        """Bytes of the weights every GPU holds."""
        return self.attention + self.dense + self.shared_experts + self.routers + self.embeddings

    @property
    def free(self) -> int:
        """Bytes left; below 0 where the placement does not fit."""
        taken = self.experts + self.mtp_experts + self.resident + self.kv_cache + self.reserve
        return self.gpu_bytes - taken

    @property
    def kv_tokens_fit(self) -> int:
        """Tokens whose cache fits in all, those asked for included."""
        return max(0, floor((self.free + self.kv_cache) / self.kv_token))

    def gigabytes(self) -> dict[str, float]:
        """Decimal GB by part, ``free`` last; the parts add up to the GPU's memory."""
        parts = (
            "experts", "mtp_experts", "attention", "dense", "shared_experts", "routers",
            "embeddings", "kv_cache", "reserve", "free",
        )  # fmt: skip
        return {part: getattr(self, part) / 1e9 for part in parts}


def memory_report(placement: Placement, model: MoEModel, memory: Memory) -> GpuMemory:
    """Return what the fullest GPU holds; `free` is below 0 where the placement does not fit.

    Raises
    ------
    PlacementError
        If the placement is of another model, or the model does not say what surrounds its
        experts.
    """
    budget = Budget(model, memory)
    budget.check_model(placement.model, (placement.layers, placement.experts), "the placement")
    held = np.bincount(placement.slot_gpu, minlength=placement.gpus)
    gpu = int(np.argmax(held))
    of_layer = ceil(len(placement.slot_gpu) / placement.layers)
    return GpuMemory(
        gpu=gpu,
        slots=int(held[gpu]),
        gpu_bytes=memory.gpu_bytes,
        experts=int(held[gpu]) * budget.slot,
        mtp_experts=budget.mtp_slots(of_layer, placement.gpus) * budget.slot,
        **budget.resident,
        kv_cache=budget.kv_cache,
        reserve=memory.reserve_bytes,
        kv_token=budget.kv_token,
    )


def check_memory(placement: Placement, model: MoEModel, memory: Memory) -> GpuMemory:
    """Return the report of a placement, refused if its fullest GPU holds more than its memory.

    Raises
    ------
    InfeasibleError
        It does not fit; says by how many bytes, and what would do.
    PlacementError
        As `memory_report`.
    """
    report = memory_report(placement, model, memory)
    if report.free >= 0:
        return report
    budget = Budget(model, memory)
    would = [f"GPUs of {gb(memory.gpu_bytes - report.free)}"]
    slots = report.slots + report.free // budget.slot
    if slots > 0:
        would.append(f"at most {slots} slots on a GPU")
    if memory.kv_tokens and report.kv_tokens_fit:
        would.append(f"at most {report.kv_tokens_fit} KV tokens a GPU")
    raise InfeasibleError(
        f"memory too small: policy '{placement.policy}' puts {report.slots} expert slots on GPU "
        f"{report.gpu}, {gb(-report.free)} ({-report.free} bytes) more than fit beside "
        f"{budget.held()}; {' or '.join(would)} would do"
    )
