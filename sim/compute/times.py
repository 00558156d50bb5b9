"""How long every GPU computes, in the parts that communication separates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Placement


CLOCK_LIMIT_NS = 2**56
"""Of a micro-batch (2 years): with 64 of them the clock is still within int64."""


@dataclass(frozen=True, slots=True, eq=False)
class StepTimes:
    """Integer nanoseconds of computing, rounded up.

    Attributes
    ----------
    attention
        int64 [layers, gpus]: what comes between the results of the layer before (or the start of
        the step) and the dispatch of this one: dense layers, attention, router and replicated
        shared experts.
    experts
        int64 [layers, gpus]: the experts, between dispatch and combine.
    tail
        int64 [gpus]: what follows the results of the last layer: dense layers and the head.
    """

    attention: NDArray[np.int64]
    experts: NDArray[np.int64]
    tail: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Freeze the arrays and refuse shapes that do not fit."""
        if self.attention.shape != self.experts.shape or (
            self.tail.shape != self.experts.shape[1:]
        ):
            raise SimulationError(
                f"times of shapes {self.attention.shape}, {self.experts.shape} and "
                f"{self.tail.shape}; expected [layers, gpus] twice and [gpus]"
            )
        for field in ("attention", "experts", "tail"):
            array = getattr(self, field)
            if array.min(initial=0) < 0:
                raise SimulationError(f"times: {field} is negative; expected 0 ns or more")
            array.setflags(write=False)
        each = (self.attention, self.experts, self.tail[None, :])
        longest = sum(float(part.max(axis=1, initial=0).sum(dtype=np.float64)) for part in each)
        if longest >= CLOCK_LIMIT_NS:
            raise SimulationError(
                f"clock overflow: GPUs compute up to {longest:.3g} ns in a step; expected below "
                f"{CLOCK_LIMIT_NS:.3g}"
            )

    @property
    def layers(self) -> int:
        """MoE layers."""
        return len(self.experts)

    @property
    def gpus(self) -> int:
        """GPUs."""
        return len(self.tail)


def whole_ns(duration_ns: NDArray[np.float64], what: str) -> NDArray[np.int64]:
    """Round nanoseconds up to whole ones.

    Raises
    ------
    SimulationError
        If a part of a layer takes 1e9 s or more.
    """
    longest = float(duration_ns.max(initial=0.0)) * 1e-9
    if not longest < 1e9:
        raise SimulationError(f"{what} time of {longest:.3g} s in one layer; expected below 1e9 s")
    # What floats add to an exact count of nanoseconds is no reason to round up.
    whole: NDArray[np.int64] = np.ceil(duration_ns - 1e-6).astype(np.int64)
    return whole


def sum_of_slots(placement: Placement, of_slot: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [layers, gpus]: values [slots] added up over the slots of a GPU and layer."""
    cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    cells = placement.layers * placement.gpus
    total: NDArray[np.float64] = np.bincount(cell, of_slot, cells).astype(np.float64)
    return total.reshape(placement.layers, placement.gpus)


def check_slot_tokens(placement: Placement, slot_tokens: NDArray[np.int64]) -> None:
    """Refuse counts that are not one number of 0 or more for every slot."""
    slots = len(placement.slot_layer)
    if slot_tokens.shape != (slots,):
        raise SimulationError(
            f"slot_tokens of shape {slot_tokens.shape} for {slots} slots; expected one number each"
        )
    check_counts("slot_tokens", slot_tokens)


def check_counts(what: str, tokens: NDArray[np.int64]) -> None:
    """Refuse numbers of tokens that are negative or not whole."""
    if tokens.dtype.kind not in "iu":
        raise SimulationError(f"{what} are {tokens.dtype}; expected whole numbers of tokens")
    if tokens.min(initial=0) < 0:
        raise SimulationError(f"{what} has {tokens.min()}; expected 0 tokens or more")
