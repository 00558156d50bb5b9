"""The paper's program as written, L * E * S binaries: oracle and opponent, nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.highs import Program, solve
from placement.solve import SolveReport, status_of

if TYPE_CHECKING:
    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class NaiveIlpLoad:
    """ILPLoad with one variable per layer, expert and server.

    `integer` False solves its linear relaxation, whose vertices are integral all the same.
    """

    integer: bool = True
    time_limit_s: float | None = None
    name: str = "naive-ilp-load"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Solve the program as the paper writes it."""
        begun = time.perf_counter()
        result = solve(naive_program(problem, integer=self.integer), time_limit_s=self.time_limit_s)
        if result.x is None or result.objective is None:
            raise PlacementError(f"no placement found before the {result.status} limit; allow more")
        x = result.x.reshape(problem.layers, problem.experts, problem.servers)
        scale = problem.top_k / problem.layers / problem.experts
        objective, bound = result.objective * scale, result.bound * scale
        report = SolveReport(
            status=status_of(objective, bound),
            objective=objective,
            bound=bound,
            seconds=time.perf_counter() - begun,
            limit=None if result.status == "optimal" else result.status,
        )
        return problem.place(np.argmax(x, axis=2), policy=self.name, solve=report)


def naive_program(problem: PlacementProblem, *, integer: bool) -> Program:
    """Build the assignment program: each expert once, both caps as rows."""
    layers, experts, servers = problem.layers, problem.experts, problem.servers
    columns = layers * experts * servers
    layer, expert, server = np.unravel_index(np.arange(columns), (layers, experts, servers))
    assignment, in_layer = layers * experts, layers * servers
    rows = np.stack(
        (
            layer * experts + expert,
            assignment + layer * servers + server,
            assignment + in_layer + server,
        ),
        axis=1,
    )
    free = np.zeros(in_layer + servers)
    caps = np.repeat([problem.layer_slots, problem.server_slots], [in_layer, servers])
    weight = problem.profile.load * problem.experts
    return Program(
        cost=(weight[:, :, None] * problem.cost[:, None, :]).ravel(),
        lower=np.zeros(columns),
        upper=np.ones(columns),
        start=np.arange(0, 3 * columns + 1, 3, dtype=np.int32),
        index=rows.ravel().astype(np.int32),
        value=np.ones(3 * columns),
        row_lower=np.concatenate((np.ones(assignment), free)),
        row_upper=np.concatenate((np.ones(assignment), caps.astype(np.float64))),
        integer=integer,
    )
