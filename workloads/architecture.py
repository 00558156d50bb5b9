"""What surrounds the routed experts of a model, and in which number formats it is stored.

Only weight matrices are counted: norms, biases and correction terms are below 0.1 % of every model
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

from workloads.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434); names as in ``config.json``.

    Attributes
    ----------
    heads
        num_attention_heads.
    q_rank
        q_lora_rank; None projects queries straight from the hidden state.
    kv_rank, rope
        kv_lora_rank and qk_rope_head_dim: what a token leaves in the cache of a layer.
    nope, value
        qk_nope_head_dim and v_head_dim, per head.
    """

    heads: int
    q_rank: int | None
    kv_rank: int = 512
    rope: int = 64
    nope: int = 128
    value: int = 128

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        _at_least_one(self, "heads", "kv_rank", "rope", "nope", "value")
        if self.q_rank is not None:
            _at_least_one(self, "q_rank")

    def parameters(self, hidden: int, tp: int = 1) -> int:
        """Weights of a layer on one of `tp` ranks.

        The heads' projections divide by `tp`; those down to the latent vectors stay whole.
        """
        heads = _heads_of_rank(self.heads, tp)
        latent = hidden * ((self.q_rank or 0) + self.kv_rank + self.rope)
        query = (self.q_rank or hidden) * (self.nope + self.rope)
        key_value = self.kv_rank * (self.nope + self.value)
        return latent + heads * (query + key_value + self.value * hidden)

    def cached_numbers(self, tp: int = 1) -> int:
        """Numbers a token leaves in a layer's cache on a rank; the latent vector never divides."""
        _heads_of_rank(self.heads, tp)
        return self.kv_rank + self.rope


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """Grouped-query attention; multi-head attention where `kv_heads` equals `heads`.

    Sliding windows are not credited: every layer is taken to cache every token.

    Attributes
    ----------
    heads, kv_heads, head
        num_attention_heads, num_key_value_heads and head_dim of ``config.json``.
    """

    heads: int
    kv_heads: int
    head: int

    def __post_init__(self) -> None:
        """Refuse widths below 1 and heads that do not share evenly."""
        _at_least_one(self, "heads", "kv_heads", "head")
        if self.heads % self.kv_heads:
            raise WorkloadError(
                f"attention: {self.heads} heads do not divide by {self.kv_heads} KV heads"
            )

    def parameters(self, hidden: int, tp: int = 1) -> int:
        """Weights of a layer on one of `tp` ranks; a rank holds at least one KV head."""
        heads = _heads_of_rank(self.heads, tp)
        return 2 * hidden * self.head * (heads + self._kv_heads(tp))

    def cached_numbers(self, tp: int = 1) -> int:
        """Numbers a token leaves in a layer's cache on a rank: keys and values."""
        _heads_of_rank(self.heads, tp)
        return 2 * self.head * self._kv_heads(tp)

    def _kv_heads(self, tp: int) -> int:
        return -(-self.kv_heads // tp)


Attention: TypeAlias = LatentAttention | GroupedAttention


@dataclass(frozen=True, slots=True)
class Architecture:
    """What every rank holds besides routed experts is counted from this.

    Attributes
    ----------
    attention
        Of every layer.
    vocabulary
        Rows of the embedding and of the head (vocab_size).
    dense_intermediate
        Width of the feed-forward of dense layers; None where there are none.
    tied
        The head is the embedding.
    """

    attention: Attention
    vocabulary: int
    dense_intermediate: int | None = None
    tied: bool = False

    def __post_init__(self) -> None:
        """Refuse widths below 1."""
        _at_least_one(self, "vocabulary")
        if self.dense_intermediate is not None:
            _at_least_one(self, "dense_intermediate")


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of a weight, scales included.

    Attributes
    ----------
    experts
        Of the routed experts.
    linear
        Of attention, dense layers and shared experts.
    other
        Of embedding, head and routers.
    """

    experts: float
    linear: float
    other: float = 2.0

    def __post_init__(self) -> None:
        """Refuse sizes that are no positive number."""
        for what in ("experts", "linear", "other"):
            size = getattr(self, what)
            if not (isfinite(size) and size > 0):
                raise WorkloadError(
                    f"storage: bytes per parameter of {what} is {size}, expected a finite number "
                    "above 0"
                )


BF16 = Storage(2.0, 2.0)
FP8_BLOCKS = Storage(1 + 4 / 128**2, 1 + 4 / 128**2)
"""FP8 with a 4-byte scale per block of 128 x 128 (weight_block_size of DeepSeek-V3)."""
MXFP4_EXPERTS = Storage(0.5 + 1 / 32, 2.0)
"""4-bit experts with a 1-byte scale per 32 numbers (OCP MX), the rest in BF16 (gpt-oss)."""


@dataclass(frozen=True, slots=True)
class ResidentParameters:
    """Weights a rank holds besides routed experts, in parameters.

    Attributes
    ----------
    attention
        Of all layers, MTP layers included where they are loaded.
    dense
        Feed-forward of dense layers, and what joins state and embedding in front of MTP layers.
    shared_experts, routers
        Of all MoE layers.
    embeddings
        Embedding and head.
    """

    attention: int
    dense: int
    shared_experts: int
    routers: int
    embeddings: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.attention + self.dense + self.shared_experts + self.routers + self.embeddings


def _at_least_one(shape: object, *fields: str) -> None:
    for field in fields:
        value = getattr(shape, field)
        if value < 1:
            raise WorkloadError(f"architecture: {field} is {value}, expected at least 1")


def _heads_of_rank(heads: int, tp: int) -> int:
    if tp < 1 or heads % tp:
        raise WorkloadError(
            f"attention: tp {tp} does not divide {heads} heads; expected a divisor of {heads}"
        )
    return heads // tp
