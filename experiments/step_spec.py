"""How GPUs talk and compute in a step, as run files say it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from experiments.limits import (
    MAX_GPU,
    MAX_MICRO_BATCHES,
    MAX_SECONDS,
    MAX_SEED,
    MAX_TOKENS,
    MIN_SPEED,
)
from experiments.tables import Table

ReplicaRuleName: TypeAlias = Literal[
    "equal", "nearest", "lp", "sglang_static", "sglang_dynamic", "vllm_modulo"
]
_Count: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
_Positive: TypeAlias = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


def _as_tuple(value: object) -> object:
    """Take the list that TOML gives."""
    return tuple(value) if isinstance(value, list) else value


class DispatchSpec(Table):
    """What a token sends.

    Attributes
    ----------
    mode
        A message per expert (``per_expert``), per distinct GPU (``per_gpu``), per distinct server
        and then inside it (``per_server``), or to all GPUs (``allgather``).
    replica_rule
        By which tokens take replicas in the replay; by default that of ``[placement]``.
    shared
        Shared experts: ``replicated``, without traffic; or ``routed``, a choice more.
    shared_gpus
        With ``routed``: GPUs that hold a copy of every shared expert; by default one of every
        server in turn.
    lost_experts
        Experts without a living replica where a GPU dies: ``refuse`` the run, or ``drop`` what
        tokens ask of them and count it.
    seed
        Of the replica rules' turns and random choices.
    """

    mode: Literal["per_expert", "per_gpu", "per_server", "allgather"] = "per_expert"
    replica_rule: ReplicaRuleName | None = None
    shared: Literal["replicated", "routed"] = "replicated"
    shared_gpus: Annotated[
        tuple[Annotated[int, Field(ge=0, le=MAX_GPU)], ...] | None, BeforeValidator(_as_tuple)
    ] = None
    lost_experts: Literal["refuse", "drop"] = "refuse"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0

    @model_validator(mode="after")
    def _shared(self) -> DispatchSpec:
        if self.shared_gpus is not None and self.shared != "routed":
            raise ValueError("'shared_gpus' goes with shared = \"routed\"")
        return self


class StepSpec(Table):
    """What GPUs compute in a step, and for whom.

    Attributes
    ----------
    gpu
        Preset whose rates time attention, experts and head. By default every choice takes the
        same time, by `RunSpec.expert_flops`, and attention none.
    phase
        ``decode`` or ``prefill``: separate pools, a run each.
    requests_per_gpu
        Sizes the batch, in place of `RunSpec.tokens`.
    kv_tokens
        Cached tokens of a request: mean over requests when decoding, those of earlier chunks
        when reading prompts.
    prompt_tokens
        Prefill only: tokens of a prompt in the step.
    drafts, accepted
        Decode only: tokens of a request guessed and checked in the step, and how many of them
        hold in the mean.
    micro_batches
        Parts of the batch that overlap: some compute while others communicate.
    overlap
        What a GPU of several parts does next: what is ``ready``; or the parts take ``turns``, as
        SGLang decodes two (`sim.turns`).
    """

    gpu: Literal["H800", "H100", "H200", "B200"] | None = None
    phase: Literal["decode", "prefill"] = "decode"
    requests_per_gpu: _Positive | None = None
    kv_tokens: _Count = 0
    prompt_tokens: _Positive | None = None
    drafts: Annotated[int, Field(ge=0, le=1024)] = 0
    accepted: Annotated[float, Field(ge=0, le=1024)] = 0.0
    micro_batches: Annotated[int, Field(ge=1, le=MAX_MICRO_BATCHES)] = 1
    overlap: Literal["ready", "turns"] = "ready"

    @model_validator(mode="after")
    def _one_pool(self) -> StepSpec:
        fields = type(self).model_fields
        asked = [name for name in fields if getattr(self, name) != fields[name].default]
        idle = [name for name in asked if name not in ("gpu", "micro_batches", "overlap")]
        if self.gpu is None and idle:
            raise ValueError(f"'{idle[0]}' goes with 'gpu', whose rates it needs")
        if self.overlap != "ready" and self.micro_batches == 1:
            raise ValueError("'overlap' goes with 'micro_batches' of 2 or more")
        other = ("prompt_tokens",) if self.phase == "decode" else ("drafts", "accepted")
        wrong = [name for name in other if name in asked]
        if wrong:
            raise ValueError(f"'{wrong[0]}' does not go with phase '{self.phase}'")
        if self.phase == "prefill" and self.prompt_tokens is None:
            raise ValueError("phase 'prefill' needs 'prompt_tokens'")
        if self.accepted > self.drafts:
            raise ValueError(f"accepted is {self.accepted}; expected at most {self.drafts} drafts")
        return self

    @property
    def tokens_per_request(self) -> int:
        """Tokens of a request in a step."""
        return self.prompt_tokens or 1 + self.drafts


def _link(value: object) -> object:
    """Take a number, two ends in text, or the list that TOML gives for a pair."""
    if isinstance(value, list | tuple) and [type(end) for end in value] == [int, int]:
        return tuple(value)
    if value is None or type(value) is int or isinstance(value, str):
        return value
    raise ValueError(f'expected a number, "src->dst" or [src, dst], got {value!r}')


_Link: TypeAlias = Annotated[int | str | tuple[int, int] | None, BeforeValidator(_link)]


class FaultSpec(Table):
    """A link or a GPU that changes, and stays so until the next fault of it.

    Attributes
    ----------
    at_s
        Seconds from the start of the step.
    link
        Number of a directed link, or its ends: ``"src->dst"`` or ``[src, dst]``, as
        `sim.link_names.link_number` reads them.
    gpu
        Number of a GPU; dead or back. Layers whose dispatch is issued later do without it, or with
        it; see `sim.faults`.
    slow, dead, back
        What becomes of it: a link works at a share of its bandwidth; it dies; it works as built.
    """

    at_s: Annotated[float, Field(ge=0, le=MAX_SECONDS)]
    link: _Link = None
    gpu: Annotated[int, Field(ge=0)] | None = None
    slow: Annotated[float, Field(ge=MIN_SPEED, lt=1)] | None = None
    dead: bool = False
    back: bool = False

    @model_validator(mode="after")
    def _one_change(self) -> FaultSpec:
        if (self.link is None) == (self.gpu is None):
            raise ValueError("a fault is of one 'link' or one 'gpu'")
        if (self.slow is not None) + self.dead + self.back != 1:
            raise ValueError("give one of slow = SHARE, dead = true or back = true")
        if self.gpu is not None and self.slow is not None:
            raise ValueError("'slow' goes with 'link'; a GPU is dead or back")
        return self

    @property
    def speed(self) -> float:
        """0 when dead, 1 when back."""
        return float(self.back) if self.slow is None else self.slow
