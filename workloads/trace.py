"""A routing trace: which experts every token chose in every MoE layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads._arrays import frozen
from workloads.errors import WorkloadError
from workloads.model import MAX_EXPERTS

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class RoutingTrace:
    """Top-k choices of a batch of tokens.

    Integer arrays of any width are taken; they are checked first and narrowed afterwards, so an
    id that does not fit is an error and never another expert.

    Attributes
    ----------
    topk
        uint8 (up to 256 experts) or uint16 [tokens, layers, k]: logical expert ids, in the
        router's order where it is known, no expert twice in a token and layer. Read-only.
    experts
        Routed experts of a layer.
    seq_lens
        int32 [sequences], each at least 1, summing to tokens. Read-only.
    source
        Where the trace comes from, for captions and manifests.
    """

    topk: NDArray[np.uint8] | NDArray[np.uint16]
    experts: int
    seq_lens: NDArray[np.int32]
    source: str

    def __post_init__(self) -> None:
        """Check ids and lengths, then narrow and freeze them."""
        if not 1 <= self.experts <= MAX_EXPERTS:
            raise WorkloadError(f"trace: {self.experts} experts, expected 1..{MAX_EXPERTS}")
        topk, seq_lens = np.asarray(self.topk), np.asarray(self.seq_lens)
        _check_ids(topk, self.experts)
        narrow = np.uint8 if self.experts <= 1 << 8 else np.uint16
        object.__setattr__(self, "topk", frozen(topk, narrow))
        _check_distinct(self.topk)
        _check_lengths(seq_lens, self.tokens)
        object.__setattr__(self, "seq_lens", frozen(seq_lens, np.int32))

    @property
    def tokens(self) -> int:
        """Tokens of the trace."""
        return int(self.topk.shape[0])

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.topk.shape[1])

    @property
    def top_k(self) -> int:
        """Choices of a token in a layer."""
        return int(self.topk.shape[2])

    def head(self, tokens: int) -> RoutingTrace:
        """Return the first `tokens` tokens (a view); the last sequence may be cut.

        Raises
        ------
        WorkloadError
            Fewer than one token asked for, or more than there are.
        """
        if not 1 <= tokens <= self.tokens:
            raise WorkloadError(f"cannot take {tokens} tokens of a trace of {self.tokens}")
        ends = np.minimum(np.cumsum(self.seq_lens, dtype=np.int64), tokens)
        lengths = np.diff(ends, prepend=0)
        return RoutingTrace(
            topk=self.topk[:tokens],
            experts=self.experts,
            seq_lens=lengths[lengths > 0].astype(np.int32),
            source=self.source,
        )


def _check_ids(topk: NDArray[Any], experts: int) -> None:
    if topk.ndim != 3 or 0 in topk.shape or topk.dtype.kind not in "iu":
        raise WorkloadError(
            "trace: expected integer ids [tokens, layers, k], none of them 0, "
            f"got {topk.dtype} {topk.shape}"
        )
    if topk.min() >= 0 and topk.max() < experts:
        return
    token, layer, choice = (int(i) for i in np.argwhere((topk < 0) | (topk >= experts))[0])
    raise WorkloadError(
        f"trace: token {token}, layer {layer}: expert id {int(topk[token, layer, choice])}, "
        f"expected 0..{experts - 1}"
    )


def _check_distinct(topk: NDArray[Any]) -> None:
    ordered = np.sort(topk, axis=2)
    twice = ordered[:, :, 1:] == ordered[:, :, :-1]
    if twice.any():
        token, layer, place = (int(i) for i in np.argwhere(twice)[0])
        raise WorkloadError(
            f"trace: token {token}, layer {layer}: expert {int(ordered[token, layer, place])} "
            "chosen twice, expected distinct experts"
        )


def _check_lengths(seq_lens: NDArray[Any], tokens: int) -> None:
    if seq_lens.ndim != 1 or not len(seq_lens) or seq_lens.dtype.kind not in "iu":
        raise WorkloadError(
            "trace: seq_lens must be integers [sequences], at least one of them, "
            f"got {seq_lens.dtype} {seq_lens.shape}"
        )
    bad = np.flatnonzero((seq_lens < 1) | (seq_lens > tokens))
    if len(bad):
        raise WorkloadError(
            f"trace: seq_lens[{int(bad[0])}] is {int(seq_lens[bad[0]])}, expected 1..{tokens}"
        )
    total = int(seq_lens.sum(dtype=np.int64))
    if total != tokens:
        raise WorkloadError(f"trace: seq_lens sum to {total}, expected the {tokens} tokens")
