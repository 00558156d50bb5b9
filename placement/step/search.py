"""Annealing of a whole placement for the seconds of a step, cooled step by step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.step.relaxation import StepTerms

_STEPS = 40
_COLD = 0.0002
"""Last temperature, relative to what a mean expert costs at most: its work, or its traffic
across the spread of costs."""
_FINAL_SHARE = 0.2
_LEAST_STEPS = 20_000
"""Steps that even a handful of experts gets: they take milliseconds."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how freely to anneal.

    Attributes
    ----------
    proposals
        Steps proposed per expert of every layer.
    deadline
        ``time.perf_counter`` value after which annealing ends.
    seed
        Of the proposals.
    hot
        First temperature, in the unit of the last.
    guide
        Price of work above the aim, beside that of the busiest GPU; none at the end.
    """

    proposals: int
    deadline: float
    seed: int
    hot: float
    guide: float


def search(
    terms: StepTerms,
    gpu: NDArray[np.int64],
    aim: NDArray[np.float64],
    effort: Effort,
) -> tuple[NDArray[np.int64], bool]:
    """Anneal from `gpu` [layers, experts], the busiest GPUs drawn to `aim` [layers].

    Returns
    -------
    int64 [layers, experts], and whether the deadline cut the annealing short.
    """
    from placement.step._search_kernel import (  # noqa: PLC0415  numba is slow to import
        Caps,
        Prices,
        anneal,
    )

    problem, inside = terms.problem, terms.problem.gpus_per_server
    spread = float(np.ptp(problem.cost, axis=1).max())
    unit = max(float(terms.work.mean()), float(terms.pull.mean()) * spread)
    caps = Caps(
        inside,
        terms.gpu_slots,
        ceil(problem.server_slots / inside),
        problem.layer_slots,
        problem.server_slots,
    )
    by_work = np.argsort(-terms.work, axis=1, kind="stable")
    cost = np.array(problem.cost)
    rng = np.random.Generator(np.random.PCG64(effort.seed))
    steps = max(effort.proposals * gpu.size, _LEAST_STEPS)
    temperatures = np.geomspace(effort.hot, _COLD, _STEPS)
    schedule = [(t, effort.guide, (1 - _FINAL_SHARE) / _STEPS) for t in temperatures]
    schedule.append((_COLD / 10, 0.0, _FINAL_SHARE))
    state, hurried = _state(terms, gpu), False
    for temperature, guide, part in schedule:
        if time.perf_counter() > effort.deadline:
            hurried = True
            break
        prices = Prices(terms.work, terms.pull, by_work, cost, aim, guide)
        anneal(rng, state, prices, caps, temperature * unit, int(steps * part))
        state = _state(terms, state.gpu)
    return state.gpu, hurried


def seconds_of(terms: StepTerms, gpu: NDArray[np.int64]) -> float:
    """Sum over layers of busiest work and traffic."""
    problem = terms.problem
    cost = np.take_along_axis(problem.cost, gpu // problem.gpus_per_server, axis=1)
    return float(_busy(terms, gpu, terms.work).max(axis=1).sum() + (terms.pull * cost).sum())


def _busy(
    terms: StepTerms, gpu: NDArray[np.int64], weight: NDArray[np.float64] | None
) -> NDArray[Any]:
    """[layers, GPUs]: sums over the experts of a GPU; without weights, their number."""
    problem = terms.problem
    gpus = problem.servers * problem.gpus_per_server
    flat = (np.arange(problem.layers)[:, None] * gpus + gpu).ravel()
    ravelled = None if weight is None else weight.ravel()
    return np.bincount(flat, ravelled, problem.layers * gpus).reshape(problem.layers, gpus)


def _state(terms: StepTerms, gpu: NDArray[np.int64]) -> Any:
    """Sum up an assignment afresh, so that rounding does not pile up."""
    from placement.step._search_kernel import State  # noqa: PLC0415  numba is slow to import

    busy = _busy(terms, gpu, terms.work)
    slots = _busy(terms, gpu, None)
    in_server = slots.reshape(len(gpu), terms.problem.servers, -1).sum(axis=2)
    return State(
        gpu.copy(),
        busy,
        _busy(terms, gpu, terms.pull),
        busy.max(axis=1),
        slots,
        in_server,
        slots.sum(axis=0),
        in_server.sum(axis=0),
    )
