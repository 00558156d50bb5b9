"""What a solver or policy says of its own answer."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from placement.errors import PlacementError

OPTIMAL_GAP = 1e-9
"""Gap below which a solve is called optimal, relative to the objective or to one hop, whichever
is more: float64 rounding of 1e5 summed terms."""

STATUSES = ("optimal", "feasible", "heuristic")


def relative_gap(objective: float, bound: float) -> float:
    """Distance of an objective from its lower bound, relative to the objective."""
    distance = objective - bound
    if distance <= OPTIMAL_GAP * max(1.0, abs(objective)):
        return 0.0
    return distance / max(abs(objective), 1e-12)


def status_of(objective: float, bound: float) -> str:
    """Return ``optimal`` where the gap is zero to tolerance, else ``feasible``."""
    return "optimal" if relative_gap(objective, bound) == 0 else "feasible"


@dataclass(frozen=True, slots=True)
class SolveReport:
    """Outcome of a solve: status, objective, proven bound, gap and seconds.

    Attributes
    ----------
    status
        ``optimal`` (gap zero to tolerance), ``feasible`` (best found, bound says how far) or
        ``heuristic`` (no bound).
    objective_hops
        Hops per token and layer of the placement, on the cost the policy minimised.
    bound_hops
        Proven lower bound on the same cost; None where there is none.
    seconds
        Wall time, model building included.
    limit
        What stopped the search early (``time``, ``nodes``), else None.
    """

    status: str
    objective_hops: float
    bound_hops: float | None
    seconds: float
    limit: str | None = None

    def __post_init__(self) -> None:
        """Refuse a report that contradicts itself."""
        if self.status not in STATUSES:
            raise PlacementError(
                f"solve status '{self.status}' is unknown; allowed: {', '.join(STATUSES)}"
            )
        for name in ("objective_hops", "bound_hops", "seconds"):
            value = getattr(self, name)
            if value is not None and not isfinite(value):
                raise PlacementError(f"solve report: {name} is {value}; expected a finite number")
        if self.status == "optimal" and self.gap != 0:
            raise PlacementError(
                f"solve report: 'optimal' with objective {self.objective_hops} and bound "
                f"{self.bound_hops}; expected a gap of zero"
            )

    @property
    def gap(self) -> float | None:
        """Relative distance from the bound; None without a bound."""
        if self.bound_hops is None:
            return None
        return relative_gap(self.objective_hops, self.bound_hops)
