"""The replay of a trace: from tokens to messages, through the step, to a checked result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sim.batch import split_batch
from sim.errors import SimulationError
from sim.faults import FaultSchedule
from sim.free import critical_ns
from sim.laws import check_laws
from sim.leg import legs_of
from sim.losses import losses
from sim.pairs import hop_histogram
from sim.plans import Planner, Plans
from sim.result import SimResult
from sim.spans import Spans
from sim.step import run_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from placement import Attention, Placement
    from sim.batch import Batch
    from sim.compute_model import ComputeModel
    from sim.messages import MessageSizes
    from sim.messages.rules import DispatchOptions
    from sim.network.protocol import Network, Session
    from sim.step import Step
    from sim.turns import Overlap
    from topologies import Router
    from workloads import RoutingTrace


def simulate(  # noqa: PLR0913  the parts of a step, all but the subject by name
    trace: RoutingTrace,
    placement: Placement,
    attention: Attention,
    *,
    network: Network,
    sizes: MessageSizes,
    compute: ComputeModel,
    micro_batches: int = 1,
    overlap: Overlap = "ready",
    faults: FaultSchedule | None = None,
    **options: Unpack[DispatchOptions],
) -> SimResult:
    """Replay a trace through a placement over the cluster's links, and check the laws.

    Every token's choices leave its origin GPU, are computed on the experts' GPUs and return to
    its collector GPU, which is its origin in the next layer. `sim.step.Step` says who waits for
    what. The step ends when the last results are in and what follows them is computed.

    Parameters
    ----------
    trace
        Choices of every token in every layer.
    placement
        Where the experts are.
    attention
        Origin and collector GPU of every token and layer.
    network
        How messages move: `AnalyticNetwork`, `FluidNetwork` or `PacketNetwork` on a `Router`.
    sizes
        Bytes of the messages.
    compute
        How long GPUs compute: `ConstantCompute` or `PoolCompute`.
    micro_batches
        Parts of the batch that go through the layers side by side, so that some compute while
        others communicate.
    overlap
        What a GPU of several micro-batches does next: see `Overlap`.
    faults
        Links that slow down, and links and GPUs that die and come back: `sim.faults` says what
        becomes of messages, experts and tokens. Hops are counted along the routes as built.
    **options
        How the engine dispatches: keywords of `sim.messages.DispatchRules`.

    Raises
    ------
    SimulationError
        If the parts do not fit together, or faults leave no way to go on.
    LawViolation
        If the finished run contradicts a law (see `sim.laws`).
    """
    schedule = faults or FaultSchedule()
    schedule.check(network.router.cluster)
    _check_cluster(placement, network.router)
    _check_causality(trace, attention)
    planner = Planner(placement, sizes, compute, options, schedule.lost_experts)
    plans = _plans(planner, schedule, split_batch(trace, attention, micro_batches))
    step, session = run_step(network, plans, schedule, overlap)
    batches, lost = step.happened(), losses(schedule, plans, step)
    legs = [leg for batch in batches for leg in batch.legs]
    result = SimResult(
        tokens=trace.tokens - lost.tokens,
        losses=lost if schedule.faults else None,
        hop_histogram=hop_histogram(network.router, legs),
        critical_ns=critical_ns(batches, overlap),
        **_known(network, planner),
        **_happened(step, session),
        **_counted(batches),
    )
    inputs = None if schedule.of_gpus else (trace, placement, attention)
    check_laws(result, legs, network.router, inputs)
    return result


def _plans(
    planner: Planner,
    schedule: FaultSchedule,
    parts: Iterable[tuple[RoutingTrace, Attention]],
) -> list[Plans] | list[Batch]:
    """Return what micro-batches send and compute: for good, where no GPU dies."""
    if schedule.of_gpus:
        return [Plans(planner, *part, schedule.dead_at_start) for part in parts]
    return [planner.batch(*part) for part in parts]


def _known(network: Network, planner: Planner) -> dict[str, Any]:
    """Return what was known beforehand."""
    return {
        "cluster": network.router.cluster,
        "network": network.name,
        "rule": network.router.rule,
        "mode": planner.options.get("mode", "per_expert"),
        "sizes": planner.sizes,
        "pool": planner.compute.pool,
    }


def _happened(step: Step, session: Session) -> dict[str, Any]:
    """Return what the step did to the links, and when."""
    return {
        "link_bytes": step.link_bytes(),
        "collective_ns": step.collective_ns(),
        "spans": Spans(*step.spans()),
        "step_ns": step.end_ns,
        "usage": session.usage(),
    }


def _counted(batches: Sequence[Batch]) -> dict[str, Any]:
    """Return what is counted of what micro-batches sent and computed."""
    sent = [batch.exchange for batch in batches]
    return {
        "legs": legs_of(batches),
        "expert_tokens": np.sum([batch.gpu_tokens for batch in batches], axis=0),
        "origin_tokens": np.sum([each.origin_tokens for each in sent], axis=0),
        "distinct_gpus": sum(each.distinct_gpus for each in sent),
        "distinct_servers": sum(each.distinct_servers for each in sent),
    }


def _check_cluster(placement: Placement, router: Router) -> None:
    cluster = router.cluster
    for what, placed, there in (
        ("GPUs", placement.gpus, cluster.gpus),
        ("GPUs per server", placement.gpus_per_server, cluster.gpus_per_server),
    ):
        if placed != there:
            raise SimulationError(
                f"the placement is for {placed} {what}, the cluster has {there}; expected equal"
            )


def _check_causality(trace: RoutingTrace, attention: Attention) -> None:
    """Refuse tokens that would have to move between a collector and the next origin."""
    origin, collector = attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens)
    moved = np.argwhere(origin[1:] != collector[:-1])
    if moved.size:
        layer, token = moved[0].tolist()
        raise SimulationError(
            f"token {token} is collected on GPU {collector[layer, token]} in layer {layer} but "
            f"dispatched from GPU {origin[layer + 1, token]} in layer {layer + 1}; expected equal"
        )
