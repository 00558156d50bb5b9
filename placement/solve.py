"""What a solver or policy says of its own answer."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMAL_GAP = 1e-9
"""Relative gap below which a solve is called optimal: float64 rounding of 1e5 summed terms."""


def relative_gap(objective: float, bound: float) -> float:
    """Distance of an objective from its lower bound, relative to the objective."""
    gap = max(0.0, objective - bound) / max(abs(objective), 1e-12)
    return 0.0 if gap <= OPTIMAL_GAP else gap


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

    @property
    def gap(self) -> float | None:
        """Relative distance from the bound; None without a bound."""
        if self.bound_hops is None:
            return None
        return relative_gap(self.objective_hops, self.bound_hops)
