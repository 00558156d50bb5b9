"""From the tables of a run file to a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.costs import replica_problem
from experiments.errors import ExperimentError
from experiments.limits import MAX_TOKENS
from placement.replicas import make_rule

if TYPE_CHECKING:
    from experiments.run import Setting
    from experiments.spec import NetworkSpec, RunSpec
    from placement import Placement
    from sim import ComputeModel, FaultSchedule, SimResult
    from sim.compute import Pool
    from sim.messages.rules import DispatchOptions
    from sim.network import Network
    from topologies import Cluster, Router


def replay(spec: RunSpec, setting: Setting, placement: Placement) -> SimResult:
    """Replay the judged trace of `setting` through `placement`."""
    from sim import MessageSizes, simulate  # noqa: PLC0415  brings in numba and SimPy

    return simulate(
        setting.workload.trace,
        placement,
        setting.attention,
        network=_network(spec.network, setting.router),
        sizes=MessageSizes.from_model(setting.model, spec.dispatch.mode),
        compute=_compute(spec, setting),
        micro_batches=spec.step.micro_batches,
        overlap=spec.step.overlap,
        faults=_faults(spec, setting),
        **_dispatch(spec, setting, placement),
    )


def batch_tokens(spec: RunSpec, gpus: int) -> int | None:
    """Tokens of the judged trace: as given, or those of the requests; None for the default.

    Raises
    ------
    ExperimentError
        If both are given, or the requests have more tokens than a run may.
    """
    requests = spec.step.requests_per_gpu
    if requests is None:
        return spec.tokens
    if spec.tokens is not None:
        raise ExperimentError("give 'tokens' or step.requests_per_gpu, not both")
    tokens = gpus * requests * spec.step.tokens_per_request
    if tokens > MAX_TOKENS:
        raise ExperimentError(
            f"step.requests_per_gpu {requests} on {gpus} GPUs, {spec.step.tokens_per_request} "
            f"tokens each, are {tokens} tokens; expected at most {MAX_TOKENS}"
        )
    return tokens


def _network(spec: NetworkSpec, router: Router) -> Network:
    from sim import AnalyticNetwork, FluidNetwork, PacketNetwork  # noqa: PLC0415  as above

    if spec.kind == "analytic":
        return AnalyticNetwork(router)
    if spec.kind == "fluid":
        return FluidNetwork(router, steps=None if spec.steps == "exact" else spec.steps)
    return PacketNetwork(router, chunk_bytes=spec.chunk_bytes, order=spec.order, seed=spec.seed)


def _faults(spec: RunSpec, setting: Setting) -> FaultSchedule:
    from sim.faults import Fault, FaultSchedule  # noqa: PLC0415  as above

    cluster = setting.router.cluster
    return FaultSchedule(
        tuple(
            Fault(each.at_s, "gpu", each.gpu, each.speed)
            if each.gpu is not None
            else Fault(each.at_s, "link", _link_number(cluster, each.link, place), each.speed)
            for place, each in enumerate(spec.faults)
        ),
        lost_experts=spec.dispatch.lost_experts,
    )


def _link_number(cluster: Cluster, link: str | int | tuple[int, int] | None, place: int) -> int:
    """Return the number of a fault's link; an error says which fault it is."""
    from sim import SimulationError  # noqa: PLC0415  as above
    from sim.link_names import link_number  # noqa: PLC0415  as above

    try:
        return link_number(cluster, "" if link is None else link)
    except SimulationError as error:
        raise SimulationError(f"faults.{place}.link: {error}") from None


def _compute(spec: RunSpec, setting: Setting) -> ComputeModel:
    from sim import ConstantCompute, PoolCompute, expert_seconds  # noqa: PLC0415  as above
    from sim.compute import gpu_model  # noqa: PLC0415  as above

    if spec.step.gpu is None:
        return ConstantCompute(expert_seconds(setting.model, spec.expert_flops))
    return PoolCompute(setting.model, gpu_model(spec.step.gpu), _pool(spec, setting))


def _pool(spec: RunSpec, setting: Setting) -> Pool:
    from sim.compute import DecodePool, PrefillPool  # noqa: PLC0415  as above

    step = spec.step
    tokens_per_gpu = setting.workload.trace.tokens / setting.router.cluster.gpus
    requests = step.requests_per_gpu or max(1, round(tokens_per_gpu / step.tokens_per_request))
    if step.phase == "decode":
        return DecodePool(
            requests_per_gpu=requests,
            kv_tokens=step.kv_tokens,
            drafts=step.drafts,
            accepted=step.accepted,
            tp=spec.attention.tp,
            shared=spec.dispatch.shared,
        )
    return PrefillPool(
        requests_per_gpu=requests,
        prompt_tokens=step.tokens_per_request,
        kv_tokens=step.kv_tokens,
        tp=spec.attention.tp,
        shared=spec.dispatch.shared,
    )


def _dispatch(spec: RunSpec, setting: Setting, placement: Placement) -> DispatchOptions:
    table = spec.dispatch
    rule = table.replica_rule or spec.placement.replica_rule
    options: DispatchOptions = {
        "mode": table.mode,
        "replica_rule": rule,
        "shared": table.shared,
        "shared_experts": setting.model.shared_experts if table.shared == "routed" else 0,
        "shared_gpus": table.shared_gpus,
        "seed": table.seed,
    }
    if placement.redundant and rule == "nearest":
        options["server_distance"] = setting.router.server_distance()
    if placement.redundant and rule == "lp":
        options["parts"] = make_rule(rule)(placement, replica_problem(setting, setting.problem))
    return options
