"""Fewest hops with the load of every server, or GPU, kept near the mean."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from placement.balance.caps import (
    TOLERANCE,
    LayerCaps,
    Places,
    layer_caps,
    priced_caps,
    wanted_load,
)
from placement.balance.relaxation import BalanceRelaxation, solve_relaxation
from placement.balance.search import BalanceTerms, Effort, Found, search
from placement.balance.start import start
from placement.errors import InfeasibleError, PlacementError
from placement.hops import IlpLoad
from placement.slots import place_on_gpus
from placement.solve import BUDGET_S, SolveReport, limit_named, status_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem

_RELAXATION_SHARE = 0.6
_ROUNDS, _SMALL_ROUNDS = 6, 8
_HOT = (0.01, 0.1, 1.0)
"""First temperatures: the first keeps what rounding got right, those of further rounds on small
problems forget it."""
_SMALL = 2_000_000
"""Proposals in all up to which a problem is small: a round takes a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Balanced:
    """Least expected hops with the load of a layer on a place at most ``beta`` x the mean.

    A linear relaxation bounds the hops and is rounded; annealing of swaps and moves repairs and
    improves the rounding.

    Attributes
    ----------
    beta
        Most load of a place over the mean, at least 1.
    relax
        Give layers that cannot meet beta their least maximum load as cap (`layer_caps` reports
        it with its lower bound) instead of refusing.
    scope
        Whose load is capped: ``server`` or ``gpu``.
    price
        Instead of forbidding load above the cap, hops that it costs: the policy minimises hops
        plus `price` times the mean over layers of the load above, in mean loads of a place.
    seed
        Of all searches.
    time_limit_s
        Wall seconds; annealing is cut short to keep them; None allows 20, and the report calls
        them a ``budget``. Only where they end without any
        placement within hard caps is the search made again without them, until it finds one.
    proposals
        Annealing steps proposed per expert of every layer.
    """

    beta: float
    relax: bool = False
    scope: str = "server"
    price: float | None = None
    seed: int = 0
    time_limit_s: float | None = None
    proposals: int = 700
    name: str = "balanced"

    def __post_init__(self) -> None:
        """Refuse a price or limit that makes no sense."""
        if self.price is not None and not (np.isfinite(self.price) and self.price >= 0):
            raise PlacementError(f"price must be a number of at least 0, got {self.price}")
        if not self._seconds > 0 or self.proposals < 1:
            raise PlacementError("time_limit_s and proposals must be positive")

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place every expert at few hops within the caps.

        Raises
        ------
        InfeasibleError
            If a layer cannot meet a hard beta, or beta and C_exp together.
        """
        begun = time.perf_counter()
        places = Places.of(problem, self.scope)
        known = self._uncapped(problem, places, begun)
        if known is not None:
            return known
        for seconds in (self._seconds, np.inf):
            for even in (False, True):
                caps = self._caps(problem, even=even)
                model = self._relaxed(problem, places, caps, seconds)
                found = self._search(problem, places, caps, model, begun + 0.9 * seconds)
                if found is not None:
                    limit = "time" if seconds > self._seconds else found.limit
                    found = replace(found, limit=limit)
                    return self._placed(problem, places, found, model, begun)
            if time.perf_counter() < begun + 0.9 * seconds and model[0].limit is None:
                break
        raise InfeasibleError(
            f"no placement found with beta {self.beta:g} in every layer and at most "
            f"{problem.server_slots} experts on a server (server_slots); raise either"
        )

    @property
    def _seconds(self) -> float:
        return BUDGET_S if self.time_limit_s is None else self.time_limit_s

    def _uncapped(
        self, problem: PlacementProblem, places: Places, begun: float
    ) -> Placement | None:
        """Return the hop optimum where servers cost the same and it meets beta; else None.

        It is spread evenly then, which the annealing, once below the cap, has no reason to be.
        """
        wanted = wanted_load(places, self.beta)
        if np.ptp(problem.cost, axis=1).max() > 0 or self.price is not None:
            return None
        placement = IlpLoad()(problem)
        place = placement.gpu_of_expert.astype(np.int64)
        place //= problem.gpus_per_server // places.per_server
        caps = np.full(problem.layers, wanted * (1 + TOLERANCE))
        if placement.solve is None or _excess(problem, places, place, caps) > 0:
            return None
        report = replace(placement.solve, seconds=time.perf_counter() - begun)
        return replace(placement, policy=self.name, solve=report)

    def _caps(self, problem: PlacementProblem, *, even: bool) -> LayerCaps:
        if self.price is not None:
            return priced_caps(problem, self.beta, scope=self.scope)
        return layer_caps(
            problem, self.beta, relax=self.relax, even=even, scope=self.scope, seed=self.seed
        )

    def _relaxed(
        self, problem: PlacementProblem, places: Places, caps: LayerCaps, seconds: float
    ) -> tuple[BalanceRelaxation, BalanceTerms]:
        # Price per mean load of a place, to price per mean load of an expert and k choices.
        price = None if self.price is None else self.price * places.server.size / problem.top_k
        relaxed = solve_relaxation(
            problem,
            caps.cap * places.per_server,
            price=price,
            time_limit_s=seconds * _RELAXATION_SHARE,
        )
        return relaxed, BalanceTerms(cap=caps.cap, price=price, bound=relaxed.bound)

    def _search(
        self,
        problem: PlacementProblem,
        places: Places,
        caps: LayerCaps,
        model: tuple[BalanceRelaxation, BalanceTerms],
        deadline: float,
    ) -> Found | None:
        """Anneal; layers that end above their cap start again, locked, from a packing that fits.

        Locks can bar the way to the best placement, so small problems go on without them.
        """
        relaxed, terms = model
        small = problem.layers * problem.experts * self.proposals <= _SMALL
        fixed = caps.short | (relaxed.share is None and self.price is None)
        best, least = None, np.inf
        for turn in range(_SMALL_ROUNDS if small else _ROUNDS):
            packed = {int(at): caps.packing[at] for at in np.flatnonzero(fixed)}
            place = start(problem, places, relaxed, packed)
            if place is None:
                fixed = np.zeros_like(fixed)
                continue
            effort = Effort(
                proposals=self.proposals,
                deadline=deadline,
                seed=self.seed + turn,
                hot=_HOT[turn % len(_HOT) if small else 0],
            )
            found = search(problem, places, place, terms, locked=fixed, effort=effort)
            if found.over.any():
                fixed = fixed | found.over | (turn == _ROUNDS - 2)
                continue
            objective = self._objective(problem, places, found.place, terms)
            if objective < least:
                best, least = found, objective
            if not small or status_of(least, self._bound(problem, relaxed)) == "optimal":
                break
            fixed = np.zeros_like(fixed)
        return best

    def _objective(
        self,
        problem: PlacementProblem,
        places: Places,
        place: NDArray[np.int64],
        terms: BalanceTerms,
    ) -> float:
        hops = _hops(problem, places, place)
        return hops + (self.price or 0.0) * _excess(problem, places, place, terms.cap)

    @staticmethod
    def _bound(problem: PlacementProblem, relaxed: BalanceRelaxation) -> float:
        return relaxed.bound * problem.top_k / problem.layers / problem.experts

    def _placed(
        self,
        problem: PlacementProblem,
        places: Places,
        found: Found,
        model: tuple[BalanceRelaxation, BalanceTerms],
        begun: float,
    ) -> Placement:
        relaxed, terms = model
        objective = self._objective(problem, places, found.place, terms)
        bound = self._bound(problem, relaxed)
        report = SolveReport(
            status=status_of(objective, bound),
            objective=objective,
            bound=bound,
            seconds=time.perf_counter() - begun,
            limit=limit_named(relaxed.limit or found.limit, self.time_limit_s),
        )
        if self.scope == "gpu":
            return place_on_gpus(problem, found.place, policy=self.name, solve=report)
        return problem.place(found.place, policy=self.name, solve=report)


def _hops(problem: PlacementProblem, places: Places, place: NDArray[np.int64]) -> float:
    cost = np.take_along_axis(problem.cost, places.server[place], axis=1)
    return problem.top_k * float((problem.profile.load * cost).sum()) / problem.layers


def _excess(
    problem: PlacementProblem,
    places: Places,
    place: NDArray[np.int64],
    cap: NDArray[np.float64],
) -> float:
    """Mean over layers of the load above the caps, in mean loads of a place."""
    sites = places.server.size
    flat = (np.arange(problem.layers)[:, None] * sites + place).ravel()
    heat = np.bincount(flat, problem.profile.load.ravel(), problem.layers * sites)
    over = np.maximum(heat.reshape(problem.layers, sites) - cap[:, None], 0.0)
    return float(over.sum()) * sites / problem.layers
