"""Pools of GPUs that decode or prefill, and what users are promised of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Literal, TypeAlias

from sim.errors import SimulationError

SharedExperts: TypeAlias = Literal["replicated", "routed"]


@dataclass(frozen=True, slots=True)
class DecodePool:
    """GPUs that emit tokens of running requests.

    Attributes
    ----------
    requests_per_gpu
        Sizes the batch: requests in flight over GPUs.
    kv_tokens
        Cached tokens of a request, mean over the requests.
    drafts, accepted
        Tokens of a request guessed beforehand and checked in the step, and how many of them hold
        in the mean. The time of guessing is not counted.
    tp
        Neighbouring GPUs of a server that hold the same tokens and divide the heads.
    shared
        ``replicated``: every GPU computes the shared experts of the tokens it dispatches;
        ``routed``: they are in the slots' tokens.
    """

    phase: ClassVar[str] = "decode"

    requests_per_gpu: int
    kv_tokens: int
    drafts: int = 0
    accepted: float = 0.0
    tp: int = 1
    shared: SharedExperts = "replicated"

    def __post_init__(self) -> None:
        """Refuse what no pool is."""
        _check(self, requests_per_gpu=1, kv_tokens=0, drafts=0, tp=1)
        if not (isfinite(self.accepted) and 0 <= self.accepted <= self.drafts):
            raise SimulationError(
                f"decode pool: {self.accepted} accepted of {self.drafts} drafts; expected 0 to "
                f"{self.drafts}"
            )

    @property
    def tokens_per_request(self) -> int:
        """Tokens of a request in a step: the next one, and the drafts."""
        return 1 + self.drafts

    @property
    def counted_per_request(self) -> float:
        """Tokens of a request and step that throughput counts: emitted ones."""
        return 1 + self.accepted

    def batch_tokens(self, gpus: int) -> int:
        """Tokens of a step on so many GPUs."""
        return gpus * self.requests_per_gpu * self.tokens_per_request


@dataclass(frozen=True, slots=True)
class PrefillPool:
    """GPUs that read prompts, whole or a chunk of each in a step.

    Attributes
    ----------
    requests_per_gpu
        Sizes the batch: prompts of a step over GPUs.
    prompt_tokens
        Tokens of a prompt in a step.
    kv_tokens
        Tokens of a prompt that are cached already: earlier chunks, a known prefix.
    tp, shared
        See `DecodePool`.
    """

    phase: ClassVar[str] = "prefill"

    requests_per_gpu: int
    prompt_tokens: int
    kv_tokens: int = 0
    tp: int = 1
    shared: SharedExperts = "replicated"

    def __post_init__(self) -> None:
        """Refuse what no pool is."""
        _check(self, requests_per_gpu=1, prompt_tokens=1, kv_tokens=0, tp=1)

    @property
    def tokens_per_request(self) -> int:
        """Tokens of a request in a step."""
        return self.prompt_tokens

    @property
    def counted_per_request(self) -> float:
        """Tokens of a request and step that throughput counts: those read."""
        return self.prompt_tokens

    def batch_tokens(self, gpus: int) -> int:
        """Tokens of a step on so many GPUs."""
        return gpus * self.requests_per_gpu * self.prompt_tokens


Pool: TypeAlias = DecodePool | PrefillPool


def tpot_s(pool: DecodePool, step_s: float) -> float:
    """Seconds per output token of a fixed batch: step time over tokens a request gets in it."""
    return step_s / pool.counted_per_request


def throughput_per_gpu(pool: Pool, step_s: float, *, tokens: int, gpus: int) -> float:
    """Tokens per second and GPU of a step of `tokens` tokens: emitted (decode), read (prefill).

    Raises
    ------
    SimulationError
        If the step takes no time.
    """
    if not step_s > 0:
        raise SimulationError(f"throughput of a step of {step_s} s; expected a step above 0 s")
    return tokens / pool.tokens_per_request * pool.counted_per_request / step_s / gpus


def _check(pool: Pool, **least: int) -> None:
    for field, limit in least.items():
        value = getattr(pool, field)
        if value < limit:
            raise SimulationError(
                f"{pool.phase} pool: {field} is {value}; expected at least {limit}"
            )
    if pool.shared not in {"replicated", "routed"}:
        raise SimulationError(
            f"{pool.phase} pool: shared is {pool.shared!r}; expected replicated or routed"
        )
