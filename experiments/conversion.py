"""Loads, traces and maps from one format of file into another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from experiments.atomic import write_atomic
from experiments.errors import ExperimentError
from placement import Placement
from placement.formats import MAP_FORMATS, guess_map, map_format
from workloads import LoadCounts, RoutingTrace, TraceWriter, read_load, read_trace, writers
from workloads.readers.any_file import LOADS, TRACES, guess_load, guess_trace
from workloads.readers.peek import Peek, peek

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workloads import MoEModel

Kind: TypeAlias = Literal["load", "trace", "map"]
Content: TypeAlias = LoadCounts | RoutingTrace | Placement

SERVER_GPUS = 8
"""GPUs of a server unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a file is taken for.

    Attributes
    ----------
    kind, form
        What is in it, and the name of its format.
    guessed
        Whether that was told from its content.
    """

    kind: Kind
    form: str
    guessed: bool


LOAD_WRITERS: dict[str, Callable[[LoadCounts, MoEModel], bytes]] = {
    "sglang-load": writers.logical_count_json,
    "eplb-load": writers.eplb_weight_npz,
    "eplb-load-json": writers.eplb_weight_json,
}
TRACE_WRITERS: dict[str, Callable[[RoutingTrace], bytes]] = {
    "npz": writers.npz_trace,
    "vllm-routed": writers.routed_experts_npz,
}
STATS, STORED = "vllm-proposal-stats", "topomoe-trace"
WRITTEN: dict[Kind, tuple[str, ...]] = {
    "load": (*LOAD_WRITERS, STATS),
    "trace": (STORED, *TRACE_WRITERS),
    "map": tuple(MAP_FORMATS),
}
"""Names of the formats that are written, by what they hold."""

READ: dict[Kind, tuple[str, ...]] = {
    "load": tuple(LOADS),
    "trace": tuple(TRACES),
    "map": tuple(MAP_FORMATS),
}
"""Names of the formats that are read, by what they hold."""


def recognise(path: Path, model: MoEModel, form: str | None) -> Source:
    """Say what a file is to be taken for, by the name of its format or else by its content.

    Raises
    ------
    ExperimentError
        The format is unknown, or the content is that of none or of several.
    """
    seen = peek(path)
    found = _candidates(path, seen, model)
    if form is not None:
        named = [Source(kind, form, guessed=False) for kind in READ if form in READ[kind]]
        if not named:
            raise ExperimentError(f"unknown format '{form}'; allowed: {_all(READ)}")
        kinds = [each.kind for each in found]
        # SGLang's dumps hold loads or traces: the content decides.
        return next((each for each in named if each.kind in kinds), named[0])
    if not found:
        if seen.damage:
            raise ExperimentError(f"{path}: {seen.damage}")
        raise ExperimentError(
            f"{path}: not known by its content; name its format with --from: {_all(READ)}"
        )
    if len(found) > 1:
        names = " or ".join(each.form for each in found)
        raise ExperimentError(f"{path}: could be {names}; say which with --from")
    return found[0]


def read_content(
    path: Path,
    source: Source,
    model: MoEModel,
    *,
    ranks: int | None,
    gpus_per_server: int | None = None,
) -> Content:
    """Read a file that was recognised.

    Raises
    ------
    WorkloadError, PlacementError, ExperimentError
        It cannot be read or does not fit; one line naming file, key and place.
    """
    if source.kind == "load":
        return read_load(path, model, form=source.form)
    if source.kind == "trace":
        return read_trace(path, model, form=source.form)
    form = map_format(source.form)
    if ranks is None and not form.carries_ranks:
        raise ExperimentError(
            f"{path}: the format {form.name} does not say on how many GPUs slots are; give --ranks"
        )
    placement = form.read(path, model=model, ranks=ranks, gpus_per_server=1)
    if gpus_per_server is None and source.form == "topomoe":
        return placement
    return replace(placement, gpus_per_server=_server(path, placement.gpus, gpus_per_server))


def write_content(
    path: Path, content: Content, form: str, model: MoEModel, *, ranks: int | None
) -> list[str]:
    """Write what was read in another format; return what was left behind, a sentence each.

    Raises
    ------
    WorkloadError, PlacementError, ExperimentError
        The format does not hold it, or the file cannot be written.
    """
    if isinstance(content, Placement):
        write_atomic(path, map_format(_one_of(form, "map")).write(content, model=model))
        return []
    if isinstance(content, RoutingTrace) and form not in WRITTEN["load"]:
        return _write_trace(path, content, _one_of(form, "trace"), model)
    loads = _counted(content) if isinstance(content, RoutingTrace) else content
    if _one_of(form, "load") == STATS:
        if ranks is None:
            raise ExperimentError(
                f"{path}: the format {STATS} names the number of GPUs; give --ranks"
            )
        write_atomic(path, writers.vllm_stats_lines(loads, model, ranks))
        return []
    write_atomic(path, LOAD_WRITERS[form](loads, model))
    steps = len(loads.counts)
    return [f"{steps} steps are added up"] if steps > 1 and form != "sglang-load" else []


def target(path: Path, form: str | None, source: Source) -> str:
    """Return the format to write, as asked for or as the end of the file's name says.

    Raises
    ------
    ExperimentError
        It is not asked for and not said, or holds something else than the source.
    """
    if form is None:
        by_end: dict[str, dict[Kind, str]] = {
            ".yaml": {"map": "trtllm"},
            ".yml": {"map": "trtllm"},
            ".trace": {"trace": STORED},
        }
        form = by_end.get(path.suffix, {}).get(source.kind)
    allowed = WRITTEN[source.kind] + (WRITTEN["load"] if source.kind == "trace" else ())
    if form is None:
        raise ExperimentError(f"{path}: name its format with --to: {', '.join(allowed)}")
    if form not in allowed:
        raise ExperimentError(
            f"a {source.kind} cannot be written as '{form}'; allowed: {', '.join(allowed)}"
        )
    return form


def _candidates(path: Path, seen: Peek, model: MoEModel) -> list[Source]:
    names: dict[Kind, str | None] = {
        "map": guess_map(seen, model),
        "load": guess_load(path, seen, model),
        "trace": guess_trace(path, seen, model),
    }
    return [Source(kind, form, guessed=True) for kind, form in names.items() if form]


def _server(path: Path, ranks: int, gpus_per_server: int | None) -> int:
    if gpus_per_server is None:
        gpus_per_server = min(SERVER_GPUS, ranks)
    if ranks % gpus_per_server:
        raise ExperimentError(
            f"{path}: {ranks} ranks do not divide by {gpus_per_server} GPUs a server; give "
            "--gpus-per-server"
        )
    return gpus_per_server


def _write_trace(path: Path, trace: RoutingTrace, form: str, model: MoEModel) -> list[str]:
    if form == STORED:
        _store(path, trace, model)
        return []
    write_atomic(path, TRACE_WRITERS[form](trace))
    left = [name for name in ("phase", "domain") if getattr(trace, name, None) is not None]
    return [f"{' and '.join(left)} of its tokens are left out"] if left else []


def _store(path: Path, trace: RoutingTrace, model: MoEModel) -> None:
    ends = np.concatenate([[0], np.cumsum(trace.seq_lens, dtype=np.int64)])
    with TraceWriter(
        path,
        model=model,
        experts=trace.experts,
        layers=trace.layers,
        top_k=trace.top_k,
        source=trace.source,
    ) as out:
        for run in _runs(trace):
            tokens = slice(int(ends[run.start]), int(ends[run.stop]))
            out.append(
                trace.topk[tokens],
                seq_lens=trace.seq_lens[run],
                phase=None if trace.phase is None else trace.phase[tokens],
                domain=None
                if trace.domain is None
                else trace.domain_names[int(trace.domain[run.start])],
            )


def _runs(trace: RoutingTrace) -> list[slice]:
    """Return the runs of neighbouring sequences of one domain; all are one where none is known."""
    count = len(trace.seq_lens)
    if trace.domain is None:
        return [slice(0, count)]
    starts = np.flatnonzero(np.diff(trace.domain, prepend=np.uint16(0)))
    bounds = sorted({0, *starts.tolist(), count})
    return [slice(a, b) for a, b in pairwise(bounds)]


def _counted(trace: RoutingTrace) -> LoadCounts:
    """Count the choices of a trace, all tokens one step."""
    layers = [trace.topk[:, layer].ravel() for layer in range(trace.layers)]
    counts: Any = [[np.bincount(chosen, minlength=trace.experts) for chosen in layers]]
    return LoadCounts(np.array(counts), source=trace.source)


def _one_of(form: str, kind: Kind) -> str:
    if form not in WRITTEN[kind]:
        raise ExperimentError(
            f"a {kind} cannot be written as '{form}'; allowed: {', '.join(WRITTEN[kind])}"
        )
    return form


def _all(formats: dict[Kind, tuple[str, ...]]) -> str:
    return ", ".join(dict.fromkeys(name for names in formats.values() for name in names))
