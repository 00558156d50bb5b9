"""The curve of moves against hops, as rows for tables and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from placement import PlacementProblem
    from placement.moves import CurvePoint


def point_rows(
    case: str, problem: PlacementProblem, points: list[CurvePoint]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each point of a curve.

    Parameters
    ----------
    case
        What the figure calls the curve.
    problem
        The problem it was found for.
    points
        From the fewest moves to the hop optimum.

    Yields
    ------
    dict
        ``case``, ``layer_slots``, ``moved`` (expert-server pairs), ``moved_share``, ``hops`` and
        ``bound_hops`` (per token and layer), ``recovered`` and ``bound_recovered``: shares of
        what a full re-solve gains, 1 where nothing is to gain.
    """
    most, least = points[0].hops, points[-1].hops
    gain = most - least
    for point in points:
        yield {
            "case": case,
            "layer_slots": problem.layer_slots,
            "moved": point.moved,
            "moved_share": point.moved / (problem.layers * problem.experts),
            "hops": point.hops,
            "bound_hops": point.bound,
            "recovered": (most - point.hops) / gain if gain > 0 else 1.0,
            "bound_recovered": (most - point.bound) / gain if gain > 0 else 1.0,
        }
