"""What a run's setting makes links, replicas and seconds cost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from placement import DataParallel
from placement.congestion import LinkCost
from placement.replicas import ReplicaProblem
from placement.step import GpuRates, StepSeconds
from topologies import LinkClass

if TYPE_CHECKING:
    from experiments.run import Setting
    from experiments.spec import PlacementSpec
    from placement import PlacementProblem

ANYWHERE = ("equal", "sglang_dynamic", "vllm_modulo")
"""Replica rules by which a token's replica does not depend on where the token is."""


def link_cost(setting: Setting) -> LinkCost:
    """Price the links for the run's batch under data-parallel attention.

    Raises
    ------
    ExperimentError
        If attention is of another kind.
    PlacementError
        If flows are not split by ``shares``.
    """
    if not isinstance(setting.attention, DataParallel):
        raise ExperimentError(
            "the links' loads are known under data-parallel attention only; set attention to "
            "data-parallel"
        )
    from sim import MessageSizes  # noqa: PLC0415  brings in numba and SimPy

    sizes, gpus = MessageSizes.from_model(setting.model), setting.router.cluster.gpus
    return LinkCost.of(
        setting.router,
        top_k=setting.model.top_k,
        dispatch_bytes=sizes.dispatch_bytes,
        combine_bytes=sizes.combine_bytes,
        tokens_per_gpu=setting.workload.trace.tokens / gpus,
    )


def replica_problem(setting: Setting, problem: PlacementProblem) -> ReplicaProblem:
    """Say of a problem where its tokens come from, which decides the replica they take."""
    return ReplicaProblem.of(problem, setting.router.server_distance(), setting.attention)


def step_prices(spec: PlacementSpec, setting: Setting) -> StepSeconds:
    """Put slots, tokens and bytes on links in seconds: as given, else as the hardware says.

    A slot is read from an H100's memory, a token computed at the run's speed, and a byte costs
    its share of all network links' bandwidth together: the mean time that a link is busy.

    Raises
    ------
    ExperimentError
        If GPUs take no time at all.
    """
    if spec.slot_seconds == spec.token_seconds == 0:
        raise ExperimentError(
            "placement: with 'slot_seconds' and 'token_seconds' 0 only traffic counts; take "
            "ilp-load, or give one of them"
        )
    from sim import MessageSizes  # noqa: PLC0415  brings in numba and SimPy

    sizes, cluster = MessageSizes.from_model(setting.model), setting.router.cluster
    network = cluster.bandwidth_Bps[cluster.link_class != LinkClass.NVLINK]
    size = spec.bytes_per_parameter
    derived = StepSeconds.of(
        setting.model,
        tokens=spec.step_tokens or setting.workload.trace.tokens,
        links=len(network),
        message_bytes=(sizes.dispatch_bytes, sizes.combine_bytes),
        link_Bps=float(network.mean()),
        gpu=GpuRates(flops=setting.expert_flops),
        bytes_per_parameter=setting.model.bytes_per_parameter if size is None else size,
    )
    given: dict[str, Any] = {
        "per_slot_s": spec.slot_seconds,
        "per_token_s": spec.token_seconds,
        "per_link_byte_s": spec.link_byte_seconds,
    }
    return replace(derived, **{name: value for name, value in given.items() if value is not None})
