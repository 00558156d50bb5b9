"""What a communication kernel takes of a GPU besides the time its bytes are under way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from placement import Placement
    from sim.compute import Pool, StepTimes
    from sim.compute_model import ComputeModel
    from sim.messages import Exchange

LAUNCH_US = 32.0
"""Of a kernel, before and after its bytes move: launch, writing the messages, counting what
arrived, copying it out. The GPU does that and nothing else meanwhile. The same for dispatch and
combine, set by the three published dispatch rows; everything else is predicted with it."""


@dataclass(frozen=True, slots=True)
class WithKernels:
    """Computing, and a dispatch and a combine kernel in every layer.

    Attributes
    ----------
    computing
        The rest.
    """

    computing: ComputeModel

    @property
    def pool(self) -> Pool | None:
        """What the GPUs serve."""
        return self.computing.pool

    def times(self, placement: Placement, sent: Exchange) -> StepTimes:
        """Return the times of a (micro-)batch: kernels where a GPU has tokens to send or answer."""
        times = self.computing.times(placement, sent)
        launch = round(LAUNCH_US * 1e3)
        answered = np.zeros_like(sent.origin_tokens)
        np.add.at(answered, (placement.slot_layer, placement.slot_gpu), sent.slot_tokens)
        return replace(
            times,
            attention=times.attention + launch * (sent.origin_tokens > 0),
            experts=times.experts + launch * (answered > 0),
        )
