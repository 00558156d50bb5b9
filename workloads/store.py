"""Routing traces on disk, read in parts: `StoredTrace`. `TraceWriter` writes them.

A stored trace is a folder, by custom ``NAME.trace``, of plain arrays beside a ``meta.json``:

- ``topk.npy``: uint8 (up to 256 experts) or uint16 [tokens, layers, k];
- ``seq_offsets.npy``: int64 [sequences + 1], the token every sequence begins at, and the tokens;
- ``phase.npy``, where recorded: uint8 [tokens], 0 prefill, 1 decode;
- ``domain.npy``, where recorded: uint16 [sequences], numbers of the names in ``meta.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads._npy import check_npy
from workloads._store_files import DOMAIN, OFFSETS, PHASE, TOPK, Meta, read_meta
from workloads.errors import WorkloadError
from workloads.profile import ExpertProfile
from workloads.split import split_sequences
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel

CHUNK_TOKENS = 1 << 14
"""Tokens of a chunk unless told otherwise: 7.6 MB of DeepSeek-R1's choices."""
KEPT_TOKENS = 1 << 16
"""Most tokens whose choices a profile keeps: 30 MB of DeepSeek-R1's."""
MAX_TRACE_BYTES = 1 << 30
"""Largest array of choices that is taken into memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredTrace:
    """A trace on disk, or some sequences of one, in memory only for what is asked of it.

    `open` makes one. Choices are checked when they are read, as those of any `RoutingTrace`.

    Attributes
    ----------
    path
        The folder.
    meta
        What it says of all its sequences.
    seq_begins, seq_lens
        int64 [sequences]: of the sequences chosen, the token of the file each begins at, and its
        tokens. Read-only.
    domain
        uint16 [sequences] of the sequences chosen, or None. Read-only.
    """

    path: Path
    meta: Meta
    seq_begins: NDArray[np.int64]
    seq_lens: NDArray[np.int64]
    domain: NDArray[np.uint16] | None
    _ends: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Count the tokens; freeze the arrays."""
        object.__setattr__(self, "_ends", np.cumsum(self.seq_lens))
        for array in (self.seq_begins, self.seq_lens, self._ends, self.domain):
            if array is not None:
                array.setflags(write=False)

    @classmethod
    def open(cls, path: str | PathLike[str], model: MoEModel | None = None) -> StoredTrace:
        """Open a stored trace; no choice is read.

        Parameters
        ----------
        path
            The folder.
        model
            The model it must fit in experts, layers and k; by default any.

        Raises
        ------
        WorkloadError
            A file is missing, cut short, or not what ``meta.json`` says; one line naming it.
        """
        folder = Path(path)
        meta = read_meta(folder)
        _check_model(folder, meta, model)
        check_npy(folder / TOPK, choice_dtype(meta.experts), (meta.tokens, meta.layers, meta.top_k))
        for name in (PHASE, DOMAIN):
            if name not in meta.files and (folder / name).exists():
                raise WorkloadError(
                    f"{folder / name}: is there, but meta.json does not speak of it"
                )
        if meta.phases:
            check_npy(folder / PHASE, np.uint8, (meta.tokens,))
        offsets = _offsets(folder / OFFSETS, meta)
        domain = _domain(folder / DOMAIN, meta) if meta.domains else None
        return cls(folder, meta, offsets[:-1], np.diff(offsets), domain)

    @property
    def tokens(self) -> int:
        """Tokens of the sequences chosen."""
        return int(self._ends[-1])

    @property
    def sequences(self) -> int:
        """Sequences chosen."""
        return len(self.seq_lens)

    @property
    def layers(self) -> int:
        """MoE layers."""
        return self.meta.layers

    @property
    def experts(self) -> int:
        """Routed experts of a layer."""
        return self.meta.experts

    @property
    def top_k(self) -> int:
        """Choices of a token in a layer."""
        return self.meta.top_k

    @property
    def source(self) -> str:
        """Where the trace comes from, for captions and manifests."""
        return self.meta.source

    def trace(self, start: int = 0, stop: int | None = None) -> RoutingTrace:
        """Take the tokens from `start` to before `stop` into memory; sequences may be cut.

        Tokens are numbered through the sequences chosen. By default all of them.

        Raises
        ------
        WorkloadError
            There are no such tokens, or too many for memory, or the file holds no valid choices.
        """
        stop = self.tokens if stop is None else stop
        if not 0 <= start < stop <= self.tokens:
            raise WorkloadError(
                f"{self.path}: tokens {start}..{stop - 1} asked for, expected some of the "
                f"{self.tokens}"
            )
        first = int(np.searchsorted(self._ends, start, "right"))
        last = int(np.searchsorted(self._ends, stop, "left")) + 1
        ends = self._ends[first:last]
        begins = np.maximum(ends - self.seq_lens[first:last], start)
        lengths = np.minimum(ends, stop) - begins
        at = self.seq_begins[first:last] + begins - (ends - self.seq_lens[first:last])
        return self._read(at, lengths, slice(first, last))

    def head(self, tokens: int) -> RoutingTrace:
        """Take the first `tokens` tokens into memory; the last sequence may be cut."""
        return self.trace(0, tokens)

    def traces(self, tokens: int = CHUNK_TOKENS) -> Iterator[RoutingTrace]:
        """Yield all tokens in order, `tokens` at a time; sequences are cut where chunks end.

        Raises
        ------
        WorkloadError
            Fewer than one token to a chunk.
        """
        if tokens < 1:
            raise WorkloadError(f"{self.path}: chunks of {tokens} tokens, expected at least 1")
        ends = range(0, self.tokens, tokens)
        return (self.trace(start, min(start + tokens, self.tokens)) for start in ends)

    def chunks(self, tokens: int = CHUNK_TOKENS) -> Iterator[NDArray[Any]]:
        """Yield the choices alone, uint8 or uint16 [tokens, layers, k], as `traces` parts them."""
        return (part.topk for part in self.traces(tokens))

    def select(self, sequences: NDArray[np.int64]) -> StoredTrace:
        """Choose some of the sequences, given by their numbers in ascending order."""
        domain = None if self.domain is None else self.domain[sequences]
        return replace(
            self,
            seq_begins=self.seq_begins[sequences],
            seq_lens=self.seq_lens[sequences],
            domain=domain,
        )

    def split(
        self, fraction: float | None = None, *, seed: int = 0
    ) -> tuple[StoredTrace, StoredTrace]:
        """Return two parts of whole sequences, as `split_sequences` parts them."""
        first, second = split_sequences(self.sequences, fraction, seed=seed)
        return self.select(first), self.select(second)

    def profile(self, *, keep_choices: bool = False) -> ExpertProfile:
        """Count how often every expert was chosen, chunk by chunk.

        Parameters
        ----------
        keep_choices
            Whether to keep tokens' choices beside the loads: of all tokens up to `KEPT_TOKENS`,
            of more every second, third, ... so that they come from everywhere.
        """
        counts, choices = self._counted(keep_choices=keep_choices)
        profile = ExpertProfile.from_counts(counts, source=self.source)
        return replace(profile, choices=np.concatenate(choices)) if keep_choices else profile

    def _counted(self, *, keep_choices: bool) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
        from workloads._choices_kernel import count_choices  # noqa: PLC0415  numba loads slowly

        counts = np.zeros((self.layers, self.experts), dtype=np.int64)
        step = -(-self.tokens // KEPT_TOKENS)
        kept, before = [], 0
        for chunk in self.chunks():
            count_choices(chunk, counts)
            if keep_choices:
                # A copy: a view would keep the whole chunk.
                kept.append(chunk[-before % step :: step].copy())
            before += len(chunk)
        return counts, kept

    def _read(
        self, at: NDArray[np.int64], lengths: NDArray[np.int64], sequences: slice
    ) -> RoutingTrace:
        """Read runs of tokens, given by where they begin in the file and how long they are."""
        rows = _rows(at, lengths)
        shape = (self.meta.tokens, self.layers, self.top_k)
        size = int(lengths.sum()) * self.layers * self.top_k * choice_dtype(self.experts).itemsize
        if size > MAX_TRACE_BYTES:
            raise WorkloadError(
                f"{self.path}: {int(lengths.sum())} tokens take {size} bytes, expected at most "
                f"{MAX_TRACE_BYTES} in memory at once; ask for fewer tokens"
            )
        topk = _part(self.path / TOPK, choice_dtype(self.experts), shape, rows)
        phase = None
        if self.meta.phases:
            phase = _part(self.path / PHASE, np.dtype(np.uint8), shape[:1], rows)
        try:
            return RoutingTrace(
                topk=topk,
                experts=self.experts,
                seq_lens=lengths.astype(np.int32),
                source=self.source,
                phase=phase,
                domain=None if self.domain is None else self.domain[sequences],
                domain_names=self.meta.domains,
            )
        except WorkloadError as error:
            raise WorkloadError(
                f"{self.path}: in what follows token {int(at[0])}: {error}"
            ) from None


def choice_dtype(experts: int) -> np.dtype[Any]:
    """Return the narrowest type that names so many experts."""
    return np.dtype(np.uint8 if experts <= 1 << 8 else np.uint16)


def _check_model(folder: Path, meta: Meta, model: MoEModel | None) -> None:
    if model is None:
        return
    have = (meta.layers, meta.experts, meta.top_k)
    want = (model.layers, model.experts, model.top_k)
    if have != want:
        raise WorkloadError(
            f"{folder}: a trace of {meta.model} with {have} (MoE layers, experts, choices), "
            f"{model.name} has {want}"
        )


def _offsets(file: Path, meta: Meta) -> NDArray[np.int64]:
    offsets = _whole(file, np.dtype(np.int64), meta.sequences + 1)
    rising = np.flatnonzero(np.diff(offsets) < 1)
    if len(rising):
        at = int(rising[0]) + 1
        raise WorkloadError(
            f"{file}: offset {at} is {int(offsets[at])}, expected more than {int(offsets[at - 1])}"
        )
    if offsets[0] != 0 or offsets[-1] != meta.tokens:
        raise WorkloadError(
            f"{file}: offsets run from {int(offsets[0])} to {int(offsets[-1])}, expected from 0 to "
            f"the {meta.tokens} tokens"
        )
    return offsets


def _domain(file: Path, meta: Meta) -> NDArray[np.uint16]:
    domain = _whole(file, np.dtype(np.uint16), meta.sequences)
    bad = np.flatnonzero(domain >= len(meta.domains))
    if len(bad):
        raise WorkloadError(
            f"{file}: domain of sequence {int(bad[0])} is {int(domain[bad[0]])}, expected "
            f"0..{len(meta.domains) - 1}"
        )
    return domain


def _whole(file: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    start = check_npy(file, dtype, (count,))
    return np.fromfile(file, dtype, count, offset=start)


def _rows(at: NDArray[np.int64], lengths: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return the tokens of the file: a slice where they follow each other, else their numbers."""
    if (at[1:] == at[:-1] + lengths[:-1]).all():
        return slice(int(at[0]), int(at[-1] + lengths[-1]))
    within = np.cumsum(lengths) - lengths
    rows: NDArray[np.int64] = np.repeat(at - within, lengths) + np.arange(lengths.sum())
    return rows


def _part(
    file: Path, dtype: np.dtype[Any], shape: tuple[int, ...], rows: slice | NDArray[np.int64]
) -> NDArray[Any]:
    """Copy rows of an array. Each part is mapped anew, so that memory holds no pages of others."""
    start = check_npy(file, dtype, shape)
    part = np.array(np.memmap(file, dtype, "r", start, shape)[rows])
    part.setflags(write=False)
    return part
