"""One run, resolved: everything that decides its result."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from experiments.limits import (
    MAX_BETA,
    MAX_CHUNK_BYTES,
    MAX_FLOPS,
    MAX_LAYER_SLOTS,
    MAX_MOVES,
    MAX_REDUNDANT,
    MAX_SEED,
    MAX_SERVER_SLOTS,
    MAX_TOKENS,
    MAX_TP,
    MIN_FLOPS,
)
from experiments.tables import Table

REPLICATING = ("eplb", "eplb-auto", "hottest", "replicated")

CAPPED = ("ilp-load", "least-copies")
"""Policies that take a cap on the load."""
"""Policies that take redundant slots."""


def _text_of_path(value: object) -> object:
    return str(value) if isinstance(value, PurePath) else value


def _possible_path(value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{value!r} holds a NUL character; expected the path of a file")
    return value


FileName: TypeAlias = Annotated[str, BeforeValidator(_text_of_path), AfterValidator(_possible_path)]
Tokens: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SEED)]
ChunkBytes: TypeAlias = Annotated[int, Field(ge=1, le=MAX_CHUNK_BYTES)]
TensorParallel: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TP)]
Flops: TypeAlias = Annotated[float, Field(ge=MIN_FLOPS, le=MAX_FLOPS)]
"""Floating-point operations per second."""


class WorkloadSpec(Table):
    """What is routed: synthetic by default, or recorded loads, or a recorded trace.

    Attributes
    ----------
    seed
        Of the synthetic popularity, the profile and the judged trace; of the trace drawn from
        `load`.
    profile_tokens
        Tokens counted into the profile that policies see (synthetic only).
    load
        File of recorded loads (``logical_count`` JSON): the profile.
    judge
        File of recorded loads the judged trace is drawn from; by default those of `load`, so
        that the placement is judged on the very loads it was fitted to.
    trace
        File of recorded choices (npz): even sequences make the profile, odd ones are judged.
    """

    seed: Seed = 0
    profile_tokens: Tokens = 16384
    load: FileName | None = None
    judge: FileName | None = None
    trace: FileName | None = None

    @model_validator(mode="after")
    def _one_source(self) -> WorkloadSpec:
        if self.load is not None and self.trace is not None:
            raise ValueError("give 'load' or 'trace', not both")
        if self.judge is not None and self.load is None:
            raise ValueError("'judge' goes with 'load', the loads to fit on")
        return self


class AttentionSpec(Table):
    """Where tokens start and end.

    Attributes
    ----------
    kind
        ``pipelined`` (the paper's) or ``data-parallel`` (what engines run).
    tp
        Neighbouring GPUs that hold the same tokens (data-parallel only).
    """

    kind: Literal["pipelined", "data-parallel"] = "data-parallel"
    tp: TensorParallel = 1


class PlacementSpec(Table):
    """Where the experts go: a policy with its caps, or a placement file.

    Attributes
    ----------
    policy
        Built-in name or ``package.module:Class``.
    file
        A placement file instead of a policy.
    layer_slots, server_slots
        C_layer and C_exp; by default the preset's slots, else ``ceil(2E/S)`` and
        ``ceil(LE/S)``.
    beta, beta_relax, beta_scope
        Fewest hops (least-copies: fewest copies) with the load of a layer on a server (or GPU)
        at most `beta` x the mean; relaxed where a layer cannot meet that.
    previous, max_moves, move_price
        Fewest hops from the placement in the file `previous`: at most so many experts change
        their server, or each saves so many hops per token and layer.
    keep_groups
        Fewest hops with every routing group on one server, or a fixed run of servers.
    redundant
        Slots of a layer beyond one per expert, for the policies that replicate.
    engine
        Serving engine that is to load the placement.
    """

    policy: str = "ilp-load"
    file: FileName | None = None
    layer_slots: int | None = Field(default=None, ge=1, le=MAX_LAYER_SLOTS)
    server_slots: int | None = Field(default=None, ge=1, le=MAX_SERVER_SLOTS)
    beta: float | None = Field(default=None, ge=1, le=MAX_BETA)
    beta_relax: bool = False
    beta_scope: Literal["server", "gpu"] = "server"
    previous: FileName | None = None
    max_moves: int | None = Field(default=None, ge=0, le=MAX_MOVES)
    move_price: float | None = Field(default=None, ge=0)
    keep_groups: bool = False
    redundant: int = Field(default=0, ge=0, le=MAX_REDUNDANT)
    engine: str | None = None

    @model_validator(mode="after")
    def _one_problem(self) -> PlacementSpec:
        variants = {"beta": self.beta, "previous": self.previous, "keep_groups": self.keep_groups}
        asked = [name for name, value in variants.items() if value not in (None, False)]
        if len(asked) > 1:
            raise ValueError(f"'{asked[0]}' and '{asked[1]}' do not combine; give one of them")
        if asked and self.file is not None:
            raise ValueError(f"'{asked[0]}' asks for a new placement; give it or 'file'")
        if asked and self.policy not in (CAPPED if asked == ["beta"] else ("ilp-load",)):
            raise ValueError(f"'{asked[0]}' goes with policy 'ilp-load', not '{self.policy}'")
        return self

    @model_validator(mode="after")
    def _options_of_options(self) -> PlacementSpec:
        if self.beta is None and (self.beta_relax or self.beta_scope != "server"):
            raise ValueError("'beta_relax' and 'beta_scope' go with 'beta'")
        if self.previous is None and (self.max_moves, self.move_price) != (None, None):
            raise ValueError("'max_moves' and 'move_price' go with 'previous'")
        if self.max_moves is not None and self.move_price is not None:
            raise ValueError("give 'max_moves' or 'move_price', not both")
        if self.redundant and self.policy not in REPLICATING:
            raise ValueError(f"'redundant' goes with policy {', '.join(REPLICATING)}")
        return self


class NetworkSpec(Table):
    """How messages cross the links.

    Attributes
    ----------
    kind
        ``analytic`` or ``packet``.
    routing
        ``shares`` (equal ECMP split, analytic only) or ``hash`` (one seeded path a flow).
    seed
        Of the path hash and of the issue order ``random``.
    chunk_bytes, order
        Packet only: size of a chunk and the order a source issues its messages in.
    """

    kind: Literal["analytic", "packet"] = "analytic"
    routing: Literal["shares", "hash"] = "shares"
    seed: Seed = 0
    chunk_bytes: ChunkBytes = 4096
    order: Literal["interleaved", "shifted", "destination", "random"] = "interleaved"

    @model_validator(mode="after")
    def _single_path(self) -> NetworkSpec:
        if self.kind == "packet" and self.routing == "shares":
            raise ValueError(
                "the packet network sends a chunk over one path and cannot split it as 'shares' "
                'does; set routing = "hash"'
            )
        return self


class RunSpec(Table):
    """A run: a batch of tokens through one placement on one cluster, in one step.

    Attributes
    ----------
    model
        Preset name.
    cluster
        Name of a study cluster or preset, or a cluster file.
    tokens
        Tokens of the judged trace that are replayed; by default 4096, or what a recorded trace
        holds if that is less.
    expert_flops
        Floating-point operations per second a GPU computes experts at.
    """

    model: str = "DeepSeek-R1"
    cluster: FileName
    tokens: Tokens | None = None
    expert_flops: Flops = 1e15
    workload: WorkloadSpec = WorkloadSpec()
    attention: AttentionSpec = AttentionSpec()
    placement: PlacementSpec = PlacementSpec()
    network: NetworkSpec = NetworkSpec()


def input_files(spec: RunSpec) -> list[str | None]:
    """Return the files a run reads, None for those it does without."""
    cluster = spec.cluster if spec.cluster.endswith(".toml") else None
    work, placement = spec.workload, spec.placement
    return [cluster, work.load, work.judge, work.trace, placement.file, placement.previous]
