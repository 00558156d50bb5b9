"""The front of hops against balance: a solve for every cap on the load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.balance.balanced import Balanced
from placement.balance.caps import TOLERANCE, Places
from placement.objective import evaluate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One point of the front hops against balance.

    Attributes
    ----------
    beta
        The cap asked for.
    hops, bound
        Hops per token and layer, and their proven lower bound under the same caps.
    balance
        Mean over layers of the largest over the mean load of a place.
    relaxed
        Layers that could not meet the cap and got the least load found as theirs.
    seconds
        Wall time of the solve.
    """

    beta: float
    hops: float
    bound: float
    balance: float
    relaxed: int
    seconds: float


def pareto(
    problem: PlacementProblem,
    betas: Iterable[float],
    *,
    scope: str = "server",
    seed: int = 0,
    time_limit_s: float = 20.0,
) -> list[ParetoPoint]:
    """Solve for every beta, layers that cannot meet it relaxed; sorted by beta.

    Parameters
    ----------
    problem
        The problem.
    betas
        Caps on the load of a place over the mean.
    scope, seed, time_limit_s
        Of each solve, see `Balanced`.
    """
    points = []
    for beta in sorted(betas):
        policy = Balanced(beta, relax=True, scope=scope, seed=seed, time_limit_s=time_limit_s)
        placement = policy(problem)
        report, judged = placement.solve, evaluate(placement, problem)
        assert report is not None and report.bound_hops is not None  # noqa: S101, PT018  always set
        points.append(
            ParetoPoint(
                beta=beta,
                hops=judged.hops_per_token_layer,
                bound=report.bound_hops,
                balance=judged.balance_gpu if scope == "gpu" else judged.balance_server,
                relaxed=_relaxed(problem, placement, beta, scope),
                seconds=report.seconds,
            )
        )
    return points


def _relaxed(problem: PlacementProblem, placement: Placement, beta: float, scope: str) -> int:
    """Count the layers whose busiest place is above the cap."""
    places = Places.of(problem, scope).server.size
    place = placement.gpu_of_expert.astype(np.int64) // (placement.gpus // places)
    flat = (np.arange(problem.layers)[:, None] * places + place).ravel()
    heat = np.bincount(flat, problem.profile.load.ravel(), problem.layers * places)
    busiest = heat.reshape(problem.layers, places).max(axis=1) * places
    return int((busiest > beta * (1 + TOLERANCE)).sum())
