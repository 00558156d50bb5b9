"""From counts of tokens to the times of a step on a real GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.compute.roofline import cache_seconds, gather_seconds, matrix_seconds
from sim.compute.times import (
    StepTimes,
    check_counts,
    check_slot_tokens,
    sum_of_slots,
    whole_ns,
)
from sim.errors import SimulationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Placement
    from sim.compute.gpu import GpuModel
    from sim.compute.pool import Pool
    from workloads import Architecture, MoEModel


def step_times(
    model: MoEModel,
    placement: Placement,
    gpu: GpuModel,
    *,
    pool: Pool,
    slot_tokens: NDArray[np.int64],
    origin_tokens: NDArray[np.int64],
    head_tokens: NDArray[np.int64] | None = None,
) -> StepTimes:
    """Return how long every GPU computes in a step, or in one of its micro-batches.

    A GPU computes attention of the tokens its group of `pool.tp` holds; router, replicated shared
    experts, dense feed-forward and head of its own, those it dispatches. All weights but the
    attention heads are whole on every GPU, as `MoEModel.resident_parameters` counts them. A GPU
    without tokens takes no time.

    Parameters
    ----------
    model
        Weights and their formats.
    placement
        Where the slots are.
    gpu
        Its rates.
    pool
        Phase, cache and shared experts; requests are ``tokens / pool.tokens_per_request`` of a
        GPU, whatever `pool.requests_per_gpu` says.
    slot_tokens
        int64 [slots]: tokens that every slot of `placement` answers.
    origin_tokens
        int64 [layers, gpus]: tokens that every GPU dispatches.
    head_tokens
        int64 [gpus]: tokens whose last results a GPU collects; by default those that it
        dispatched in the last layer.

    Raises
    ------
    SimulationError
        If the parts do not fit together, or a time not the clock.
    WorkloadError
        If `pool.tp` does not divide the heads.
    """
    _check(model, placement, pool)
    check_slot_tokens(placement, slot_tokens)
    _check_shape("origin_tokens", origin_tokens, (placement.layers, placement.gpus))
    head_tokens = origin_tokens[-1] if head_tokens is None else head_tokens
    _check_shape("head_tokens", head_tokens, (placement.gpus,))
    rank = _Rank(model, _architecture(model), gpu, pool)
    slots = matrix_seconds(gpu, slot_tokens, model.parameters_per_expert, model.bytes_per_parameter)
    return StepTimes(
        attention=whole_ns(rank.attention(origin_tokens) * 1e9, "attention"),
        experts=whole_ns(sum_of_slots(placement, slots) * 1e9, "expert"),
        tail=whole_ns(rank.tail(head_tokens) * 1e9, "head"),
    )


@dataclass(frozen=True, slots=True)
class _Rank:
    """What a GPU computes besides routed experts; seconds of tokens [..., gpus]."""

    model: MoEModel
    shape: Architecture
    gpu: GpuModel
    pool: Pool

    def attention(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [layers, gpus]: from the results of a MoE layer to the dispatch of the next."""
        numbers = np.array([-1, *self.model.moe_layers])
        dense = (np.diff(numbers) - 1)[:, None]
        return dense * self._dense(tokens) + self._block(tokens) + self._beside_experts(tokens)

    def tail(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [gpus]: dense layers after the last MoE layer, and the head."""
        dense = self.model.hidden_layers - 1 - self.model.moe_layers[-1]
        return dense * self._dense(tokens) + self._head(tokens)

    def _dense(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        width = self.shape.dense_intermediate or 0
        return self._block(tokens) + self._linear(tokens, 3 * self.model.hidden * width)

    def _block(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Launches, attention and its projections of all tokens of the group."""
        tp, hidden = self.pool.tp, self.model.hidden
        grouped = tokens.reshape(*tokens.shape[:-1], -1, tp).sum(axis=-1)
        seconds = (
            np.where(grouped > 0, self.gpu.launch_s, 0.0)
            + self._linear(grouped, self.shape.attention.parameters(hidden, tp))
            + cache_seconds(self.gpu, grouped, self.shape.attention, self.pool)
            + gather_seconds(self.gpu, grouped, hidden, tp)
        )
        return np.repeat(seconds, tp, axis=-1)

    def _beside_experts(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Router and replicated shared experts."""
        model = self.model
        router = matrix_seconds(self.gpu, tokens, model.hidden * model.experts, model.storage.other)
        if self.pool.shared == "routed":
            return router
        return router + self._linear(tokens, model.shared_experts * model.parameters_per_expert)

    def _head(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Every token of a decoding step, the last one of every prompt."""
        last = tokens if self.pool.phase == "decode" else -(-tokens // self.pool.tokens_per_request)
        parameters = self.shape.vocabulary * self.model.hidden
        return matrix_seconds(self.gpu, last, parameters, self.model.storage.other)

    def _linear(self, tokens: NDArray[np.int64], parameters: int) -> NDArray[np.float64]:
        return matrix_seconds(self.gpu, tokens, parameters, self.model.storage.linear)


def _architecture(model: MoEModel) -> Architecture:
    if model.architecture is None:
        raise SimulationError(
            f"model {model.name!r} does not say what surrounds its experts; expected an "
            "architecture to time attention from, or constant times"
        )
    return model.architecture


def _check(model: MoEModel, placement: Placement, pool: Pool) -> None:
    for what, placed, modelled in (
        ("layers", placement.layers, model.layers),
        ("experts", placement.experts, model.experts),
    ):
        if placed != modelled:
            raise SimulationError(
                f"the placement is for {placed} {what}, {model.name!r} has {modelled}; expected "
                "equal"
            )
    if placement.gpus_per_server % pool.tp:
        raise SimulationError(
            f"tp {pool.tp} of servers of {placement.gpus_per_server} GPUs; expected a divisor: "
            "groups inside a server"
        )


def _check_shape(what: str, tokens: NDArray[np.int64], expected: tuple[int, ...]) -> None:
    if tokens.shape != expected:
        raise SimulationError(f"{what} of shape {tokens.shape}; expected {list(expected)}")
    check_counts(what, tokens)
