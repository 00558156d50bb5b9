"""What a combined search found from one start, and what is proven of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from placement.search.bounds import proven_bound
from placement.search.candidates import counted_moves

if TYPE_CHECKING:
    from placement.moves.search import MoveSearch
    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.search.layer import Arrangement, LayerSearch
    from placement.search.local_search import LocalSearch

_LEAST_S = 1.0
"""Seconds that a bound may take after a time limit."""
_SAME = 9
"""Digits to which objectives are the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Arrangements of one start's slots.

    Attributes
    ----------
    base
        The placement whose slots they are.
    layers
        Every layer with the load caps that it was held to.
    arranged
        Its arrangement.
    """

    base: Placement
    layers: tuple[LayerSearch, ...]
    arranged: tuple[Arrangement, ...]

    @property
    def objective(self) -> float:
        """Mean over the layers of what was minimised."""
        return float(np.mean([arrangement.value for arrangement in self.arranged]))

    @property
    def betas(self) -> tuple[float, ...]:
        """Most load of a place over the mean in every layer; none where there is no cap."""
        return tuple(float(at.loads.beta[0]) for at in self.layers if at.loads is not None)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Caps raised least, then least objective, then fewest moves: less is better."""
        value = float(f"{self.objective:.{_SAME}e}")
        return (float(f"{sum(self.betas):.{_SAME}e}"), value, self.moves)

    @property
    def moves(self) -> int:
        """Slots away from their previous place."""
        return sum(
            int(((at.moves.previous >= 0) & (at.moves.previous != arrangement.place)).sum())
            for at, arrangement in zip(self.layers, self.arranged, strict=True)
            if at.moves is not None
        )


@dataclass(slots=True, eq=False)
class Proof:
    """Lower bounds for the caps that layers were held to, proven when first asked for."""

    search: LocalSearch
    problem: PlacementProblem
    end: float
    _known: dict[tuple[float, ...], float] = field(default_factory=dict)
    _moves: list[MoveSearch | None] = field(default_factory=list)

    def moves(self) -> MoveSearch | None:
        """Return the flow of hops over moves, made when first asked for."""
        if not self._moves:
            self._moves.append(counted_moves(self.search, self.problem, self.end))
        return self._moves[0]

    def bound(self, found: Found) -> float:
        """Return the bound of `proven_bound`."""
        if found.betas not in self._known:
            left = self.end - time.perf_counter()
            self._known[found.betas] = proven_bound(
                self.search,
                self.problem,
                found.layers,
                moves=self.moves(),
                seconds=None if left == np.inf else max(left, _LEAST_S),
            )
        return self._known[found.betas]
