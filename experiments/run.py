"""One run from its specification to its result: build, place, evaluate, replay."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from experiments.choice import apply_choice, check_engine, evaluated, read_fitting
from experiments.clusters import find_cluster
from experiments.errors import ExperimentError
from experiments.limits import MAX_SERVERS
from experiments.policies import Choice
from experiments.replaying import batch_tokens, replay
from experiments.workload import Workload, load_workload
from placement import (
    Attention,
    DataParallel,
    Evaluation,
    Pipelined,
    Placement,
    PlacementProblem,
)
from placement.memory import Memory, check_memory, memory_caps
from topologies import Router, RoutingError
from workloads import MoEModel, model

if TYPE_CHECKING:
    from experiments.spec import AttentionSpec, PlacementSpec, RunSpec
    from sim import SimResult
    from topologies import Cluster


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """Everything of a run that stands before the experts are placed.

    Attributes
    ----------
    model, router, attention, workload
        What is placed, where, and for which tokens.
    problem
        All that a policy may see.
    memory
        Of a GPU; None where nothing is said of it.
    expert_flops
        Operations per second a GPU computes experts at.
    """

    model: MoEModel
    router: Router
    attention: Attention
    workload: Workload
    problem: PlacementProblem
    memory: Memory | None
    expert_flops: float


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A run up to its placement.

    Attributes
    ----------
    choice
        Where the experts went, with the policy's own report, certificate and notes.
    place_s
        Wall seconds the policy took.
    expected
        Its evaluation on the profile, before any replay, replicas under the rule that will run.
    """

    setting: Setting
    choice: Choice
    place_s: float
    expected: Evaluation

    @property
    def placement(self) -> Placement:
        """Where the experts went."""
        return self.choice.placement


@dataclass(frozen=True, slots=True, eq=False)
class RunResult(Placed):
    """What one run gave.

    Attributes
    ----------
    replay
        What the simulator measured on the judged trace.
    """

    replay: SimResult


def prepare(spec: RunSpec) -> Setting:
    """Build cluster, routes, workload and placement problem."""
    shape = model(spec.model)
    router = _router(spec.cluster, spec.network.routing, spec.network.seed)
    if router.cluster.servers > MAX_SERVERS:
        raise ExperimentError(
            f"cluster '{spec.cluster}' has {router.cluster.servers} servers; a placement takes at "
            f"most {MAX_SERVERS}, for it weighs every pair of them"
        )
    workload = load_workload(spec.model, spec.workload, batch_tokens(spec, router.cluster.gpus))
    attention = _attention(spec.attention, shape, router.cluster)
    layer_slots, server_slots = _caps(spec, shape, router.cluster)
    problem = PlacementProblem.build(
        shape,
        router.server_distance(),
        attention,
        workload.profile,
        gpus_per_server=router.cluster.gpus_per_server,
        layer_slots=layer_slots,
        server_slots=server_slots,
    )
    memory = _memory(spec)
    if memory is not None:
        slots = spec.placement.redundant or 0
        problem = memory_caps(problem, shape, memory, redundant=slots)
    return Setting(shape, router, attention, workload, problem, memory, spec.expert_flops)


def with_default_policy(spec: RunSpec) -> RunSpec:
    """Keep routing groups whole where a message goes once per server and nothing else is asked.

    The policy is ``keep-groups`` for models with group-limited routing, dispatch ``per_server``
    and a number of servers that divides that of the groups; otherwise `spec` stays as it is.
    """
    table, groups = spec.placement, model(spec.model).n_group
    chosen = table.file is not None or "policy" in table.model_fields_set or table.asked
    if chosen or groups is None or spec.dispatch.mode != "per_server":
        return spec
    servers = find_cluster(spec.cluster).spec.build().servers
    if not 1 < servers <= groups or groups % servers:
        return spec
    kept = table.model_copy(update={"policy": "keep-groups"})
    return spec.model_copy(update={"placement": kept})


def place(spec: PlacementSpec, setting: Setting) -> Choice:
    """Let the policy place, or read the placement file; see that it fits problem and memory."""
    choice = apply_choice(spec, setting) if spec.file is None else _from_file(spec, setting)
    if setting.memory is not None:
        check_memory(choice.placement, setting.model, setting.memory)
    return choice


def _from_file(spec: PlacementSpec, setting: Setting) -> Choice:
    if "policy" in spec.model_fields_set:
        raise ExperimentError("placement: give 'policy' or 'file', not both")
    placement = read_fitting(spec.file or "", setting)
    if spec.layer_slots is not None or spec.server_slots is not None:
        setting.problem.check(placement)
    check_engine(spec, placement)
    return Choice(placement)


def execute(spec: RunSpec) -> RunResult:
    """Run `spec`: place the experts, price the placement, replay the trace through it."""
    return replayed(spec, place_experts(spec))


def place_experts(spec: RunSpec) -> Placed:
    """Run `spec` up to its placement, and price that."""
    setting = prepare(spec)
    begun = time.perf_counter()
    choice = place(spec.placement, setting)
    seconds = time.perf_counter() - begun
    expected = evaluated(choice.placement, setting, spec.placement.replica_rule)
    return Placed(setting, choice, seconds, expected)


def replayed(spec: RunSpec, placed: Placed) -> RunResult:
    """Replay the trace of a run through its placement."""
    return RunResult(
        placed.setting,
        placed.choice,
        placed.place_s,
        placed.expected,
        replay(spec, placed.setting, placed.placement),
    )


@lru_cache(maxsize=8)
def _router(cluster: str, routing: str, seed: int) -> Router:
    built = find_cluster(cluster).spec.build()
    try:
        return Router(built, routing, seed=seed)
    except RoutingError as error:
        raise ExperimentError(f"network.routing: {error}") from None


def _attention(spec: AttentionSpec, shape: MoEModel, cluster: Cluster) -> Attention:
    layout = (shape.layers, cluster.servers, cluster.gpus_per_server)
    if spec.kind == "pipelined":
        return Pipelined(*layout)
    return DataParallel(*layout, tp=spec.tp)


def _memory(spec: RunSpec) -> Memory | None:
    """Return the memory of a GPU; GPUs that hold the same tokens share the attention weights."""
    table = spec.placement
    if table.gpu_memory_gb is None:
        return None
    return Memory(
        gpu_bytes=round(table.gpu_memory_gb * 1e9),
        kv_tokens=table.kv_tokens,
        bytes_per_parameter=table.bytes_per_parameter,
        tp=spec.attention.tp,
    )


def _caps(spec: RunSpec, shape: MoEModel, cluster: Cluster) -> tuple[int | None, int | None]:
    """Caps as given, else the deployment's slots, else None for the study's rule."""
    slots = find_cluster(spec.cluster).slots_per_layer
    layer_slots, server_slots = spec.placement.layer_slots, spec.placement.server_slots
    if slots is None:
        return layer_slots, server_slots
    per_server = slots // cluster.servers
    return layer_slots or per_server, server_slots or per_server * shape.layers
