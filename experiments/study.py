"""The paper's study as a list of runs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from experiments.clusters import STUDY_FILE, find_cluster
from experiments.errors import ExperimentError
from experiments.limits import MAX_LAYER_SLOTS
from experiments.spec import (
    AttentionSpec,
    ChunkBytes,
    Flops,
    NetworkSpec,
    PlacementSpec,
    RunSpec,
    Seed,
    TensorParallel,
    Tokens,
    WorkloadSpec,
)
from experiments.tables import Table, read_toml, resolve
from placement import POLICIES, make_policy
from workloads import WorkloadError, model, read_load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Replay(Table):
    """How every cell is replayed."""

    network: Literal["analytic"]
    routing: Literal["shares", "hash"]
    tokens: Tokens


class PacketReplay(Table):
    """The one column that is also replayed chunk by chunk."""

    model: str
    cluster: str
    tokens: Tokens
    routing: Literal["hash"]
    chunk_bytes: ChunkBytes
    order: Literal["interleaved", "shifted", "destination", "random"]


class DataParallelReplay(Table):
    """The models whose policies are also compared under data-parallel attention."""

    models: list[str]
    tp: TensorParallel


class Study(Table):
    """Models x clusters x policies, and how they are replayed; `paper.toml` explains the keys."""

    models: list[str] = Field(min_length=1)
    clusters: list[str] = Field(min_length=1)
    policies: list[str] = Field(min_length=1)
    seed: Seed
    profile_tokens: Tokens
    layer_slots_factor: int = Field(ge=1, le=MAX_LAYER_SLOTS)
    expert_flops: Flops
    replay: Replay
    packet: PacketReplay
    data_parallel: DataParallelReplay
    cluster: dict[str, Any]
    load: str | None = None


def read_study(path: Path = STUDY_FILE) -> Study:
    """Read the study's file.

    Raises
    ------
    ExperimentError
        If a key is unknown, missing or of the wrong type.
    """
    return resolve(Study, read_toml(path), path.name)


def with_load(study: Study, load: Path) -> Study:
    """Return the study of the one model whose shape fits a file of recorded loads.

    Raises
    ------
    WorkloadError
        If the file fits none of the study's models; the message says what each expected.
    """
    refused: dict[str, list[str]] = {}
    for name in study.models:
        try:
            read_load(load, model(name)).profile()
        except WorkloadError as error:
            refused.setdefault(str(error).removeprefix(f"{load}: "), []).append(name)
        else:
            return study.model_copy(
                update={
                    "models": [name],
                    "load": str(load),
                    "packet": study.packet.model_copy(update={"model": name}),
                    "data_parallel": study.data_parallel.model_copy(update={"models": [name]}),
                }
            )
    reasons = (f"{' and '.join(names)}: {why}" for why, names in refused.items())
    raise WorkloadError(f"{load} fits no model of the study; {'; '.join(reasons)}")


def with_policies(study: Study, own: Sequence[str]) -> Study:
    """Return the study with policies of the user's own beside its own.

    Raises
    ------
    ExperimentError, PlacementError
        If one cannot be made, has a name that tables cannot show, or one that another has.
    """
    study = study.model_copy(update={"policies": [*study.policies, *own]})
    names = policy_names(study)
    for at, name in enumerate(names):
        if not name.strip() or not name.isprintable() or "|" in name:
            raise ExperimentError(
                f"policy '{study.policies[at]}': its name is {name!r}; expected printable text "
                "on one line without '|'"
            )
        if name in names[:at] or (name in POLICIES and study.policies[at] != name):
            raise ExperimentError(
                f"policy '{study.policies[at]}': another policy is called {name!r} already; "
                f"taken are {', '.join(dict.fromkeys([*POLICIES, *names[:at]]))}"
            )
    return study


def policy_names(study: Study) -> list[str]:
    """Return what tables call the study's policies, in its order."""
    return [make_policy(policy).name for policy in study.policies]


def runs(study: Study) -> list[RunSpec]:
    """Every run of the study: all cells, then the packet column, then data-parallel attention."""
    cells = [
        _run(study, name, cluster, policy)
        for name in study.models
        for cluster in study.clusters
        for policy in study.policies
    ]
    packet = [
        _packet(study, _run(study, study.packet.model, study.packet.cluster, policy))
        for policy in study.policies
        if study.packet.model in study.models
    ]
    attention = AttentionSpec(kind="data-parallel", tp=study.data_parallel.tp)
    data_parallel = [
        _run(study, name, cluster, policy).model_copy(update={"attention": attention})
        for name in study.data_parallel.models
        for cluster in study.clusters
        for policy in study.policies
        if name in study.models
    ]
    return cells + packet + data_parallel


def _run(study: Study, model_name: str, cluster: str, policy: str) -> RunSpec:
    shape, servers = model(model_name), _servers(cluster)
    return RunSpec(
        model=model_name,
        cluster=cluster,
        tokens=study.replay.tokens,
        expert_flops=study.expert_flops,
        workload=WorkloadSpec(
            seed=study.seed, profile_tokens=study.profile_tokens, load=study.load
        ),
        attention=AttentionSpec(kind="pipelined"),
        placement=PlacementSpec(
            policy=policy,
            layer_slots=-(-study.layer_slots_factor * shape.experts // servers),
            server_slots=-(-shape.layers * shape.experts // servers),
        ),
        network=NetworkSpec(kind=study.replay.network, routing=study.replay.routing),
    )


def _packet(study: Study, run: RunSpec) -> RunSpec:
    network = NetworkSpec(
        kind="packet",
        routing=study.packet.routing,
        seed=study.seed,
        chunk_bytes=study.packet.chunk_bytes,
        order=study.packet.order,
    )
    return run.model_copy(update={"tokens": study.packet.tokens, "network": network})


@cache
def _servers(cluster: str) -> int:
    return find_cluster(cluster).spec.build().servers
