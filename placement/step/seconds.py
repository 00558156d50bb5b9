"""What a step costs in seconds: experts read and computed on GPUs, bytes on links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from workloads import ExpertProfile, MoEModel

NDR_BPS = 50e9
"""Bytes per second and direction of a 400 Gb/s link."""


@dataclass(frozen=True, slots=True)
class GpuRates:
    """How fast a GPU reads weights and multiplies; the defaults are an H100 in FP8.

    Attributes
    ----------
    memory_Bps
        Bytes per second of its memory.
    flops
        Operations per second at its peak.
    efficiency
        Part of `flops` that grouped products reach.
    """

    memory_Bps: float = 3.35e12  # noqa: N815  bytes per second, as the docs write it
    flops: float = 1.979e15
    efficiency: float = 1.0

    def __post_init__(self) -> None:
        """Refuse rates that no GPU has."""
        _check_positive(memory_Bps=self.memory_Bps, flops=self.flops, efficiency=self.efficiency)


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Prices that put balance and traffic in one unit: seconds of a layer of a step.

    A GPU reads the weights of every slot that gets a token of the step, and computes its tokens;
    the busiest GPU of a layer is waited for. Every byte on every link costs the same.

    Attributes
    ----------
    tokens
        Tokens of a step, of all ranks together.
    per_slot_s
        Seconds to read a slot's weights, paid where at least one of the tokens chooses it.
    per_token_s
        Seconds of a GPU for a token and expert.
    per_link_byte_s
        Seconds that a byte costs on every link it crosses. ``1 / (links x bandwidth)`` makes
        traffic the mean time that a link is busy; who knows which links bind divides by those.
    dispatch_bytes, combine_bytes
        Of a message out to an expert and back. A hop costs the mean of both, which is exact
        where tokens return the way they came (data-parallel on a symmetric fabric).
    """

    tokens: int
    per_slot_s: float
    per_token_s: float
    per_link_byte_s: float
    dispatch_bytes: int
    combine_bytes: int

    def __post_init__(self) -> None:
        """Refuse prices that mean nothing."""
        if self.tokens < 1:
            raise PlacementError(f"tokens is {self.tokens}; expected at least 1 in a step")
        for name in (
            "per_slot_s",
            "per_token_s",
            "per_link_byte_s",
            "dispatch_bytes",
            "combine_bytes",
        ):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise PlacementError(f"{name} is {value}; expected a finite number of 0 or more")

    @classmethod
    def of(
        cls,
        model: MoEModel,
        *,
        tokens: int,
        links: int,
        message_bytes: tuple[int, int],
        link_Bps: float = NDR_BPS,  # noqa: N803  bytes per second, as the docs write it
        gpu: GpuRates | None = None,
        bytes_per_parameter: float = 1.0,
    ) -> StepSeconds:
        """Derive the prices from hardware.

        R1 in FP8 on an H100: a slot's 44.04 MB take 13.1 us at 3.35 TB/s, a token's
        2 x 44.04 MFLOP 44.5 ns at 1979 TFLOP/s.

        Parameters
        ----------
        model
            Its experts' parameters count.
        tokens
            See the class.
        links, link_Bps
            Directed links that share the traffic, and bytes per second of each.
        message_bytes
            Dispatched and combined.
        gpu
            By default an H100 in FP8.
        bytes_per_parameter
            Of the experts' weights, scales included.
        """
        gpu = gpu or GpuRates()
        _check_positive(links=links, link_Bps=link_Bps, bytes_per_parameter=bytes_per_parameter)
        return cls(
            tokens=tokens,
            per_slot_s=model.parameters_per_expert * bytes_per_parameter / gpu.memory_Bps,
            per_token_s=2 * model.parameters_per_expert / (gpu.flops * gpu.efficiency),
            per_link_byte_s=1 / (links * link_Bps),
            dispatch_bytes=message_bytes[0],
            combine_bytes=message_bytes[1],
        )

    def work(self, profile: ExpertProfile, top_k: int) -> NDArray[np.float64]:
        """float64 [layers, experts]: expected seconds an expert keeps its GPU busy in a step.

        ``per_slot_s x P(a token chooses it) + per_token_s x tokens that do``, tokens being
        independent: P = 1 - (1 - k load) ** tokens.
        """
        chosen = top_k * profile.load
        active = 1.0 - (1.0 - np.minimum(chosen, 1.0)) ** self.tokens
        work: NDArray[np.float64] = (
            self.per_slot_s * active + self.per_token_s * self.tokens * chosen
        )
        return work

    def pull(self, profile: ExpertProfile, top_k: int) -> NDArray[np.float64]:
        """float64 [layers, experts]: seconds that a hop of an expert's messages costs a step."""
        message = (self.dispatch_bytes + self.combine_bytes) / 2
        pull: NDArray[np.float64] = (
            self.per_link_byte_s * message * self.tokens * top_k * profile.load
        )
        return pull


@dataclass(frozen=True, slots=True, eq=False)
class StepCost:
    """Seconds of a step, layer by layer.

    Attributes
    ----------
    busiest_s
        float64 [layers]: expected seconds of the busiest GPU.
    traffic_s
        float64 [layers]: seconds of all bytes on all links.
    """

    busiest_s: NDArray[np.float64]
    traffic_s: NDArray[np.float64]

    @property
    def mean_s(self) -> float:
        """Mean over layers of both together."""
        return float(np.mean(self.busiest_s + self.traffic_s))


def step_seconds(placement: Placement, problem: PlacementProblem, step: StepSeconds) -> StepCost:
    """Price a placement slot by slot, whoever made it; replicas share their tokens equally.

    Raises
    ------
    PlacementError
        If placement and problem differ in layers, experts or servers.
    """
    have = placement.layers, placement.experts, placement.servers
    want = problem.layers, problem.experts, problem.servers
    if have != want:
        raise PlacementError(
            f"the placement has (layers, experts, servers) {have}, the problem {want}"
        )
    at = placement.slot_layer, placement.slot_expert
    tokens = step.tokens * problem.top_k * problem.profile.load[at] / placement.replicas[at]
    share = np.minimum(tokens / step.tokens, 1.0)
    busy = step.per_slot_s * (1 - (1 - share) ** step.tokens) + step.per_token_s * tokens
    of_gpu = np.zeros((placement.layers, placement.gpus))
    np.add.at(of_gpu, (placement.slot_layer, placement.slot_gpu), busy)
    server = placement.slot_gpu // placement.gpus_per_server
    hops = tokens * problem.cost[placement.slot_layer, server]
    byte_hops = hops * (step.dispatch_bytes + step.combine_bytes) / 2
    traffic = np.zeros(placement.layers)
    np.add.at(traffic, placement.slot_layer, step.per_link_byte_s * byte_hops)
    return StepCost(busiest_s=of_gpu.max(axis=1), traffic_s=traffic)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise PlacementError(f"{name} is {value}; expected a finite number above 0")
