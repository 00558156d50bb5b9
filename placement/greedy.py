"""Greedy placements: layers in order, each expert to the cheapest server with a slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.budget import ServerBudget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class Greedy:
    """The paper's second baseline: experts by id, blind to load."""

    name: str = "greedy"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Fill the cheapest servers with experts in id order."""
        order = np.tile(np.arange(problem.experts), (problem.layers, 1))
        return problem.place(_fill(problem, order), policy=self.name)


@dataclass(frozen=True, slots=True)
class GreedyLoad:
    """Greedy with the hottest experts first; equal loads go by id."""

    name: str = "greedy-load"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Fill the cheapest servers with the hottest experts."""
        order = np.argsort(-problem.profile.load, axis=1, kind="stable")
        return problem.place(_fill(problem, order), policy=self.name)


def _fill(problem: PlacementProblem, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place each layer's experts in `order` [layers, experts], servers of equal cost by index.

    All experts of a layer rank the servers alike, so each server is filled in one go.
    """
    server = np.empty((problem.layers, problem.experts), dtype=np.int64)
    for layer, (cost, count) in enumerate(zip(problem.cost, greedy_counts(problem), strict=True)):
        cheapest = np.argsort(cost, kind="stable")
        server[layer, order[layer]] = np.repeat(cheapest, count[cheapest])
    return server


def greedy_counts(problem: PlacementProblem) -> NDArray[np.int64]:
    """int64 [layers, servers]: experts that servers take when the cheapest are filled first."""
    budget = ServerBudget.of(problem)
    counts = np.zeros((problem.layers, problem.servers), dtype=np.int64)
    for layer, cost in enumerate(problem.cost):
        budget.next_layer()
        to_come = problem.experts
        for at in np.argsort(cost, kind="stable"):
            take = min(budget.most(int(at)), to_come)
            budget.take(int(at), take)
            counts[layer, at] = take
            to_come -= take
    return counts
