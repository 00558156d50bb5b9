"""What a solver or policy says of its own answer."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from placement.errors import PlacementError

OPTIMAL_GAP = 1e-9
"""Gap below which a solve is called optimal, relative to the objective or to one hop (or copy),
whichever is more: float64 rounding of 1e5 summed terms. Seconds of a layer are far below 1: there
it is relative to the objective alone."""

STATUSES = ("optimal", "feasible", "heuristic")

UNITS = ("hops", "copies", "copy-hops", "seconds", "weighted sum")
"""What objective and bound of a report count, per token and layer (seconds: per step and layer).

``copy-hops`` are the hops of de-duplicated copies; ``weighted sum`` adds terms of several units.
"""


def relative_gap(objective: float, bound: float, *, unit: str = "hops") -> float:
    """Distance of an objective from its lower bound, relative to the objective."""
    distance = objective - bound
    least = 0.0 if unit == "seconds" else 1.0
    if distance <= OPTIMAL_GAP * max(least, abs(objective)):
        return 0.0
    return distance / max(abs(objective), 1e-12)


def status_of(objective: float, bound: float, *, unit: str = "hops") -> str:
    """Return ``optimal`` where the gap is zero to tolerance, else ``feasible``."""
    return "optimal" if relative_gap(objective, bound, unit=unit) == 0 else "feasible"


BUDGET_S = 20.0
"""Wall seconds that a policy without a natural end allows itself where no limit is given."""


def limit_named(limit: str | None, time_limit_s: float | None) -> str | None:
    """Call ``time`` a ``budget`` where no limit in seconds was given."""
    return "budget" if limit == "time" and time_limit_s is None else limit


@dataclass(frozen=True, slots=True)
class SolveReport:
    """Outcome of a solve: status, objective, proven bound, gap and seconds.

    Attributes
    ----------
    status
        ``optimal`` (gap zero to tolerance), ``feasible`` (best found, bound says how far) or
        ``heuristic`` (no bound).
    objective
        Cost of the placement in `unit`, on what the policy minimised.
    bound
        Proven lower bound on the same cost; None where there is none.
    seconds
        Wall time, model building included.
    limit
        What stopped the search early, else None: ``time`` or ``nodes``, limits that were given,
        or ``budget``, the policy's own seconds where no limit was. An optimal answer has none.
    unit
        Unit of objective and bound, one of `UNITS`.
    """

    status: str
    objective: float
    bound: float | None
    seconds: float
    limit: str | None = None
    unit: str = "hops"

    def __post_init__(self) -> None:
        """Refuse a report that contradicts itself."""
        for what, value, allowed in (("status", self.status, STATUSES), ("unit", self.unit, UNITS)):
            if value not in allowed:
                raise PlacementError(
                    f"solve {what} '{value}' is unknown; allowed: {', '.join(allowed)}"
                )
        if self.status == "optimal":
            object.__setattr__(self, "limit", None)
        for name in ("objective", "bound", "seconds"):
            value = getattr(self, name)
            if value is not None and not isfinite(value):
                raise PlacementError(f"solve report: {name} is {value}; expected a finite number")
        floor = 0.0 if self.unit == "seconds" else 1.0
        room = OPTIMAL_GAP * max(floor, abs(self.objective))
        if self.bound is not None and self.bound > self.objective + room:
            raise PlacementError(
                f"solve report: the bound {self.bound} is above the objective {self.objective} "
                "that it should bound from below"
            )
        if self.status == "optimal" and self.gap != 0:
            raise PlacementError(
                f"solve report: 'optimal' with objective {self.objective} and bound "
                f"{self.bound}; expected a gap of zero"
            )

    @property
    def gap(self) -> float | None:
        """Relative distance from the bound; None without a bound."""
        if self.bound is None:
            return None
        return relative_gap(self.objective, self.bound, unit=self.unit)

    @property
    def objective_hops(self) -> float:
        """The objective of a report in hops.

        Raises
        ------
        PlacementError
            If the report is in another unit.
        """
        self._check_hops()
        return self.objective

    @property
    def bound_hops(self) -> float | None:
        """The bound of a report in hops; None where there is none.

        Raises
        ------
        PlacementError
            If the report is in another unit.
        """
        self._check_hops()
        return self.bound

    def _check_hops(self) -> None:
        if self.unit != "hops":
            raise PlacementError(
                f"the solve report is in {self.unit}, not in hops; read objective, bound and unit"
            )
