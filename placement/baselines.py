"""Placements that look at neither costs nor loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.budget import ServerBudget

if TYPE_CHECKING:
    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class Contiguous:
    """Expert e on server floor(e S / E): what engines do by default."""

    name: str = "contiguous"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place runs of consecutive experts."""
        expert = np.arange(problem.experts)
        server = expert * problem.servers // problem.experts
        return problem.place(np.tile(server, (problem.layers, 1)), policy=self.name)


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """Expert e on server e mod S: the paper's first baseline."""

    name: str = "round-robin"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place experts in turn."""
        server = np.arange(problem.experts) % problem.servers
        return problem.place(np.tile(server, (problem.layers, 1)), policy=self.name)


@dataclass(frozen=True, slots=True)
class Random:
    """Every expert, layer by layer in id order, on a server drawn from those that can take it."""

    seed: int = 0
    name: str = "random"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place at random within the caps; the same seed places the same."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        budget = ServerBudget.of(problem)
        server = np.empty((problem.layers, problem.experts), dtype=np.int64)
        for layer in range(problem.layers):
            budget.next_layer()
            for expert in range(problem.experts):
                choice = rng.choice(np.flatnonzero(budget.takers()))
                budget.take(int(choice), 1)
                server[layer, expert] = choice
        return problem.place(server, policy=self.name)
