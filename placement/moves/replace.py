"""Re-placement: the fewest hops that a given placement can be turned into by so many moves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from placement.errors import PlacementError
from placement.moves.keep_gpus import keep_gpus
from placement.moves.search import MoveSearch, Vertex
from placement.slots import place_on_gpus
from placement.solve import SolveReport, status_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class Moves:
    """What changes from one placement to another, both with one slot an expert.

    Attributes
    ----------
    servers
        Experts that go to another server: expert-server pairs that change.
    inside
        Experts that go to another GPU of their server.
    experts
        All experts of all layers.
    """

    servers: int
    inside: int
    experts: int

    @property
    def slots(self) -> int:
        """Slots whose weights must be moved."""
        return self.servers + self.inside

    @property
    def kept(self) -> float:
        """Share of the expert-server pairs that stay."""
        return 1 - self.servers / self.experts


class CurvePoint(NamedTuple):
    """A point of the curve of moves against hops.

    `moved` expert-server pairs change, `hops` per token and layer are reached, and no placement
    that changes at most `moved` pairs has fewer than `bound`.
    """

    moved: int
    hops: float
    bound: float


@dataclass(frozen=True, slots=True)
class Replace:
    """Least expected hops from a previous placement at few moves; a move changes a server.

    Without options: the hop optimum that moves fewest experts. Exact at a price of a move; for
    a number of moves the best known between two such solutions. Experts that stay on their
    server keep their GPU unless the caps of a GPU forbid it: `count_moves` tells.

    The report's bound holds for placements with at most as many moves as were allowed; at a
    price alone, as were made.

    Parameters
    ----------
    previous
        The placement to start from, one slot an expert; it may break the caps.
    max_moves
        Most expert-server pairs that change.
    price_hops
        Hops per token and layer that a move must save to be made.
    price_hops_per_byte, slot_bytes
        The same price by the byte of an expert's weights, instead of `price_hops`.
    """

    previous: Placement
    max_moves: int | None = None
    price_hops: float | None = None
    price_hops_per_byte: float | None = None
    slot_bytes: int | None = None
    name: str = "replace"

    def __post_init__(self) -> None:
        """Refuse limits and prices that mean nothing."""
        if self.max_moves is not None and self.max_moves < 0:
            raise PlacementError(f"max_moves is {self.max_moves}; expected 0 or more")
        for what in ("price_hops", "price_hops_per_byte"):
            price = getattr(self, what)
            if price is not None and not (np.isfinite(price) and price >= 0):
                raise PlacementError(f"{what} is {price}; expected a finite price of 0 or more")
        if self.price_hops is not None and self.price_hops_per_byte is not None:
            raise PlacementError("give price_hops or price_hops_per_byte, not both")
        if self.price_hops_per_byte is not None and (self.slot_bytes or 0) < 1:
            raise PlacementError("price_hops_per_byte needs slot_bytes, the bytes of an expert")

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Re-place the experts.

        Raises
        ------
        PlacementError
            If the previous placement is of another model, shape or cluster, or has replicas.
        InfeasibleError
            If the caps force more moves than `max_moves`.
        """
        begun = time.perf_counter()
        search = _search(problem, self.previous)
        price = self._price()
        best = search.free() if price is None else search.priced(price)
        limit = self.max_moves if price is None else best.moved
        if self.max_moves is not None and best.moved > self.max_moves:
            best, limit = search.within(self.max_moves, best), self.max_moves
        hops = _hops(problem, best.server)
        bound = min(hops, search.bound(limit))
        gpu = keep_gpus(problem, best.server, self.previous.gpu_of_expert.astype(np.int64))
        report = SolveReport(
            status=status_of(hops, bound),
            objective=hops,
            bound=bound,
            seconds=time.perf_counter() - begun,
        )
        return place_on_gpus(problem, gpu, policy=self.name, solve=report)

    def _price(self) -> float | None:
        if self.price_hops_per_byte is not None and self.slot_bytes is not None:
            return self.price_hops_per_byte * self.slot_bytes
        return self.price_hops


def curve(problem: PlacementProblem, previous: Placement, points: int = 21) -> list[CurvePoint]:
    """Return least hops over the number of moves, from the fewest moves to the hop optimum.

    Parameters
    ----------
    problem
        The new problem.
    previous
        The placement to start from.
    points
        Numbers of moves asked for, equally far apart, both ends included.

    Raises
    ------
    PlacementError
        As `Replace`, or if fewer than two points are asked for.
    """
    if points < 2:
        raise PlacementError(f"a curve has at least 2 points, got {points}")
    search = _search(problem, previous)
    most = search.free()
    asked = np.linspace(search.fewest_moves(), most.moved, points).astype(int)
    found: list[Vertex] = []
    for limit in np.unique(asked).tolist():
        best = search.within(limit)
        if found and found[-1].cost <= best.cost:
            best = found[-1]
        found.append(best)
    # Bounds come last: every solve at a price adds to the proof of every point.
    return [
        CurvePoint(best.moved, hops, min(hops, search.bound(best.moved)))
        for best in found
        for hops in (_hops(problem, best.server),)
    ]


def count_moves(old: Placement, new: Placement) -> Moves:
    """Count what changes between two placements of one model on one cluster.

    Raises
    ------
    PlacementError
        If they are not, or experts have replicas.
    """
    for what in ("model", "layers", "experts", "gpus", "gpus_per_server"):
        _same(what, getattr(old, what), getattr(new, what), "the new placement")
    _single(old, "the previous placement")
    _single(new, "the new placement")
    changed = old.gpu_of_expert != new.gpu_of_expert
    servers = int((old.server_of_expert != new.server_of_expert).sum())
    return Moves(servers, int(changed.sum()) - servers, changed.size)


def _search(problem: PlacementProblem, previous: Placement) -> MoveSearch:
    for what in ("model", "layers", "experts", "servers", "gpus_per_server"):
        _same(what, getattr(previous, what), getattr(problem, what), "the problem")
    _single(previous, "the previous placement")
    return MoveSearch(problem, previous.server_of_expert.astype(np.int64))


def _same(what: str, previous: object, wanted: object, whose: str) -> None:
    if previous != wanted:
        raise PlacementError(
            f"the previous placement has {what.replace('_', ' ')} {previous!r}, {whose} has "
            f"{wanted!r}; expected the same"
        )


def _single(placement: Placement, which: str) -> None:
    if placement.redundant:
        raise PlacementError(
            f"{which} has {placement.redundant} redundant slots, and moves are counted here for "
            "one slot an expert: LocalSearch (with this previous placement) moves replicas too"
        )


def _hops(problem: PlacementProblem, server: NDArray[np.int64]) -> float:
    cost = np.take_along_axis(problem.cost, server, axis=1)
    return problem.top_k / problem.layers * float(np.sum(problem.profile.load * cost))
