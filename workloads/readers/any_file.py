"""Loads and traces of any engine, told apart by what is in the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from workloads.errors import WorkloadError
from workloads.readers.arrays import NPY, ZIP, first_bytes
from workloads.readers.eplb_weight import read_eplb_weight
from workloads.readers.logical_count import read_logical_counts
from workloads.readers.npz_trace import read_npz_trace
from workloads.readers.peek import Peek, peek
from workloads.readers.routed_experts import read_routed_experts
from workloads.readers.sglang_dump import holds_records, read_dump_counts, read_dump_trace
from workloads.readers.vllm_stats import read_vllm_stats
from workloads.store import StoredTrace

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from workloads.model import MoEModel
    from workloads.readers.counts import LoadCounts
    from workloads.trace import RoutingTrace

    LoadReader: TypeAlias = Callable[[str | PathLike[str], MoEModel], LoadCounts]
    TraceReader: TypeAlias = Callable[[str | PathLike[str], MoEModel], RoutingTrace]

Reader = TypeVar("Reader")

LOADS: dict[str, LoadReader] = {
    "sglang-load": read_logical_counts,
    "sglang-dump": read_dump_counts,
    "vllm-proposal-stats": read_vllm_stats,
    "eplb-load": read_eplb_weight,
}
"""Readers of expert loads by the name of their format."""


def _read_stored(path: str | PathLike[str], model: MoEModel) -> RoutingTrace:
    """Take a stored trace into memory whole."""
    return StoredTrace.open(path, model).trace()


TRACES: dict[str, TraceReader] = {
    "topomoe-trace": _read_stored,
    "npz": read_npz_trace,
    "vllm-routed": read_routed_experts,
    "sglang-dump": read_dump_trace,
}
"""Readers of router choices by the name of their format."""


def read_load(path: str | PathLike[str], model: MoEModel, *, form: str | None = None) -> LoadCounts:
    """Read expert loads in any of the formats of `LOADS`.

    Parameters
    ----------
    path
        The file.
    model
        The model it must fit.
    form
        Name of the format; by default told from what is in the file.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and place.
    """
    form = form or _load_form(path, model)
    return _reader(LOADS, form, "loads")(path, model)


def read_trace(
    path: str | PathLike[str], model: MoEModel, *, form: str | None = None
) -> RoutingTrace:
    """Read router choices in any of the formats of `TRACES`; parameters as of `read_load`.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and place.
    """
    form = form or _trace_form(path, model)
    return _reader(TRACES, form, "traces")(path, model)


def guess_load(path: str | PathLike[str], seen: Peek, model: MoEModel) -> str | None:
    """Name the format of a file that holds loads; None where it seems to hold none.

    Raises
    ------
    WorkloadError
        A torch file that cannot be opened.
    """
    if seen.container == "torch":
        return None if holds_records(path) else "sglang-dump"
    if "logical_count" in seen.keys:
        return "sglang-load"
    if "eplb_load_stats" in seen.keys:
        return "vllm-proposal-stats"
    header = seen.header
    alone = header is not None and header.dtype.kind in "iuf" and _axes(seen) == 2
    alone = alone and header is not None and header.shape[1] == model.experts
    return "eplb-load" if "weight" in seen.keys or alone else None


def guess_trace(path: str | PathLike[str], seen: Peek, model: MoEModel) -> str | None:
    """Name the format of a file that holds choices; None where it seems to hold none.

    Raises
    ------
    WorkloadError
        A torch file that cannot be opened.
    """
    if seen.container == "folder":
        return "topomoe-trace"
    if seen.container == "torch":
        return "sglang-dump" if holds_records(path) else None
    if "topk_ids" in seen.keys:
        return "npz"
    alone = seen.header is not None and _axes(seen) == 3 and seen.header.shape[2] == model.top_k
    return "vllm-routed" if "routed_experts" in seen.keys or alone else None


def _load_form(path: str | PathLike[str], model: MoEModel) -> str:
    """Name the reader of loads, of damaged files that of what they seem to be."""
    seen = peek(path)
    found = guess_load(path, seen, model)
    if found is None and guess_trace(path, seen, model) is not None:
        raise WorkloadError(f"{path}: holds choices of tokens; give it as a trace, not as loads")
    packed = seen.container in ("npz", "npy") or _begins(path, ZIP, NPY)
    return found or ("eplb-load" if packed else "sglang-load")


def _trace_form(path: str | PathLike[str], model: MoEModel) -> str:
    """Name the reader of choices, of damaged files that of what they seem to be."""
    seen = peek(path)
    found = guess_trace(path, seen, model)
    if found is None and guess_load(path, seen, model) is not None:
        raise WorkloadError(f"{path}: holds loads, not choices of tokens; give it as loads")
    return found or ("vllm-routed" if seen.container == "npy" or _begins(path, NPY) else "npz")


def _begins(path: str | PathLike[str], *starts: bytes) -> bool:
    try:
        return not Path(path).is_dir() and first_bytes(Path(path)).startswith(starts)
    except WorkloadError:
        return False


def _axes(seen: Peek) -> int:
    return len(seen.header.shape) if seen.header is not None else 0


def _reader(readers: dict[str, Reader], form: str, what: str) -> Reader:
    if form not in readers:
        raise WorkloadError(f"unknown format {form!r} of {what}; allowed: {', '.join(readers)}")
    return readers[form]
