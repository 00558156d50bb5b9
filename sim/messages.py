"""From a trace, a placement and an attention to messages between GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError
from sim.network.flows import Flows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Attention, Placement
    from workloads import MoEModel, RoutingTrace


@dataclass(frozen=True, slots=True)
class MessageSizes:
    """Bytes of one message of either direction.

    Attributes
    ----------
    dispatch_bytes
        A token's hidden state on the way to an expert.
    combine_bytes
        An expert's result on the way to the token.
    """

    dispatch_bytes: int
    combine_bytes: int

    def __post_init__(self) -> None:
        """Refuse empty messages."""
        if self.dispatch_bytes < 1 or self.combine_bytes < 1:
            raise SimulationError(
                f"messages must have 1 byte or more, got {self.dispatch_bytes} (dispatch) and "
                f"{self.combine_bytes} (combine)"
            )

    @classmethod
    def from_model(cls, model: MoEModel) -> MessageSizes:
        """Messages of DeepEP's low-latency kernels.

        Dispatch: a 16-byte header, the hidden state in FP8 and a 4-byte scale per 128 values;
        combine: the hidden state in BF16.
        """
        scales = 4 * -(-model.hidden // 128)
        return cls(dispatch_bytes=16 + model.hidden + scales, combine_bytes=2 * model.hidden)


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """All messages of one direction, counted by (layer, source, destination).

    Attributes
    ----------
    indptr
        int64 [layers + 1]: the rows of layer l are ``indptr[l]:indptr[l + 1]``.
    src, dst
        int32 [rows]: GPUs, ascending by (src, dst) within a layer; equal where an expert sits
        on the token's own GPU.
    count
        int64 [rows]: messages.
    message_bytes
        Size of every message.
    """

    indptr: NDArray[np.int64]
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    count: NDArray[np.int64]
    message_bytes: int

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.indptr, self.src, self.dst, self.count):
            array.setflags(write=False)

    @property
    def layers(self) -> int:
        """MoE layers."""
        return len(self.indptr) - 1

    @property
    def layer_of_row(self) -> NDArray[np.int64]:
        """int64 [rows]."""
        return np.repeat(np.arange(self.layers), np.diff(self.indptr))

    @property
    def size_bytes(self) -> NDArray[np.int64]:
        """int64 [rows]: bytes of every row."""
        return self.count * self.message_bytes

    def layer(self, layer: int) -> Flows:
        """Return the flows of one layer."""
        rows = slice(self.indptr[layer], self.indptr[layer + 1])
        return Flows(self.src[rows], self.dst[rows], self.count[rows], self.message_bytes)


def per_expert(
    trace: RoutingTrace, placement: Placement, attention: Attention, sizes: MessageSizes
) -> tuple[Traffic, Traffic]:
    """Send one message per token and expert: from its origin, and back to its collector.

    Parameters
    ----------
    trace
        Choices of every token.
    placement
        One slot per expert.
    attention
        Origin and collector of every token and layer.
    sizes
        Bytes of the messages.

    Returns
    -------
    Traffic, Traffic
        Dispatch and combine.

    Raises
    ------
    SimulationError
        If trace, placement and attention do not fit together.
    """
    # numba takes longer to import than the command line may take to print its help.
    from sim._message_kernel import count_pairs  # noqa: PLC0415

    check_fit(trace, placement)
    tokens, gpus = trace.tokens, placement.gpus
    ends = []
    for what, of_token in (
        ("origin", attention.origin_gpu(tokens)),
        ("collector", attention.collector_gpu(tokens)),
    ):
        if of_token.shape != (trace.layers, tokens):
            raise SimulationError(
                f"attention gives the {what} of {of_token.shape} layers and tokens, the trace "
                f"has {(trace.layers, tokens)}"
            )
        if of_token.min() < 0 or of_token.max() >= gpus:
            raise SimulationError(
                f"attention names {what} GPU {of_token.max()}; the placement has 0..{gpus - 1}"
            )
        ends.append(np.ascontiguousarray(of_token))
    topk, gpu_of_expert = trace.topk, placement.gpu_of_expert
    dispatch = count_pairs(topk, gpu_of_expert, ends[0], gpus, True)  # noqa: FBT003  numba
    combine = count_pairs(topk, gpu_of_expert, ends[1], gpus, False)  # noqa: FBT003  numba
    return Traffic(*dispatch, sizes.dispatch_bytes), Traffic(*combine, sizes.combine_bytes)


def check_fit(trace: RoutingTrace, placement: Placement) -> None:
    """Refuse a trace without tokens, and a placement of another model's shape."""
    if trace.tokens == 0:
        raise SimulationError("the trace has no tokens")
    for what, of_trace, of_placement in (
        ("MoE layers", trace.layers, placement.layers),
        ("experts", trace.experts, placement.experts),
    ):
        if of_trace != of_placement:
            raise SimulationError(
                f"the trace has {of_trace} {what}, the placement {of_placement}; expected equal"
            )
    slots = len(placement.slot_layer)
    if slots != placement.layers * placement.experts:
        raise SimulationError(
            f"the placement has {slots} slots for {placement.layers * placement.experts} "
            "experts; per_expert dispatch needs one slot per expert"
        )


def expert_tokens(trace: RoutingTrace, placement: Placement) -> NDArray[np.int64]:
    """int64 [layers, gpus]: choices that every GPU's experts process."""
    from sim._message_kernel import count_experts  # noqa: PLC0415  loads numba

    load = count_experts(trace.topk, trace.experts)
    layer = np.arange(trace.layers)[:, None] * placement.gpus
    flat = (layer + placement.gpu_of_expert).ravel()
    tokens = np.bincount(flat, weights=load.ravel(), minlength=trace.layers * placement.gpus)
    return tokens.astype(np.int64).reshape(trace.layers, placement.gpus)


def distinct_destinations(trace: RoutingTrace, placement: Placement) -> tuple[int, int]:
    """Distinct GPUs, and distinct servers, of a token and layer, summed over all of them."""
    from sim._message_kernel import count_distinct  # noqa: PLC0415  loads numba

    gpu_of_expert, size = placement.gpu_of_expert, placement.gpus_per_server
    gpus = count_distinct(trace.topk, gpu_of_expert, placement.gpus)
    servers = count_distinct(trace.topk, gpu_of_expert // np.int32(size), placement.servers)
    return int(gpus), int(servers)
