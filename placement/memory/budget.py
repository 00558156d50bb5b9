"""Memory of a GPU, and what every GPU holds besides expert slots.

Every GPU holds all weights but the routed experts (data-parallel attention; `Memory.tp` GPUs
share the attention's heads), the cache of its tokens and a reserve; expert slots take what is
left. MTP layers are placed like one more layer each, evenly over the GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, isfinite
from typing import TYPE_CHECKING

from placement.errors import InfeasibleError, PlacementError
from workloads import WorkloadError

if TYPE_CHECKING:
    from workloads import MoEModel


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a GPU, and what it is to hold besides expert slots.

    Attributes
    ----------
    gpu_bytes
        Of one GPU: 80 GB are 80_000_000_000.
    kv_tokens
        Tokens whose KV cache a GPU is to hold.
    bytes_per_parameter
        Of the routed experts, and of attention, dense layers and shared experts where the model
        stores them alike; None takes the model's own, scales included.
    kv_bytes_per_number
        2 for a BF16 cache, 1 for FP8.
    tp
        GPUs that share the attention weights of a layer.
    mtp
        Whether the model's MTP layers are loaded.
    reserve_bytes
        Kept free on every GPU: activations, communication buffers, graphs.
    """

    gpu_bytes: int
    kv_tokens: int = 0
    bytes_per_parameter: float | None = None
    kv_bytes_per_number: float = 2.0
    tp: int = 1
    mtp: bool = True
    reserve_bytes: int = 0

    def __post_init__(self) -> None:
        """Refuse amounts that mean nothing."""
        for what, least in (("gpu_bytes", 1), ("kv_tokens", 0), ("tp", 1), ("reserve_bytes", 0)):
            amount = getattr(self, what)
            if not (isfinite(amount) and amount >= least):
                raise PlacementError(f"memory: {what} is {amount}; expected at least {least}")
        for what in ("bytes_per_parameter", "kv_bytes_per_number"):
            size = getattr(self, what)
            if size is not None:
                check_size(size, f"memory: {what}")


def check_size(size: float, what: str) -> None:
    """Refuse bytes per number that are no positive number."""
    if not (isfinite(size) and size > 0):
        raise PlacementError(f"{what} is {size}; expected a finite number above 0")


def slot_bytes(model: MoEModel, *, bytes_per_parameter: float | None = None) -> int:
    """Weight bytes of one expert slot in one layer: ``3 * hidden * moe_intermediate`` parameters.

    DeepSeek-R1 in FP8: 44,040,192 bytes without block scales, the published 44.04 MB, and
    10,752 bytes of scales.

    Parameters
    ----------
    bytes_per_parameter
        1 for FP8 without scales, 2 for BF16; None takes the model's own, scales included.
    """
    size = model.bytes_per_parameter if bytes_per_parameter is None else bytes_per_parameter
    check_size(size, "bytes_per_parameter")
    return ceil(model.parameters_per_expert * size)


def slots_per_gpu(model: MoEModel, memory: Memory) -> int:
    """Most expert slots on a GPU, of all MoE and MTP layers together, redundant ones included.

    Raises
    ------
    InfeasibleError
        If not even what every GPU holds besides slots fits.
    PlacementError
        If the model does not say what surrounds its experts, or `tp` does not divide its heads.
    """
    budget = Budget(model, memory)
    short = budget.short(0)
    if short > 0:
        tokens = budget.tokens_beside(0)
        would = (
            f", or at most {tokens} KV tokens a GPU," if memory.kv_tokens and tokens >= 0 else ""
        )
        raise InfeasibleError(
            f"memory too small: {budget.held()} exceed a GPU of {gb(memory.gpu_bytes)} by "
            f"{gb(short)} ({short} bytes) before any expert slot; "
            f"GPUs of {gb(memory.gpu_bytes + short)}{would} would do"
        )
    return -short // budget.slot


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of a model on a GPU, by part.

    Attributes
    ----------
    model, memory
        Whose weights, and how they are kept.
    """

    model: MoEModel
    memory: Memory

    @property
    def slot(self) -> int:
        """Bytes of an expert slot."""
        return slot_bytes(self.model, bytes_per_parameter=self.memory.bytes_per_parameter)

    @property
    def resident(self) -> dict[str, int]:
        """Bytes of the weights that every GPU holds, by part of `ResidentParameters`."""
        try:
            held = self.model.resident_parameters(tp=self.memory.tp, mtp=self.memory.mtp)
        except WorkloadError as error:
            raise PlacementError(f"memory: {error}") from None
        storage, own = self.model.storage, self.memory.bytes_per_parameter
        alike = own is not None and storage.linear == storage.experts
        linear = own if own is not None and alike else storage.linear
        return {
            "attention": ceil(held.attention * linear),
            "dense": ceil(held.dense * linear),
            "shared_experts": ceil(held.shared_experts * linear),
            "routers": ceil(held.routers * storage.other),
            "embeddings": ceil(held.embeddings * storage.other),
        }

    @property
    def kv_token(self) -> float:
        """Bytes of a token in a GPU's cache."""
        numbers = self.model.cached_numbers(tp=self.memory.tp, mtp=self.memory.mtp)
        return numbers * self.memory.kv_bytes_per_number

    @property
    def kv_cache(self) -> int:
        """Bytes of the cache asked for."""
        return ceil(self.memory.kv_tokens * self.kv_token)

    def mtp_slots(self, slots: int, gpus: int) -> int:
        """Slots of MTP layers on a GPU where each has `slots` over `gpus` GPUs."""
        return self.model.mtp_layers * ceil(slots / gpus) if self.memory.mtp else 0

    def short(self, slots: int) -> int:
        """Bytes by which a GPU with so many slots exceeds its memory; below 0 they are free."""
        weights = sum(self.resident.values()) + slots * self.slot
        return weights + self.kv_cache + self.memory.reserve_bytes - self.memory.gpu_bytes

    def tokens_beside(self, slots: int) -> int:
        """KV tokens that fit beside so many slots; below 0 where not even the weights do."""
        without = Budget(self.model, replace(self.memory, kv_tokens=0))
        return floor(-without.short(slots) / self.kv_token)

    def held(self) -> str:
        """Name what a GPU holds besides expert slots."""
        return (
            f"{gb(sum(self.resident.values()))} of resident weights, {gb(self.kv_cache)} of KV "
            f"cache ({self.memory.kv_tokens} tokens) and {gb(self.memory.reserve_bytes)} of reserve"
        )

    def check_model(self, name: str, shape: tuple[int, int], whose: str) -> None:
        """Refuse a problem or placement of another model."""
        model = self.model
        if (name, *shape) != (model.name, model.layers, model.experts):
            raise PlacementError(
                f"memory: {whose} is of model '{name}' ({shape[0]} MoE layers x {shape[1]} "
                f"experts), the memory of '{model.name}' ({model.layers} x {model.experts}); "
                "expected the same"
            )


def gb(size: float) -> str:
    """Write bytes as decimal GB, rounded up so that what is asked for suffices."""
    return f"{ceil(size / 1e7) / 100:.2f} GB"
