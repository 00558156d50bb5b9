"""Plain counts of a trace, and the messages of placements without replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Placement
    from workloads import RoutingTrace


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


def expert_tokens(trace: RoutingTrace, placement: Placement) -> NDArray[np.int64]:
    """int64 [layers, gpus]: choices that every GPU's experts process."""
    from sim.messages._message_kernel import count_experts  # noqa: PLC0415  loads numba

    load = count_experts(trace.topk, trace.experts)
    layer = np.arange(trace.layers)[:, None] * placement.gpus
    flat = (layer + placement.gpu_of_expert).ravel()
    tokens = np.bincount(flat, weights=load.ravel(), minlength=trace.layers * placement.gpus)
    return tokens.astype(np.int64).reshape(trace.layers, placement.gpus)


def distinct_destinations(trace: RoutingTrace, placement: Placement) -> tuple[int, int]:
    """Distinct GPUs, and distinct servers, of a token and layer, summed over all of them."""
    from sim.messages._message_kernel import count_distinct  # noqa: PLC0415  loads numba

    gpu_of_expert, size = placement.gpu_of_expert, placement.gpus_per_server
    gpus = count_distinct(trace.topk, gpu_of_expert, placement.gpus)
    servers = count_distinct(trace.topk, gpu_of_expert // np.int32(size), placement.servers)
    return int(gpus), int(servers)
