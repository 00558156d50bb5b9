"""From a workload's specification to what policies see and what they are judged on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.errors import ExperimentError
from experiments.workload_file import read_workload
from workloads import (
    ExpertProfile,
    MoEModel,
    RoutingTrace,
    StoredTrace,
    SyntheticWorkload,
    WorkloadError,
    draw_trace,
    inclusion_probabilities,
    model,
    read_load,
    read_trace,
    stream,
)

if TYPE_CHECKING:
    from experiments.spec import WorkloadSpec


DEFAULT_TOKENS = 4096
"""Judged tokens where a run asks for no number."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A profile and the trace that is judged.

    Attributes
    ----------
    source
        For captions and manifests: "synthetic, R1-like, seed 0" or the file's name.
    deviation
        Greatest difference between an expert's chance of being drawn into a token and k times
        its load, where group limits forbid the exact marginals; 0 for recorded traces.
    """

    profile: ExpertProfile
    trace: RoutingTrace
    source: str
    deviation: float


@lru_cache(maxsize=4)
def load_workload(model_name: str, spec: WorkloadSpec, tokens: int | None) -> Workload:
    """Draw or read a workload of `tokens` judged tokens; kept, for the next policy meets it too."""
    shape = model(model_name)
    if spec.trace is not None:
        return _recorded_trace(shape, Path(spec.trace), tokens)
    tokens = tokens or DEFAULT_TOKENS
    if spec.load is not None:
        return _recorded_load(shape, spec, tokens)
    synthetic = _synthetic(shape, spec.seed, spec.file)
    return Workload(
        profile=_profile(model_name, spec.seed, spec.profile_tokens, spec.file),
        trace=synthetic.trace(tokens),
        source=synthetic.source,
        deviation=synthetic.deviation,
    )


@lru_cache(maxsize=4)
def _profile(model_name: str, seed: int, tokens: int, file: str | None) -> ExpertProfile:
    return _synthetic(model(model_name), seed, file).profile(tokens)


def _synthetic(shape: MoEModel, seed: int, file: str | None) -> SyntheticWorkload:
    if file is None:
        return SyntheticWorkload(shape, seed)
    return read_workload(Path(file)).workload(shape, seed)


def _recorded_load(shape: MoEModel, spec: WorkloadSpec, tokens: int) -> Workload:
    fitted = Path(spec.load or "")
    judged = Path(spec.judge) if spec.judge is not None else fitted
    profile = read_load(fitted, shape).profile()
    load = read_load(judged, shape).profile().load
    origin = f"from {judged.name}" if spec.judge is not None else "from the same loads (in sample)"
    source = f"{fitted.name}, trace drawn {origin}, seed {spec.seed}"
    try:
        _, deviation = inclusion_probabilities(load, shape)
    except WorkloadError as error:
        raise ExperimentError(f"{judged}: {error}") from error
    trace = draw_trace(load, shape, tokens, stream(spec.seed, "trace"), source=source)
    return Workload(profile=profile, trace=trace, source=source, deviation=deviation)


def domain_profile(shape: MoEModel, path: Path) -> ExpertProfile:
    """Profile of the even sequences of a recorded trace, for the odd ones may be judged."""
    trace = _recorded(shape, path)
    even = trace.split()[0] if trace.sequences > 1 else trace
    return _counted(even)


def domain_judged(shape: MoEModel, path: Path) -> RoutingTrace:
    """Odd sequences of a recorded trace, on which nothing was fitted; all of a single one."""
    trace = _recorded(shape, path)
    odd = trace.split()[1] if trace.sequences > 1 else trace
    return odd.head(odd.tokens)


def _recorded_trace(shape: MoEModel, path: Path, tokens: int | None) -> Workload:
    fitted, judged, source, which = _parts(_recorded(shape, path), path)
    tokens = tokens or min(DEFAULT_TOKENS, judged.tokens)
    if tokens > judged.tokens:
        raise ExperimentError(
            f"{path}: {tokens} tokens asked for; its {which}, which is judged, holds "
            f"{judged.tokens}"
        )
    return Workload(
        profile=_counted(fitted), trace=judged.head(tokens), source=source, deviation=0.0
    )


def _parts(
    recorded: RoutingTrace | StoredTrace, path: Path
) -> tuple[RoutingTrace | StoredTrace, RoutingTrace | StoredTrace, str, str]:
    """Return what is fitted, what is judged, and what captions and messages call them.

    Even and odd sequences; of a single sequence, as an engine hands out for one request, the
    halves.
    """
    if recorded.sequences > 1:
        return *recorded.split(), path.name, "part of odd sequences"
    whole = recorded.trace() if isinstance(recorded, StoredTrace) else recorded
    if whole.tokens < 2:
        raise ExperimentError(f"{path}: one token only; a profile and a judged trace need two")
    middle = whole.tokens // 2
    first, second = (_slice(whole, part) for part in (slice(middle), slice(middle, None)))
    source = f"{path.name} (one sequence: first half fitted, second judged)"
    return first, second, source, "second half"


def _slice(trace: RoutingTrace, tokens: slice) -> RoutingTrace:
    """Return some tokens of a trace of one sequence."""
    topk = trace.topk[tokens]
    phase = None if trace.phase is None else trace.phase[tokens]
    return replace(trace, topk=topk, seq_lens=np.array([len(topk)], dtype=np.int32), phase=phase)


def _recorded(shape: MoEModel, path: Path) -> RoutingTrace | StoredTrace:
    """Read a trace file into memory; of a stored trace, a folder, open it alone."""
    return StoredTrace.open(path, shape) if path.is_dir() else read_trace(path, shape)


def _counted(trace: RoutingTrace | StoredTrace) -> ExpertProfile:
    if isinstance(trace, StoredTrace):
        return trace.profile(keep_choices=True)
    return ExpertProfile.from_trace(trace, keep_choices=True)
