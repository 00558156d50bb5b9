"""How long GPUs compute, as the engine asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from sim.compute import constant_times, expert_ns, step_times
from sim.compute.roofline import matrix_seconds
from sim.compute.times import whole_ns

if TYPE_CHECKING:
    from placement import Placement
    from sim.compute import GpuModel, Pool, StepTimes
    from sim.messages import Exchange
    from workloads import MoEModel


class ComputeModel(Protocol):
    """From what a (micro-)batch sends to how long GPUs compute for it."""

    @property
    def pool(self) -> Pool | None:
        """What the GPUs serve; None where no request is thought of."""

    def times(self, placement: Placement, sent: Exchange) -> StepTimes:
        """Return the times of a (micro-)batch."""


@dataclass(frozen=True, slots=True)
class ConstantCompute:
    """Every choice takes the same time, and attention none: the paper's study.

    Attributes
    ----------
    expert_seconds_per_token
        Seconds a GPU computes per choice it receives.
    """

    expert_seconds_per_token: float
    pool: None = None

    def times(self, placement: Placement, sent: Exchange) -> StepTimes:
        """Return the times of a (micro-)batch."""
        routed = constant_times(placement, sent.slot_tokens, self.expert_seconds_per_token)
        shared = expert_ns(sent.shared_tokens, self.expert_seconds_per_token)
        return replace(routed, experts=routed.experts + shared)


@dataclass(frozen=True, slots=True)
class PoolCompute:
    """A real GPU that serves requests.

    Attributes
    ----------
    model
        Weights and their formats.
    gpu
        Rates.
    pool
        Phase, cache and drafts.
    """

    model: MoEModel
    gpu: GpuModel
    pool: Pool

    def times(self, placement: Placement, sent: Exchange) -> StepTimes:
        """Return the times of a (micro-)batch; routed shared experts count as a slot a GPU."""
        routed = step_times(
            self.model,
            placement,
            self.gpu,
            pool=self.pool,
            slot_tokens=sent.slot_tokens,
            origin_tokens=sent.origin_tokens,
        )
        shared = matrix_seconds(
            self.gpu,
            sent.shared_tokens,
            self.model.parameters_per_expert,
            self.model.bytes_per_parameter,
        )
        return replace(routed, experts=routed.experts + whole_ns(shared * 1e9, "shared expert"))
