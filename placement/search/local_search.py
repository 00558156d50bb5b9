"""Options combined: one local search over hops, copies, balance, replicas and moves."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from placement.balance import Balanced
from placement.errors import InfeasibleError, PlacementError
from placement.field.equal import equal_counts
from placement.hops import IlpLoad
from placement.search.copies_bound import copies_bound
from placement.search.flatten import flattened
from placement.search.items import items_of, place_items, slots_of
from placement.search.layer import CopyTerm, LayerSearch, LoadCap, MoveCap, Robust, arrange
from placement.search.share_moves import share_moves
from placement.search.start import least_beta, starts_of
from placement.slots import place_on_gpus
from placement.solve import SolveReport, status_of
from placement.training_tokens import training_choices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.policy import Policy
    from placement.problem import PlacementProblem
    from placement.search.copies import Scope
    from placement.search.items import LayerItems
    from placement.search.layer import Arrangement
    from workloads import ExpertProfile

EXCESS = 1e-9
"""Load above a cap, in mean loads of a place, that is rounding."""


@dataclass(frozen=True, slots=True)
class LocalSearch:
    """Least hops and copies under caps on load and moves, by annealing every layer's slots.

    The slots are those of a start placement: its replicas and its number of slots of every
    layer on every place, with what the caps leave free. They are swapped, never added or
    removed; a replica's load is its expert's, shared equally. The objective is, per token and
    layer, ``hops x expected hops + copies x expected copies + move_price x moves``; the report
    gives it and its bound in hops, copies, copy-hops or, where units mix, as a weighted sum. The
    bound is the sum of bounds on both terms, for arrangements of the same slots.

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
        Policy that makes the start placement. By default: `previous`; else, where hops count,
        the hop optimum (under beta); else consecutive experts with equal counts.
    previous
        A placement to be changed: start, and where moves are counted from.
    max_moves
        Most slots, over all layers, that leave their place.
    move_price
        What a move must save, per token and layer, to be made.
    starts
        Starts of the search of each layer.
    proposals
        Swaps proposed from every start, per slot of a layer.
    seed
        Of the search.
    """

    hops: float = 1.0
    copies: float = 0.0
    hop_weighted: bool = False
    scope: Scope = "gpu"
    beta: float | None = None
    relax: bool = False
    robust: Robust = "mean"
    domains: tuple[ExpertProfile, ...] = ()
    flatten: float = 0.0
    base: Policy | None = None
    previous: Placement | None = None
    max_moves: int | None = None
    move_price: float = 0.0
    starts: int = 2
    proposals: int = 1500
    seed: int = 0
    name: str = "local-search"

    def __post_init__(self) -> None:
        """Refuse options that mean nothing."""
        if self.scope not in ("gpu", "server"):
            raise PlacementError(f"unknown scope '{self.scope}'; allowed: gpu, server")
        for what in ("hops", "copies", "move_price", "flatten"):
            weight = getattr(self, what)
            if not (np.isfinite(weight) and weight >= 0):
                raise PlacementError(f"{what} is {weight}; expected a finite number of 0 or more")
        if self.robust not in ("mean", "worst") and not (
            isinstance(self.robust, int | float) and 0 <= self.robust < np.inf
        ):
            raise PlacementError(
                f"robust is {self.robust!r}; allowed: mean, worst, or a number of 0 or more"
            )
        if self.beta is not None and not 1 <= self.beta < np.inf:
            raise PlacementError(f"beta is {self.beta}; expected a number of at least 1")
        if self.starts < 1 or self.proposals < 1:
            raise PlacementError("starts and proposals must be positive")
        if self.previous is None and (self.max_moves is not None or self.move_price):
            raise PlacementError("max_moves and move_price need a previous placement")
        if self.previous is not None and self.base is not None:
            raise PlacementError("give a base or a previous placement, not both")
        if self.max_moves is not None and self.max_moves < 0:
            raise PlacementError(f"max_moves is {self.max_moves}; expected 0 or more")

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
        base = self._start(problem)
        layers = self._layers(problem, base)
        first = [self._place(items.gpu, problem) for items in items_of(base)]
        layers = share_moves(layers, first, self.max_moves, seed=self.seed)
        found, bounds = [], []
        for number, (layer, start) in enumerate(zip(layers, first, strict=True)):
            # A stream for each layer: its answer does not depend on the others.
            rng = np.random.Generator(np.random.PCG64([self.seed, number]))
            found.append(self._arranged(number, layer, start, rng))
            bounds.append(self._hop_bound(problem, number, layer) + _copies_bound(layer))
        placement = place_items(
            problem,
            base,
            [arrangement.place for arrangement in found],
            scope=self.scope,
            keep=self.previous is not None,
            policy=self.name,
        )
        objective = float(np.mean([arrangement.value for arrangement in found]))
        bound = float(np.mean(bounds))
        report = SolveReport(
            status=status_of(objective, bound),
            objective=objective,
            bound=bound,
            seconds=time.perf_counter() - begun,
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
        number: int,
        layer: LayerSearch,
        start: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> Arrangement:
        """Search one layer; where beta is not met, find out what can be."""
        starts = starts_of(layer, start, number=self.starts, rng=rng)
        proposals = self.proposals * layer.items
        found = arrange(layer, starts, proposals=proposals, rng=rng)
        factor = 1.0
        if found.excess > EXCESS and layer.loads is not None:
            factor, level = least_beta(layer, start, rng=rng)
            if factor == 1 or self.relax:
                raised = LoadCap(layer.loads.load, layer.loads.beta * factor)
                layer = replace(layer, loads=raised)
                found = arrange(layer, [level], proposals=proposals, rng=rng)
        if found.excess > EXCESS:
            raise InfeasibleError(_why(number, layer, factor, self.scope))
        return found

    def _start(self, problem: PlacementProblem) -> Placement:
        if self.previous is not None:
            return _fitting(self.previous, problem)
        if self.base is not None:
            return _fitting(self.base(problem), problem)
        if not self.hops and not (self.copies and self.hop_weighted):
            counts = equal_counts(problem)
            gpu = np.stack([np.repeat(np.arange(len(row)), row) for row in counts])
            return place_on_gpus(problem, gpu, policy=self.name)
        if self.beta is None:
            return IlpLoad()(problem)
        return Balanced(self.beta, relax=self.relax, scope=self.scope, seed=self.seed)(problem)

    def _place(self, gpu: NDArray[np.int64], problem: PlacementProblem) -> NDArray[np.int64]:
        return gpu if self.scope == "gpu" else gpu // problem.gpus_per_server

    def _layers(self, problem: PlacementProblem, base: Placement) -> list[LayerSearch]:
        """Say for every layer what counts."""
        slots = slots_of(problem, base, self.scope)
        profiles = self.domains or (problem.profile,)
        _check_shapes(profiles, problem)
        inside = 1 if self.scope == "server" else problem.gpus_per_server
        cost = np.repeat(problem.cost, inside, axis=1)
        layers = []
        for at, items in enumerate(items_of(base)):
            hops = self.hops * problem.top_k * items.share(problem.profile.load[at])
            layers.append(
                LayerSearch(
                    expert=items.expert,
                    slots=slots[at],
                    copies=self._copies(profiles, items, at, cost[at]) if self.copies else None,
                    linear=hops[:, None] * cost[at],
                    loads=self._loads(profiles, items, at),
                    moves=self._moves(items, problem),
                    most_replicas=problem.gpus_per_server // inside,
                )
            )
        return layers

    def _hop_bound(self, problem: PlacementProblem, at: int, layer: LayerSearch) -> float:
        """Weighted hops with the hottest items in the cheapest slots: none has fewer."""
        replicas = np.bincount(layer.expert, minlength=problem.experts)
        load = (problem.profile.load[at] / replicas)[layer.expert]
        inside = len(layer.slots) // problem.servers
        cost = np.sort(np.repeat(np.repeat(problem.cost[at], inside), layer.slots))
        hops = -np.sort(-load) @ cost[: layer.items]
        return self.hops * problem.top_k * float(hops)

    def _copies(
        self,
        profiles: tuple[ExpertProfile, ...],
        items: LayerItems,
        at: int,
        cost: NDArray[np.float64],
    ) -> CopyTerm:
        parts = []
        for profile in profiles:
            chosen: NDArray[np.integer] = training_choices(profile, self.name)[:, at]
            if self.flatten:
                chosen = flattened(chosen, profile.load[at], self.flatten)
            parts.append(items.of_choices(chosen))
        return CopyTerm(
            item=np.concatenate(parts),
            domain=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
            cost=self.copies * (cost if self.hop_weighted else np.ones(len(cost))),
            robust=self.robust,
        )

    def _loads(
        self, profiles: tuple[ExpertProfile, ...], items: LayerItems, at: int
    ) -> LoadCap | None:
        if self.beta is None:
            return None
        load = items.share(np.stack([profile.load[at] for profile in profiles]))
        return LoadCap(load=load, beta=np.full(len(profiles), self.beta))

    def _moves(self, items: LayerItems, problem: PlacementProblem) -> MoveCap | None:
        if self.previous is None:
            return None
        price = self.move_price * problem.layers
        return MoveCap(self._place(items.gpu, problem), price=price)


def _check_shapes(profiles: tuple[ExpertProfile, ...], problem: PlacementProblem) -> None:
    """Refuse domains of another model."""
    for profile in profiles:
        if profile.load.shape != problem.profile.load.shape:
            raise PlacementError(
                f"domain '{profile.source}' has [layers, experts] {profile.load.shape}, the "
                f"problem {problem.profile.load.shape}"
            )


def _fitting(placement: Placement, problem: PlacementProblem) -> Placement:
    """Return the start, refused where it is of another model or cluster."""
    have = (placement.layers, placement.experts, placement.gpus, placement.gpus_per_server)
    size = problem.gpus_per_server
    want = (problem.layers, problem.experts, problem.servers * size, size)
    if have != want or placement.model != problem.model:
        raise PlacementError(
            f"the start is of {placement.model} with (layers, experts, GPUs, GPUs per server) "
            f"{have}, the problem of {problem.model} with {want}"
        )
    return placement


def _copies_bound(layer: LayerSearch) -> float:
    """Lower bound on the copies as domains count together."""
    term = layer.copies
    if term is None or term.cost is None:
        return 0.0
    most = int(layer.slots.max())
    if term.robust == "mean" or term.domain is None:
        return copies_bound(term.item, layer.items, most, term.cost)
    parts = [
        copies_bound(term.item[term.domain == d], layer.items, most, term.cost)
        for d in range(int(term.domain.max()) + 1)
    ]
    return float(max(parts) if term.robust == "worst" else np.mean(parts))


def _why(number: int, layer: LayerSearch, factor: float, scope: Scope) -> str:
    """Say which layer, which expert and what would do."""
    moves = layer.moves
    budget = "" if moves is None or moves.most is None else f" within {moves.most} moves"
    if layer.loads is None or factor == 1:
        return (
            f"layer {number}: no arrangement found{budget} with at most {layer.most_replicas} "
            f"replicas of an expert on a {scope}"
        )
    beta, places = float(layer.loads.beta[0]), len(layer.slots)
    share = (layer.loads.load / layer.loads.load.sum(axis=1, keepdims=True)).max(axis=0)
    hottest = int(np.argmax(share))
    expert, alone = layer.expert[hottest], float(share[hottest]) * places
    text = f"beta {beta:g} cannot be met in layer {number}{budget}: "
    if alone > beta:
        replicas = int(np.ceil(alone * (layer.expert == expert).sum() / beta - EXCESS))
        text += f"a slot of expert {expert} alone has {alone:.3f} x the mean {scope} load "
        text += f"({replicas} replicas would do); "
    return text + f"the least beta found is {beta * factor:.4f}"
