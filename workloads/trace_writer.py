"""Writing traces to disk as they come: the folder is there whole, or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from workloads._npy import write_header
from workloads._store_files import DOMAIN, META, OFFSETS, PHASE, TOPK, Meta
from workloads.errors import WorkloadError
from workloads.model import MoEModel
from workloads.store import choice_dtype
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray


class TraceWriter:
    """Writes a stored trace, sequence after sequence: ``with TraceWriter(...) as out``.

    Everything goes to a temporary folder beside `path`, which is renamed when the block ends
    well and removed otherwise.

    Parameters
    ----------
    path
        The folder to be made; it must not be there yet.
    model
        The model that routes, or its name.
    experts, layers, top_k
        Shape of its routing.
    source
        Where the trace comes from, for captions and manifests.

    Raises
    ------
    WorkloadError
        The folder is there already or cannot be made, or the shape is none.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        model: MoEModel | str,
        experts: int,
        layers: int,
        top_k: int,
        source: str,
    ) -> None:
        self._path = Path(path)
        name = model.name if isinstance(model, MoEModel) else model
        self._shape = Meta(name, source, experts, layers, top_k, 1, 1, phases=False, domains=())
        self._ends: list[NDArray[np.int64]] = []
        self._domain: list[NDArray[np.uint16]] = []
        self._names: dict[str, int] = {}
        self._tokens = 0
        self._phased = False
        self._folder = _temporary(self._path)
        self._topk = (self._folder / TOPK).open("wb")
        self._phase = (self._folder / PHASE).open("wb")
        self._write_headers()

    def append(
        self,
        topk: ArrayLike,
        *,
        seq_lens: ArrayLike | None = None,
        phase: ArrayLike | None = None,
        domain: str | None = None,
        continues: bool = False,
    ) -> None:
        """Add whole sequences, or further tokens of the last one.

        Parameters
        ----------
        topk
            Integers [tokens, layers, k]: distinct expert ids, in the router's order.
        seq_lens
            Integers [sequences], summing to the tokens; by default one sequence.
        phase
            0 (prefill) or 1 (decode), of all these tokens or [tokens]; None where it is not
            known, and then of no token of the trace.
        domain
            Kind of traffic of these sequences; None where it is not known, and then of no
            sequence of the trace. A sequence goes on in its own.
        continues
            Whether these are further tokens of the last sequence.

        Raises
        ------
        WorkloadError
            The choices or lengths are none of this trace's; nothing is added then.
        """
        part = self._checked(topk, seq_lens, phase)
        if continues:
            self._check_continues(part, domain)
        else:
            self._label(part.sequences, domain)
        self._phased = part.phase is not None
        self._write(self._topk, part.topk)
        if part.phase is not None:
            self._write(self._phase, part.phase)
        ends = self._tokens + np.cumsum(part.seq_lens, dtype=np.int64)
        self._tokens += part.tokens
        if continues:
            self._ends[-1][-1] = ends[-1]
        else:
            self._ends.append(ends)

    def close(self) -> None:
        """Put the folder in its place. Leaving the ``with`` block does this.

        Raises
        ------
        WorkloadError
            No token was added, or the folder cannot be written; it is removed then.
        """
        try:
            if not self._tokens:
                raise WorkloadError(f"{self._path}: no tokens were added; expected at least one")
            self._finish()
            if self._path.exists():
                raise WorkloadError(f"{self._path}: has come to be there meanwhile")
            self._folder.rename(self._path)
        except OSError as error:
            raise WorkloadError(f"{self._path}: cannot be written: {error.strerror}") from None
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written, unless it is in its place already."""
        self._topk.close()
        self._phase.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _checked(
        self, topk: ArrayLike, seq_lens: ArrayLike | None, phase: ArrayLike | None
    ) -> RoutingTrace:
        ids = np.asarray(topk)
        wanted = (self._shape.layers, self._shape.top_k)
        if ids.ndim != 3 or ids.shape[1:] != wanted:
            raise WorkloadError(
                f"{self._path}: choices {ids.shape}, expected (tokens, {wanted[0]} MoE layers, "
                f"{wanted[1]} choices)"
            )
        if self._tokens and self._phased != (phase is not None):
            raise WorkloadError(f"{self._path}: phase is to be given for all tokens or for none")
        lengths = np.array([len(ids)]) if seq_lens is None else np.asarray(seq_lens)
        phases = np.asarray(phase)
        if phase is not None and phases.ndim == 0:
            phases = np.full(len(ids), phases)
        try:
            return RoutingTrace(
                topk=ids,
                experts=self._shape.experts,
                seq_lens=lengths,
                source=self._shape.source,
                phase=None if phase is None else phases,
            )
        except WorkloadError as error:
            raise WorkloadError(f"{self._path}: after token {self._tokens}: {error}") from None

    def _check_continues(self, part: RoutingTrace, domain: str | None) -> None:
        if not self._tokens:
            raise WorkloadError(f"{self._path}: no sequence to continue; expected a first one")
        if part.sequences != 1:
            raise WorkloadError(
                f"{self._path}: {part.sequences} sequences continue the last one, expected 1"
            )
        if domain is not None and self._names.get(domain) != self._domain_of_last():
            raise WorkloadError(f"{self._path}: the last sequence goes on in its own domain")

    def _domain_of_last(self) -> int | None:
        return int(self._domain[-1][-1]) if self._domain else -1

    def _label(self, sequences: int, domain: str | None) -> None:
        if self._tokens and bool(self._names) != (domain is not None):
            raise WorkloadError(
                f"{self._path}: a domain is to be given for all sequences or for none"
            )
        if domain is not None:
            if not domain:
                raise WorkloadError(f"{self._path}: domain '', expected a name")
            number = self._names.setdefault(domain, len(self._names))
            self._domain.append(np.full(sequences, number, dtype=np.uint16))

    def _write(self, stream: IO[bytes], array: NDArray[Any]) -> None:
        try:
            stream.write(np.ascontiguousarray(array).data)
        except OSError as error:
            raise WorkloadError(f"{self._path}: cannot be written: {error.strerror}") from None

    def _write_headers(self) -> None:
        shape = (self._tokens, self._shape.layers, self._shape.top_k)
        write_header(self._topk, choice_dtype(self._shape.experts), shape)
        write_header(self._phase, np.uint8, shape[:1])

    def _finish(self) -> None:
        """Write what is known only at the end, and flush everything to disk."""
        self._topk.seek(0)
        self._phase.seek(0)
        self._write_headers()
        for stream in (self._topk, self._phase):
            stream.flush()
            os.fsync(stream.fileno())
        if not self._phased:
            (self._folder / PHASE).unlink()
        offsets = np.concatenate([np.zeros(1, np.int64), *self._ends])
        np.save(self._folder / OFFSETS, offsets)
        if self._names:
            np.save(self._folder / DOMAIN, np.concatenate(self._domain))
        meta = Meta(
            **{
                **{name: getattr(self._shape, name) for name in _SHAPE},
                "tokens": self._tokens,
                "sequences": len(offsets) - 1,
                "phases": self._phased,
                "domains": tuple(self._names),
            }
        )
        (self._folder / META).write_text(meta.text(), encoding="utf-8")
        # mkdtemp is private to its user; traces are to be read as any other files.
        self._folder.chmod(0o755)


_SHAPE = ("model", "source", "experts", "layers", "top_k")


def _temporary(path: Path) -> Path:
    if os.path.lexists(path):
        raise WorkloadError(f"{path}: is there already; expected a new folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(dir=path.parent, prefix=".partial-"))
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be written: {error.strerror}") from None
