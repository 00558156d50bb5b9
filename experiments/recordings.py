"""Recorded loads and traces, counted: what `topomoe stats` and `topomoe fit` read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.errors import ExperimentError
from workloads import (
    PRESETS,
    MoEModel,
    StoredTrace,
    WorkloadError,
    count_trace,
    lint_load,
    lint_trace,
    load_statistics,
    model,
    read_load,
    read_trace,
    trace_statistics,
)
from workloads.readers.any_file import guess_load, guess_trace
from workloads.readers.peek import peek

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from workloads import RoutingTrace, TraceCounts, WorkloadStatistics

DEFAULT_MODEL = "DeepSeek-R1"
"""Model of files that do not say themselves which experts they speak of."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A file of loads or choices and what was counted in it.

    Attributes
    ----------
    path
        The file, or the folder of a stored trace.
    load
        float64 [layers, experts]: probability of an expert per choice.
    figures
        Its statistics.
    warnings
        What makes it doubtful, one line each.
    counts
        Of a trace; None of loads.
    """

    path: Path
    load: NDArray[np.float64]
    figures: WorkloadStatistics
    warnings: tuple[str, ...]
    counts: TraceCounts | None

    @property
    def name(self) -> str:
        """What figures and tables call it."""
        return self.path.name


def read_recording(path: Path, model_name: str | None) -> Recording:
    """Read loads (``.json``) or a trace (npz, or the folder of a stored one), and count it.

    Parameters
    ----------
    path
        The file or folder.
    model_name
        The model it must fit. None takes the shape that a stored trace names, and of other
        files that of `DEFAULT_MODEL`.

    Raises
    ------
    ExperimentError
        It is there, but of no kind that is read.
    WorkloadError
        It cannot be read or does not fit the model.
    """
    if path.is_dir():
        return _of_trace(path, StoredTrace.open(path, model(model_name) if model_name else None))
    shape = model(model_name or DEFAULT_MODEL)
    if not path.exists():
        raise ExperimentError(f"{path}: cannot be read: No such file or directory")
    try:
        if guess_trace(path, seen := peek(path), shape) is not None:
            return _of_trace(path, read_trace(path, shape))
        if guess_load(path, seen, shape) is not None:
            return _of_load(path, shape)
        # What is damaged is named by the reader of what it seems to be.
        if path.suffix == ".npz":
            return _of_trace(path, read_trace(path, shape))
        if path.suffix == ".json":
            return _of_load(path, shape)
    except WorkloadError as error:
        hint = (
            ""
            if model_name or not path.exists()
            else f" (taken for {DEFAULT_MODEL}; --model names another)"
        )
        raise ExperimentError(f"{error}{hint}") from error
    raise ExperimentError(
        f"{path}: expected recorded loads (.json), recorded choices (.npz), the folder of a "
        "stored trace, or what an engine records"
    )


def recorded_model(path: Path, model_name: str | None) -> MoEModel:
    """Return the model of a recording; of a stored trace that names no preset, its routing alone.

    Raises
    ------
    WorkloadError
        There is no such preset.
    """
    if model_name is not None or not path.is_dir():
        return model(model_name or DEFAULT_MODEL)
    meta = StoredTrace.open(path).meta
    shape = (meta.layers, meta.experts, meta.top_k)
    known = PRESETS.get(meta.model)
    if known is not None and (known.layers, known.experts, known.top_k) == shape:
        return known
    return MoEModel(
        name=meta.model,
        hidden_layers=meta.layers,
        moe_layers=tuple(range(meta.layers)),
        experts=meta.experts,
        top_k=meta.top_k,
        shared_experts=0,
        hidden=1,
        moe_intermediate=1,
    )


def _of_trace(path: Path, trace: RoutingTrace | StoredTrace) -> Recording:
    counts = count_trace(trace)
    figures = trace_statistics(counts)
    load = counts.counts / counts.counts.sum(axis=1, keepdims=True)
    return Recording(path, load, figures, lint_trace(counts, figures), counts)


def _of_load(path: Path, shape: MoEModel) -> Recording:
    load = read_load(path, shape).profile().load
    figures = load_statistics(load, source=path.name)
    return Recording(path, load, figures, lint_load(load, top_k=shape.top_k), None)
