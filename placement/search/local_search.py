"""Options combined: one local search over hops, copies, balance, replicas and moves."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError, PlacementError
from placement.search.base import base_of
from placement.search.bounds import bound_here
from placement.search.candidates import candidates
from placement.search.found import Found, Proof
from placement.search.items import items_of, place_items
from placement.search.layer import LayerSearch, Robust, arrange
from placement.search.refusal import refusal
from placement.search.repair import repaired_layers
from placement.search.share_moves import PROPOSALS, share_moves
from placement.search.start import least_beta, starts_of
from placement.search.terms import layers_of
from placement.solve import SolveReport, status_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.policy import Policy
    from placement.problem import PlacementProblem
    from placement.search.copies import Scope
    from placement.search.layer import Arrangement
    from workloads import ExpertProfile

EXCESS = 1e-9
"""Load above a cap, in mean loads of a place, that is rounding."""
MOST_PROPOSALS, LEAST_PROPOSALS, ALL_PROPOSALS = 1500, 200, 20_000_000
"""Swaps proposed for each slot by default, in small and in large problems, and in all between."""
_BOUND_SHARE = 0.4
"""Part of the time that bounding the hops under a cap may take."""
_BUDGETS_SHARE = 0.3
"""Part of the time left that sharing a budget of moves out may take."""


@dataclass(frozen=True, slots=True)
class LocalSearch:
    """Least hops and copies under caps on load and moves, by annealing every layer's slots.

    The slots are those of a start placement: its replicas and its number of slots of every
    layer on every place, with what the caps leave free. They are swapped, never added or
    removed; a replica's load is its expert's, shared equally. Where these slots cannot meet a
    hard beta that other counts within the caps can, and there are no replicas, they are those
    of `Balanced`, or with `max_moves` of the previous placement after few moves that meet beta;
    only what the budget leaves is spent on the objective. Besides the slots of a previous
    placement without replicas, those of one that suits the problem are tried: see `candidates`.
    The objective is, per token and layer, ``hops x expected hops + copies x expected copies +
    move_price x moves + beta_price x load above the cap``; the report gives it and its bound in
    hops, copies, copy-hops or, where units mix, as a weighted sum. The bound is one on all
    placements within the caps (see `proven_bound`); with replicas, on all arrangements of the
    start's slots.

    Attributes
    ----------
    hops, copies
        Weights of the terms. A copy is sent to every distinct place of a token's experts.
    hop_weighted
        Whether a copy counts the hops to its place, instead of 1.
    scope
        What a place is, for copies, balance and moves: ``gpu`` or ``server``.
    beta
        Most load of a place over the layer's mean, in every domain; None for no cap.
    relax
        Give a layer that cannot meet beta the least cap found, instead of refusing.
    beta_price
        Instead of forbidding load above the cap, what it costs, in the unit of the objective:
        by the mean load of a place, summed over places, mean over layers (and domains).
    robust
        How domains' copies count together, in every layer: ``mean`` over all tokens, ``worst``
        domain, or z: mean over domains + z x standard deviation (1 is the worst of two).
    domains
        Training profiles with choices; by default the problem's own is the only one.
    flatten
        Weight tokens by ``mean over their experts of load ** -flatten`` for the copies: with 1
        every expert counts about the same, whatever its load in training, which carries over
        better to traffic of another kind. 0 counts all tokens alike. The report's objective and
        bound are on the tokens so weighted.
    base
        Policy that makes the start placement. By default: `previous`; else `Replicated` where
        redundant slots are asked for; else, where hops count, the hop optimum (under beta);
        else consecutive experts with equal counts.
    previous
        A placement to be changed: start, and where moves are counted from. Slots keep their
        place unless that costs, and in scope ``server`` their GPU where their server stays.
    redundant
        Slots of a layer beyond one per expert; None for those of the start. A previous placement
        with fewer is grown: see `grown`. Slots that it did not have must be copied wherever they
        go: they are no moves, neither in `max_moves` nor in `move_price`, and come on top.
    max_moves
        Most slots of `previous`, over all layers, that leave their place.
    move_price
        What a move must save, per token and layer, to be made.
    starts
        Starts of the search of each layer.
    proposals
        Swaps proposed from every start, per slot of a layer; by default 1500, and in large
        problems fewer, twenty millions in all, but at least 200.
    seed
        Of the search.
    time_limit_s
        Wall seconds: the search is hastened to keep them and the report's limit says ``time``;
        layers whose turn comes late keep their start. Listing the tokens and proving bounds is
        not cut short, and may take longer than a small limit. None for no limit.
    """

    hops: float = 1.0
    copies: float = 0.0
    hop_weighted: bool = False
    scope: Scope = "gpu"
    beta: float | None = None
    relax: bool = False
    beta_price: float | None = None
    robust: Robust = "mean"
    domains: tuple[ExpertProfile, ...] = ()
    flatten: float = 0.0
    base: Policy | None = None
    previous: Placement | None = None
    redundant: int | None = None
    max_moves: int | None = None
    move_price: float = 0.0
    starts: int = 2
    proposals: int | None = None
    seed: int = 0
    time_limit_s: float | None = None
    name: str = "local-search"

    def __post_init__(self) -> None:
        """Refuse options that mean nothing."""
        if self.scope not in ("gpu", "server"):
            raise PlacementError(f"unknown scope '{self.scope}'; allowed: gpu, server")
        for what in ("hops", "copies", "move_price", "flatten", "beta_price"):
            weight = getattr(self, what)
            if weight is not None and not (np.isfinite(weight) and weight >= 0):
                raise PlacementError(f"{what} is {weight}; expected a finite number of 0 or more")
        if self.robust not in ("mean", "worst") and not (
            isinstance(self.robust, int | float) and 0 <= self.robust < np.inf
        ):
            raise PlacementError(
                f"robust is {self.robust!r}; allowed: mean, worst, or a number of 0 or more"
            )
        self._check_beta()
        self._check_start()
        if self.starts < 1 or (self.proposals is not None and self.proposals < 1):
            raise PlacementError("starts and proposals must be positive")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise PlacementError(f"time_limit_s is {self.time_limit_s}; expected seconds above 0")

    def _check_beta(self) -> None:
        if self.beta is not None and not 1 <= self.beta < np.inf:
            raise PlacementError(f"beta is {self.beta}; expected a number of at least 1")
        if self.beta_price is not None and self.beta is None:
            raise PlacementError("beta_price needs beta, the load above which it is paid")
        if self.beta_price is not None and self.relax:
            raise PlacementError("give relax or beta_price, not both: a priced beta is no cap")

    def _check_start(self) -> None:
        if self.previous is None and (self.max_moves is not None or self.move_price):
            raise PlacementError("max_moves and move_price need a previous placement")
        if self.previous is not None and self.base is not None:
            raise PlacementError("give a base or a previous placement, not both")
        for what in ("max_moves", "redundant"):
            number = getattr(self, what)
            if number is not None and number < 0:
                raise PlacementError(f"{what} is {number}; expected 0 or more")

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Arrange the slots of every layer.

        Raises
        ------
        InfeasibleError
            If a layer cannot meet a hard beta with these slots and moves.
        PlacementError
            If copies count and a profile has no choices, or shapes differ.
        """
        begun = time.perf_counter()
        end = np.inf if self.time_limit_s is None else begun + self.time_limit_s
        proof = Proof(self, problem, end)
        best: Found | None = None
        failure: InfeasibleError | None = None
        until = np.inf if self.time_limit_s is None else end - _BOUND_SHARE * self.time_limit_s
        starts = candidates(self, problem, proof.moves)
        for nth, start in enumerate(starts):
            now = time.perf_counter()
            if best is not None and now > until:
                break
            try:
                found = self._from(start(), problem, now + (until - now) / (len(starts) - nth))
            except InfeasibleError as error:
                failure = failure or error
                continue
            if best is None or found.rank < best.rank:
                best = found
            bound = proof.bound(best)
            if status_of(best.objective, bound) == "optimal":
                break
        if best is None:
            raise failure or InfeasibleError("no start was found")
        return self._placed(best, problem, proof.bound(best), begun)

    def _from(self, start: Placement, problem: PlacementProblem, end: float) -> Found:
        """Search the slots of one start."""
        base = base_of(self, problem, start)
        layers = layers_of(self, problem, base)
        first = [self._place(items.gpu, problem) for items in items_of(base.placement)]
        first = repaired_layers(self, layers, first)
        now = time.perf_counter()
        until = now + _BUDGETS_SHARE * (end - now)
        bounds = [bound_here(self, problem, at, layer) for at, layer in enumerate(layers)]
        layers = share_moves(
            layers,
            first,
            self.max_moves,
            bounds=bounds,
            seed=self.seed,
            proposals=min(PROPOSALS, self._proposals(layers)),
            deadline=until,
        )
        arranged = self._arranged(layers, first, (base.level, bounds), end)
        return Found(base.placement, *zip(*arranged, strict=True))

    def _placed(
        self, found: Found, problem: PlacementProblem, bound: float, begun: float
    ) -> Placement:
        placement = place_items(
            problem,
            found.base,
            [arrangement.place for arrangement in found.arranged],
            scope=self.scope,
            previous=self.previous,
            policy=self.name,
        )
        status = status_of(found.objective, bound)
        report = SolveReport(
            status=status,
            objective=found.objective,
            # Rounding may lift a tight bound above the objective; no more than that is hidden.
            bound=min(bound, found.objective) if status == "optimal" else bound,
            seconds=time.perf_counter() - begun,
            limit="time" if any(arrangement.cut for arrangement in found.arranged) else None,
            unit=self._unit(),
        )
        return replace(placement, solve=report)

    def _unit(self) -> str:
        """Unit of the objective; moves are priced in that of the other term."""
        if not self.copies and self.hops == 1:
            return "hops"
        if not self.hops and self.copies == 1:
            return "copy-hops" if self.hop_weighted else "copies"
        return "weighted sum"

    def _arranged(
        self,
        layers: list[LayerSearch],
        first: list[NDArray[np.int64]],
        known: tuple[list[NDArray[np.int64] | None], list[float]],
        end: float,
    ) -> list[tuple[LayerSearch, Arrangement]]:
        """Search every layer with a stream of its own, so that none depends on the others.

        Layers come back with the load caps that they were held to.
        """
        found = []
        proposals = self._proposals(layers)
        for number, (layer, start, level, bound) in enumerate(
            zip(layers, first, *known, strict=True)
        ):
            now = time.perf_counter()
            rng = np.random.Generator(np.random.PCG64([self.seed, number]))
            run = partial(
                arrange,
                proposals=proposals * layer.items,
                rng=rng,
                bound=bound,
                deadline=now + (end - now) / (len(layers) - number),
            )
            held = layer
            best = run(layer, starts_of(layer, start, number=self.starts, rng=rng, level=level))
            if best.excess > EXCESS and layer.loads is not None and layer.loads.price is None:
                factor, place = least_beta(layer, start, rng=rng)
                if factor == 1 or self.relax:
                    raised = replace(layer.loads, beta=layer.loads.beta * factor)
                    held = replace(layer, loads=raised)
                    best = run(held, [place])
            if best.excess > EXCESS:
                raise refusal(
                    layers,
                    first,
                    failed=number,
                    scope=self.scope,
                    seed=self.seed,
                    deadline=end,
                )
            found.append((held, best))
        return found

    def _proposals(self, layers: list[LayerSearch]) -> int:
        """Swaps proposed per slot from every start."""
        if self.proposals is not None:
            return self.proposals
        slots = self.starts * sum(layer.items for layer in layers)
        return max(LEAST_PROPOSALS, min(MOST_PROPOSALS, ALL_PROPOSALS // slots))

    def _place(self, gpu: NDArray[np.int64], problem: PlacementProblem) -> NDArray[np.int64]:
        return gpu if self.scope == "gpu" else gpu // problem.gpus_per_server
