"""Least seconds of a step: the busiest GPU and the traffic, weighed in one unit."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from placement.balance.caps import Places
from placement.balance.start import start
from placement.errors import PlacementError
from placement.greedy import GreedyLoad
from placement.slots import place_on_gpus
from placement.solve import BUDGET_S, SolveReport, limit_named, status_of
from placement.step.relaxation import StepTerms, relax
from placement.step.search import Effort, search, seconds_of
from workloads import ExpertProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.step.relaxation import StepRelaxation
    from placement.step.seconds import StepSeconds

_BOUND_SHARE, _SEARCH_SHARE = 0.5, 0.9
_ROUNDS = 24
_FREEDOM = ((0.003, 2.0), (1.0, 0.0), (0.1, 0.0), (1.0, 0.5))
"""First temperature and guide: the first keep what rounding got right, those of further rounds
on small problems forget it."""
_SMALL = 200_000
"""Proposals of a round up to which a problem is small and gets all rounds."""


@dataclass(frozen=True, slots=True)
class LeastSeconds:
    """Least mean over layers of the busiest GPU's seconds plus the seconds of all traffic.

    A linear relaxation, tightened by what whole experts can share a GPU, bounds the seconds and
    is rounded; annealing of moves and swaps between GPUs improves the rounding. The report is
    in seconds per step and layer.

    Attributes
    ----------
    step
        Prices of a slot, a token and a byte on a link.
    seed
        Of the search.
    time_limit_s
        Wall seconds; bound and annealing are cut short to keep them. None allows 20, and the
        report calls them a ``budget``.
    proposals
        Annealing steps proposed per expert of every layer.
    """

    step: StepSeconds
    seed: int = 0
    time_limit_s: float | None = None
    proposals: int = 300
    name: str = "least-seconds"

    def __post_init__(self) -> None:
        """Refuse efforts that mean nothing."""
        if not self._seconds > 0 or self.proposals < 1:
            raise PlacementError("time_limit_s and proposals must be positive")
        if self.step.per_slot_s == 0 and self.step.per_token_s == 0:
            raise PlacementError(
                "per_slot_s and per_token_s are both 0, so that no GPU is waited for; expected one "
                "of them above 0 (for traffic alone, IlpLoad gives the fewest hops)"
            )

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place every expert on a GPU."""
        begun, seconds = time.perf_counter(), self._seconds
        work = self.step.work(problem.profile, problem.top_k)
        pull = self.step.pull(problem.profile, problem.top_k)
        # Experts of mean work 1 keep the solver's absolute tolerances small.
        scale = max(float(work.mean()), float(pull.mean()), 1e-300)
        terms = StepTerms(problem, work / scale, pull / scale)
        relaxed = relax(terms, deadline=begun + _BOUND_SHARE * seconds)
        gpu, hurried = self._search(terms, relaxed, begun + _SEARCH_SHARE * seconds)
        unscale = scale / problem.layers
        objective, bound = seconds_of(terms, gpu) * unscale, relaxed.bound * unscale
        report = SolveReport(
            status=status_of(objective, bound, unit="seconds"),
            objective=objective,
            bound=min(bound, objective),
            seconds=time.perf_counter() - begun,
            limit=limit_named("time" if hurried else relaxed.limit, self.time_limit_s),
            unit="seconds",
        )
        return place_on_gpus(problem, gpu, policy=self.name, solve=report)

    @property
    def _seconds(self) -> float:
        return BUDGET_S if self.time_limit_s is None else self.time_limit_s

    def _search(
        self, terms: StepTerms, relaxed: StepRelaxation, deadline: float
    ) -> tuple[NDArray[np.int64], bool]:
        """Anneal the rounded relaxation; small problems from several seeds."""
        first = _rounded(terms, relaxed)
        best, least, hurried = first, seconds_of(terms, first), False
        rounds = _ROUNDS if first.size * self.proposals <= _SMALL else 1
        for turn in range(rounds):
            hot, guide = _FREEDOM[turn % len(_FREEDOM)]
            effort = Effort(self.proposals, deadline, self.seed + turn, hot, guide)
            found, hurried = search(terms, first, relaxed.aim, effort)
            value = seconds_of(terms, found)
            if value < least:
                best, least = found, value
            if hurried or status_of(least, relaxed.bound, unit="seconds") == "optimal":
                break
        return best, hurried


def _rounded(terms: StepTerms, relaxed: StepRelaxation) -> NDArray[np.int64]:
    """int64 [layers, experts]: GPUs that keep every count cap, near the relaxation's shares."""
    problem = terms.problem
    # `start` deals by load: here the work of an expert is what its GPU bears.
    work = np.maximum(terms.work, 1e-12)
    profile = ExpertProfile(load=work / work.sum(axis=1, keepdims=True), source="work")
    places = Places.of(problem, "gpu")
    gpu = start(replace(problem, profile=profile), places, relaxed.rounding, {})
    if gpu is None:
        return GreedyLoad()(problem).gpu_of_expert.astype(np.int64)
    return gpu
