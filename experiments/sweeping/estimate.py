"""How long the runs of a sweep may take, before any of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.errors import ExperimentError
from experiments.sweeping.progress import counted, duration
from experiments.workload import DEFAULT_TOKENS
from workloads import model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.spec import RunSpec
    from experiments.sweeping.plan import Planned
    from experiments.sweeping.store import Store

ENOUGH = 500
"""Stored runs that an estimate looks at."""

_FLOOR_S, _CHOICE_S, _FLUID_LAYER_S, _CROSSING_S = 0.15, 5e-7, 0.3, 5e-7
"""Seconds of any run; of a choice drawn, counted and sent; of a layer on the fluid network (256
GPUs); of a chunk over a link: orders of magnitude, as measured on two cores."""
_LINKS = 5
"""Links on a path, about."""


def estimate(todo: Sequence[Planned], store: Store | None, workers: int | None) -> str:
    """Say how long runs may take: from those like them that are stored, else from their sizes.

    Parameters
    ----------
    todo
        The runs.
    store
        Where runs are that tell.
    workers
        Processes; None where nobody knows.
    """
    known = {} if store is None else stored_seconds(store)
    total = sum(known.get(kind(run.spec)) or guess_s(run.spec) for run in todo)
    told = sum(kind(run.spec) in known for run in todo)
    basis = f"as stored runs like {told} of them took" if told else "guessed from sizes"
    if told < len(todo):
        basis += ", right within a few times at best: policies that search take their own time"
    if workers is None:
        return f"about {duration(total)} of a worker's time, {basis}"
    seconds = total / min(workers, len(todo))
    return f"about {duration(seconds)} on {counted(workers, 'worker')}, {basis}"


def kind(spec: RunSpec) -> tuple[str, ...]:
    """Return what the seconds of a run depend on most."""
    return (spec.model, spec.cluster, spec.placement.policy, spec.network.kind)


def stored_seconds(store: Store) -> dict[tuple[str, ...], float]:
    """Return the mean seconds of stored runs by their kind."""
    found: dict[tuple[str, ...], list[float]] = {}
    for run_id in store.ids()[:ENOUGH]:
        try:
            spec, seconds = store.read(run_id).spec, store.provenance(run_id)["run_s"]
        except (ExperimentError, KeyError):
            continue
        key = (
            spec["model"],
            spec["cluster"],
            spec["placement"]["policy"],
            spec["network"]["kind"],
        )
        found.setdefault(key, []).append(seconds)
    return {key: sum(seconds) / len(seconds) for key, seconds in found.items()}


def guess_s(spec: RunSpec) -> float:
    """Return the order of magnitude of a run's seconds, from its sizes."""
    shape = model(spec.model)
    per_token = shape.layers * shape.top_k
    tokens = spec.tokens or DEFAULT_TOKENS
    seconds = _FLOOR_S + _CHOICE_S * per_token * (tokens + spec.workload.profile_tokens)
    if spec.network.kind == "fluid":
        seconds += _FLUID_LAYER_S * shape.layers
    if spec.network.kind == "packet":
        # A message is a hidden state out in FP8 and back in BF16, as by default.
        chunks = per_token * tokens * 3 * shape.hidden / spec.network.chunk_bytes
        seconds += _CROSSING_S * _LINKS * chunks
    return seconds
