"""Every choice of a token takes the same time, and nothing else takes any: the paper's study."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from sim.compute.times import StepTimes, check_slot_tokens, sum_of_slots, whole_ns
from sim.errors import SimulationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Placement
    from workloads import MoEModel


def expert_seconds(model: MoEModel, flops_per_s: float) -> float:
    """Seconds a GPU computes one choice of a token: 2 operations per parameter of an expert."""
    return 2 * model.parameters_per_expert / flops_per_s


def expert_ns(expert_tokens: NDArray[np.int64], seconds_per_token: float) -> NDArray[np.int64]:
    """int64 [layers, gpus]: time to process `expert_tokens` at a constant rate, rounded up."""
    if not (isfinite(seconds_per_token) and seconds_per_token >= 0):
        raise SimulationError(
            f"expert_seconds_per_token must be finite and 0 or more, got {seconds_per_token}"
        )
    return whole_ns(expert_tokens.astype(np.float64) * (seconds_per_token * 1e9), "expert")


def constant_times(
    placement: Placement, slot_tokens: NDArray[np.int64], expert_seconds_per_token: float
) -> StepTimes:
    """Return times of experts at a constant rate; attention and head take none.

    Parameters
    ----------
    placement
        Where the slots are.
    slot_tokens
        int64 [slots]: choices every slot of `placement` answers.
    expert_seconds_per_token
        Seconds of a choice.

    Raises
    ------
    SimulationError
        If the counts do not fit the placement, or the times not the clock.
    """
    check_slot_tokens(placement, slot_tokens)
    tokens = sum_of_slots(placement, slot_tokens.astype(np.float64)).astype(np.int64)
    experts = expert_ns(tokens, expert_seconds_per_token)
    return StepTimes(
        attention=np.zeros_like(experts),
        experts=experts,
        tail=np.zeros(placement.gpus, dtype=np.int64),
    )
