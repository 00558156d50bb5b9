"""One run, resolved: everything that decides its result."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from experiments.clusters import files_of
from experiments.combine import ALWAYS, engine_rule, refusal, rule_refusal
from experiments.limits import (
    MAX_BETA,
    MAX_BYTES_PER_PARAMETER,
    MAX_CHUNK_BYTES,
    MAX_FLATTEN,
    MAX_FLOPS,
    MAX_GB,
    MAX_LAYER_SLOTS,
    MAX_MOVES,
    MAX_PRICE,
    MAX_REDUNDANT,
    MAX_SECONDS,
    MAX_SEED,
    MAX_SERVER_SLOTS,
    MAX_STEPS,
    MAX_TOKENS,
    MAX_TP,
    MAX_Z,
    MIN_FLOPS,
)
from experiments.step_spec import DispatchSpec, FaultSpec, ReplicaRuleName, StepSpec
from experiments.tables import Table
from workloads import config_file, is_config_path


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
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=MAX_SECONDS)]


def _steps(value: object) -> object:
    if value == "exact" or (type(value) is int and 1 <= value <= MAX_STEPS):
        return value
    raise ValueError(f'expected "exact" or a whole number from 1 to {MAX_STEPS}, got {value!r}')


Steps: TypeAlias = Annotated[int | Literal["exact"], BeforeValidator(_steps)]


def _as_tuple(value: object) -> object:
    """Take a list, as TOML and the command line give it, the latter None for an empty one."""
    return tuple(value or ()) if isinstance(value, list | None) else value


def _as_number(value: object) -> object:
    """Read a number that comes as text, as from the command line."""
    if isinstance(value, str) and value not in ("mean", "worst"):
        try:
            return float(value)
        except ValueError:
            return math.nan
    return value


def _robust(value: object) -> object:
    if value in ("mean", "worst") or (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_Z
    ):
        return value
    raise ValueError(f"expected mean, worst, or a number of deviations from 0 to {MAX_Z:g}")


Robust: TypeAlias = Annotated[
    Literal["mean", "worst"] | float, BeforeValidator(_robust), BeforeValidator(_as_number)
]


class WorkloadSpec(Table):
    """What is routed: synthetic, R1-like or from a file, or recorded loads, or a recorded trace.

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
        File of recorded choices (npz), or a stored trace (a folder): even sequences make the
        profile, odd ones are judged.
    file
        Workload file (.toml, .json), as `topomoe fit` writes it: synthetic, but with its loads
        and topics.
    """

    seed: Seed = 0
    profile_tokens: Tokens = 16384
    load: FileName | None = None
    judge: FileName | None = None
    trace: FileName | None = None
    file: FileName | None = None

    @model_validator(mode="after")
    def _one_source(self) -> WorkloadSpec:
        if self.file is not None and (self.load is not None or self.trace is not None):
            raise ValueError("give 'file', or 'load', or 'trace', not several")
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
    """Where the experts go: a policy with its options, or a placement file.

    `experiments.combine` says which options go with which policy and with each other.

    Attributes
    ----------
    policy
        Built-in name or ``package.module:Class``.
    file
        A placement file instead of a policy.
    layer_slots, server_slots
        C_layer and C_exp; by default the preset's slots, else ``ceil(2E/S)`` and
        ``ceil(LE/S)``.
    beta, beta_scope
        Most load of a layer on a ``server`` (or ``gpu``) over the mean. For least-copies the
        scope also says what a copy goes to.
    beta_relax, beta_price
        A layer that cannot meet beta gets the least cap found; or load above the cap is not
        forbidden but costs so many hops (copies) per token and layer for one mean load.
    redundant, replica_rule
        Slots of a layer beyond one per expert, and the rule by which tokens take replicas, by
        default the engine's: what is placed is judged under it.
    previous, max_moves, move_price, move_price_gb
        From the placement in the file `previous`: at most so many experts move, or each move
        saves so many hops (copies) per token and layer, for itself or for each 1e9 bytes moved.
    keep_groups
        Fewest hops with every routing group on one server, or a fixed run of servers.
    hop_weighted
        A copy counts the hops to its place, instead of 1.
    domains, robust, flatten
        Training traces of several kinds of traffic (the even sequences of each) instead of the
        run's own; how they count together: ``mean``, ``worst``, or z for mean + z x deviation;
        and how far tokens of hot experts are weighed down, 0 to 1 and more.
    links
        Whose busiest link counts: ``all``, or the ``fabric``'s alone.
    step_tokens, slot_seconds, token_seconds, link_byte_seconds
        For least-seconds: tokens of a step, of all GPUs together (by default those of the run),
        and the seconds of reading a slot, of a token in an expert, and of a byte on a link (by
        default as `experiments.costs.step_prices` derives them).
    spread
        Deal every server's experts to its GPUs anew, the busiest GPU as light as possible.
    gpu_memory_gb, kv_tokens
        Memory of a GPU, in units of 1e9 bytes, and the tokens whose KV cache it is to hold:
        expert slots take what is left beside these and all other weights.
    bytes_per_parameter
        Of the experts' weights, 1 for FP8, 2 for BF16; by default the model's own, scales
        included.
    time_limit, search_seed
        Wall seconds for the policy, and the seed of its searches.
    engine
        Serving engine that is to load the placement.
    """

    policy: str = "ilp-load"
    file: FileName | None = None
    layer_slots: int | None = Field(default=None, ge=1, le=MAX_LAYER_SLOTS)
    server_slots: int | None = Field(default=None, ge=1, le=MAX_SERVER_SLOTS)
    beta: float | None = Field(default=None, ge=1, le=MAX_BETA)
    beta_relax: bool = False
    beta_price: float | None = Field(default=None, ge=0, le=MAX_PRICE)
    beta_scope: Literal["server", "gpu"] = "server"
    redundant: int | None = Field(default=None, ge=0, le=MAX_REDUNDANT)
    replica_rule: ReplicaRuleName = "equal"
    previous: FileName | None = None
    max_moves: int | None = Field(default=None, ge=0, le=MAX_MOVES)
    move_price: float | None = Field(default=None, ge=0, le=MAX_PRICE)
    move_price_gb: float | None = Field(default=None, ge=0, le=MAX_PRICE)
    keep_groups: bool = False
    hop_weighted: bool = False
    domains: Annotated[tuple[FileName, ...], BeforeValidator(_as_tuple)] = ()
    robust: Robust = "mean"
    flatten: float = Field(default=0.0, ge=0, le=MAX_FLATTEN)
    links: Literal["all", "fabric"] = "all"
    step_tokens: Tokens | None = None
    slot_seconds: Seconds | None = None
    token_seconds: Seconds | None = None
    link_byte_seconds: Seconds | None = None
    spread: bool = False
    gpu_memory_gb: float | None = Field(default=None, gt=0, le=MAX_GB)
    kv_tokens: int = Field(default=0, ge=0, le=MAX_TOKENS)
    bytes_per_parameter: float | None = Field(default=None, gt=0, le=MAX_BYTES_PER_PARAMETER)
    time_limit: float | None = Field(default=None, gt=0, le=MAX_SECONDS)
    search_seed: Seed = 0
    engine: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _rule_of_the_engine(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("replica_rule") is not None:
            return content
        return {**content, "replica_rule": engine_rule(content.get("engine"))}

    @model_validator(mode="after")
    def _one_problem(self) -> PlacementSpec:
        asked, why = self.asked, rule_refusal(self.engine, self.replica_rule)
        if why is not None:
            raise ValueError(why)
        if self.file is not None:
            new = [option for option in asked if option not in ALWAYS]
            if new:
                raise ValueError(f"'{new[0]}' asks for a new placement; give it or 'file'")
            return self
        why = refusal(self.policy, asked)
        if why is not None:
            raise ValueError(why)
        return self

    @property
    def asked(self) -> list[str]:
        """Options given other than by default."""
        fields = type(self).model_fields
        options = [name for name in fields if name not in ("policy", "file")]
        return [name for name in options if getattr(self, name) != fields[name].default]


class NetworkSpec(Table):
    """How messages cross the links.

    Attributes
    ----------
    kind
        ``analytic``, ``fluid`` or ``packet``.
    routing
        ``shares`` (equal ECMP split, not on packet), or one path a flow: ``hash`` (seeded),
        ``dmodk`` (fat-trees), ``minimal``, ``valiant`` and ``ugal`` (dragonflies); see
        `topologies.Router`. By default ``hash`` on packet, ``shares`` elsewhere.
    seed
        Of the path hash and of the issue order ``random``.
    steps
        Fluid only: how often rates are computed, see `sim.FluidNetwork`; ``exact`` whenever a
        flow joins or ends.
    chunk_bytes, order
        Packet only: size of a chunk and the order a source issues its messages in.
    """

    kind: Literal["analytic", "fluid", "packet"] = "analytic"
    routing: Literal["shares", "hash", "dmodk", "minimal", "valiant", "ugal"] = "shares"
    seed: Seed = 0
    steps: Steps = 100
    chunk_bytes: ChunkBytes = 4096
    order: Literal["interleaved", "shifted", "destination", "random"] = "interleaved"

    @model_validator(mode="before")
    @classmethod
    def _packet_hashes(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") == "packet":
            return {"routing": "hash"} | data
        return data

    @model_validator(mode="after")
    def _single_path(self) -> NetworkSpec:
        if self.kind == "packet" and self.routing == "shares":
            raise ValueError(
                "the packet network sends a chunk over one path and cannot split it as 'shares' "
                'does; set routing = "hash"'
            )
        if self.kind != "fluid" and self.steps != type(self).model_fields["steps"].default:
            raise ValueError(f'\'steps\' goes with kind "fluid", not "{self.kind}"')
        return self


class RunSpec(Table):
    """A run: a batch of tokens through one placement on one cluster, in one step.

    Attributes
    ----------
    model
        Preset name, or the path of a Hugging Face ``config.json`` or of its folder.
    cluster
        Name of a study cluster or preset, or a cluster file.
    tokens
        Tokens of the judged trace that are replayed; by default 4096, or what a recorded trace
        holds if that is less.
    expert_flops
        Floating-point operations per second a GPU computes experts at.
    faults
        What fails during the step, ascending by time.
    """

    model: FileName = "DeepSeek-R1"
    cluster: FileName
    tokens: Tokens | None = None
    expert_flops: Flops = 1e15
    workload: WorkloadSpec = WorkloadSpec()
    attention: AttentionSpec = AttentionSpec()
    placement: PlacementSpec = PlacementSpec()
    network: NetworkSpec = NetworkSpec()
    dispatch: DispatchSpec = DispatchSpec()
    step: StepSpec = StepSpec()
    faults: Annotated[tuple[FaultSpec, ...], BeforeValidator(_as_tuple)] = ()


def input_files(spec: RunSpec) -> list[str | None]:
    """Return the files a run reads, None for those it does without."""
    model = str(config_file(spec.model)) if is_config_path(spec.model) else None
    work, placement = spec.workload, spec.placement
    files = (work.load, work.judge, work.trace, work.file, placement.file, placement.previous)
    return [*files_of(spec.cluster), model, *files, *placement.domains]
