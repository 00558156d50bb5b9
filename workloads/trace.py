"""A routing trace: which experts every token chose in every MoE layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads._arrays import frozen
from workloads.errors import WorkloadError
from workloads.model import MAX_EXPERTS
from workloads.split import split_sequences

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREFILL, DECODE = 0, 1
"""Phases of a token."""
MAX_DOMAINS = 1 << 16


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
    phase
        uint8 [tokens]: `PREFILL` or `DECODE`; None where it was not recorded. Read-only.
    domain
        uint16 [sequences]: which of `domain_names` every sequence belongs to; None where it was
        not recorded. Read-only.
    domain_names
        Kinds of traffic, each once; empty without `domain`.
    """

    topk: NDArray[np.uint8] | NDArray[np.uint16]
    experts: int
    seq_lens: NDArray[np.int32]
    source: str
    phase: NDArray[np.uint8] | None = None
    domain: NDArray[np.uint16] | None = None
    domain_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check ids, lengths and labels, then narrow and freeze them."""
        if not 1 <= self.experts <= MAX_EXPERTS:
            raise WorkloadError(f"trace: {self.experts} experts, expected 1..{MAX_EXPERTS}")
        topk, seq_lens = np.asarray(self.topk), np.asarray(self.seq_lens)
        _check_ids(topk, self.experts)
        narrow = np.uint8 if self.experts <= 1 << 8 else np.uint16
        object.__setattr__(self, "topk", frozen(topk, narrow))
        _check_distinct(self.topk)
        _check_lengths(seq_lens, self.tokens)
        object.__setattr__(self, "seq_lens", frozen(seq_lens, np.int32))
        self._set_labels()

    def _set_labels(self) -> None:
        object.__setattr__(self, "domain_names", tuple(self.domain_names))
        check_domain_names(self.domain_names)
        if (self.domain is None) != (not self.domain_names):
            raise WorkloadError("trace: domain and domain_names come together")
        if self.phase is not None:
            phase = _labels("phase", np.asarray(self.phase), self.tokens, DECODE + 1)
            object.__setattr__(self, "phase", frozen(phase, np.uint8))
        if self.domain is not None:
            names = len(self.domain_names)
            domain = _labels("domain", np.asarray(self.domain), self.sequences, names)
            object.__setattr__(self, "domain", frozen(domain, np.uint16))

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

    @property
    def sequences(self) -> int:
        """Sequences of the trace."""
        return len(self.seq_lens)

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
        begun = lengths > 0
        return RoutingTrace(
            topk=self.topk[:tokens],
            experts=self.experts,
            seq_lens=lengths[begun].astype(np.int32),
            source=self.source,
            phase=None if self.phase is None else self.phase[:tokens],
            domain=None if self.domain is None else self.domain[begun],
            domain_names=self.domain_names,
        )

    def select(self, sequences: NDArray[np.int64]) -> RoutingTrace:
        """Return some of the sequences, given by their numbers in ascending order."""
        chosen = np.zeros(self.sequences, dtype=bool)
        chosen[sequences] = True
        tokens = np.repeat(chosen, self.seq_lens)
        return RoutingTrace(
            topk=self.topk[tokens],
            experts=self.experts,
            seq_lens=self.seq_lens[chosen],
            source=self.source,
            phase=None if self.phase is None else self.phase[tokens],
            domain=None if self.domain is None else self.domain[chosen],
            domain_names=self.domain_names,
        )

    def split(
        self, fraction: float | None = None, *, seed: int = 0
    ) -> tuple[RoutingTrace, RoutingTrace]:
        """Return two traces of whole sequences, as `split_sequences` parts them."""
        first, second = split_sequences(self.sequences, fraction, seed=seed)
        return self.select(first), self.select(second)


def check_domain_names(names: tuple[str, ...]) -> None:
    """Refuse names of domains that are no texts, empty, repeated or too many.

    Raises
    ------
    WorkloadError
        One of these.
    """
    wrong = [name for name in names if not isinstance(name, str) or not name]
    if wrong:
        raise WorkloadError(f"trace: domain {wrong[0]!r}, expected a name that is not empty")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise WorkloadError(f"trace: domain {twice!r} is named twice")
    if len(names) > MAX_DOMAINS:
        raise WorkloadError(f"trace: {len(names)} domains, expected at most {MAX_DOMAINS}")


def _labels(name: str, labels: NDArray[Any], count: int, kinds: int) -> NDArray[Any]:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise WorkloadError(
            f"trace: {name} must be integers ({count},), got {labels.dtype} {labels.shape}"
        )
    bad = np.flatnonzero((labels < 0) | (labels >= kinds))
    if len(bad):
        raise WorkloadError(
            f"trace: {name}[{int(bad[0])}] is {int(labels[bad[0]])}, expected 0..{kinds - 1}"
        )
    return labels


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
    from workloads._choices_kernel import find_repeated  # noqa: PLC0415  numba loads slowly

    token, layer, expert = find_repeated(topk)
    if token >= 0:
        raise WorkloadError(
            f"trace: token {token}, layer {layer}: expert {expert} "
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
