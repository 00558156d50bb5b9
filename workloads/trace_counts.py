"""Everything that is counted in a trace for its statistics, in one pass, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from workloads.store import StoredTrace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from workloads.trace import RoutingTrace

WINDOWS = 8
"""Parts of equally many tokens that are compared for drift."""
PAIR_TOKENS = 1 << 15
"""Most tokens whose pairs of choices are counted; of more, every second, third, ... is."""


@dataclass(frozen=True, slots=True, eq=False)
class TraceCounts:
    """Counts of a trace.

    Attributes
    ----------
    source
        Where the trace comes from.
    tokens, sequences, experts, top_k
        Shape of the trace.
    windows
        int64 [windows, layers, experts]: choices in each of up to `WINDOWS` equal parts.
    phases
        int64 [2, layers, experts]: choices in prefill and in decode; None where not recorded.
    domains, domain_names
        int64 [domains, layers, experts], and their names; None where not recorded.
    pairs
        int64 [layers, E, E]: tokens that chose both experts, of `pair_tokens` tokens.
    followers
        int64 [layers - 1, E, E]: how often an expert was followed by one of the next layer.
    pair_tokens
        Tokens counted into pairs and followers.
    squares, squared_lengths
        float64 [2, layers, experts], float: over sequences of n tokens with c choices of an
        expert, sums of c * c, of c * n, and of n * n.
    """

    source: str
    tokens: int
    sequences: int
    experts: int
    top_k: int
    windows: NDArray[np.int64]
    phases: NDArray[np.int64] | None
    domains: NDArray[np.int64] | None
    domain_names: tuple[str, ...]
    pairs: NDArray[np.int64]
    followers: NDArray[np.int64]
    pair_tokens: int
    squares: NDArray[np.float64]
    squared_lengths: float

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [layers, experts]: choices of every expert."""
        counts: NDArray[np.int64] = self.windows.sum(axis=0)
        return counts


def count_trace(trace: RoutingTrace | StoredTrace) -> TraceCounts:
    """Count a trace; of one on disk, a chunk is in memory at a time.

    Parameters
    ----------
    trace
        In memory or on disk.
    """
    tally = _Tally(trace)
    for part in _parts(trace):
        tally.add(part)
    return tally.counts()


def _parts(trace: RoutingTrace | StoredTrace) -> Iterator[RoutingTrace]:
    if isinstance(trace, StoredTrace):
        yield from trace.traces()
    else:
        yield trace


@dataclass(slots=True)
class _Tally:
    """Counts under way."""

    trace: RoutingTrace | StoredTrace
    before: int = 0
    pair_tokens: int = 0
    open_tokens: int = 0
    squared_lengths: float = 0.0
    windows: NDArray[np.int64] = field(init=False)
    phases: NDArray[np.int64] | None = None
    domains: NDArray[np.int64] | None = None
    domain_names: tuple[str, ...] = ()
    pairs: NDArray[np.int64] = field(init=False)
    followers: NDArray[np.int64] = field(init=False)
    open_counts: NDArray[np.int64] = field(init=False)
    squares: NDArray[np.float64] = field(init=False)
    ends: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.ends = np.cumsum(self.trace.seq_lens, dtype=np.int64)
        layers, experts = self.trace.layers, self.trace.experts
        self.windows = np.zeros((min(WINDOWS, self.trace.tokens), layers, experts), np.int64)
        self.pairs = np.zeros((layers, experts, experts), np.int64)
        self.followers = np.zeros((layers - 1, experts, experts), np.int64)
        self.open_counts = np.zeros((layers, experts), np.int64)
        self.squares = np.zeros((2, layers, experts))

    def add(self, part: RoutingTrace) -> None:
        """Count further tokens; a sequence that was cut goes on."""
        from workloads._coactivation_kernel import (  # noqa: PLC0415  numba loads slowly
            count_followers,
            count_together,
        )
        from workloads._trace_counts_kernel import count_kinds  # noqa: PLC0415

        place = np.arange(self.before, self.before + part.tokens)
        count_kinds(part.topk, place * len(self.windows) // self.trace.tokens, self.windows)
        if part.phase is not None:
            self.phases = self._kinds(self.phases, 2)
            count_kinds(part.topk, part.phase.astype(np.int64), self.phases)
        if part.domain is not None:
            self.domain_names = part.domain_names
            self.domains = self._kinds(self.domains, len(part.domain_names))
            kind = np.repeat(part.domain.astype(np.int64), part.seq_lens)
            count_kinds(part.topk, kind, self.domains)
        step = -(-self.trace.tokens // PAIR_TOKENS)
        chosen = part.topk[-self.before % step :: step]
        count_together(chosen, self.pairs)
        count_followers(chosen, self.followers)
        self.pair_tokens += len(chosen)
        self._add_sequences(part)
        self.before += part.tokens

    def _kinds(self, counts: NDArray[np.int64] | None, kinds: int) -> NDArray[np.int64]:
        shape = (kinds, self.trace.layers, self.trace.experts)
        return np.zeros(shape, np.int64) if counts is None else counts

    def _add_sequences(self, part: RoutingTrace) -> None:
        from workloads._trace_counts_kernel import close_all, count_sequences  # noqa: PLC0415

        lengths = part.seq_lens.astype(np.int64)
        self.open_tokens, squared = count_sequences(
            part.topk, lengths, self.open_counts, self.open_tokens, self.squares
        )
        self.squared_lengths += squared
        end = self.before + part.tokens
        if self.ends[np.searchsorted(self.ends, end)] == end:
            close_all(self.open_counts, self.open_tokens, self.squares)
            self.squared_lengths += float(self.open_tokens) ** 2
            self.open_tokens = 0

    def counts(self) -> TraceCounts:
        """Return what was counted."""
        return TraceCounts(
            source=self.trace.source,
            tokens=self.trace.tokens,
            sequences=self.trace.sequences,
            experts=self.trace.experts,
            top_k=self.trace.top_k,
            windows=self.windows,
            phases=self.phases,
            domains=self.domains,
            domain_names=self.domain_names,
            pairs=self.pairs,
            followers=self.followers,
            pair_tokens=self.pair_tokens,
            squares=self.squares,
            squared_lengths=self.squared_lengths,
        )
