"""The paper's program as written, L * E * S binaries: oracle and opponent, nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.greedy import GreedyLoad
from placement.highs import Program, solve
from placement.hops import fractional, separate_bound
from placement.solve import SolveReport, status_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.highs import SolveResult
    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class NaiveIlpLoad:
    """ILPLoad with one variable per layer, expert and server.

    Where a limit stops the solver, the best of its solution and the greedy one is returned,
    bounded by the solver and by `separate_bound`.

    Attributes
    ----------
    integer
        False solves the linear relaxation, whose vertices are integral all the same.
    time_limit_s, node_limit
        Wall seconds and nodes of the tree that the solver may use.
    """

    integer: bool = True
    time_limit_s: float | None = None
    node_limit: int | None = None
    name: str = "naive-ilp-load"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Solve the program as the paper writes it."""
        begun = time.perf_counter()
        result = solve(
            naive_program(problem, integer=self.integer),
            time_limit_s=self.time_limit_s,
            node_limit=self.node_limit,
        )
        server, limit = self._server(problem, result), None
        objective = _hops(problem, server)
        bound = result.bound * problem.top_k / problem.layers / problem.experts
        if result.status != "optimal":
            bound = max(bound, separate_bound(problem, problem.profile.load))
            limit = result.status
        report = SolveReport(
            status=status_of(objective, bound),
            objective=objective,
            bound=min(bound, objective),
            seconds=time.perf_counter() - begun,
            limit=limit,
        )
        return problem.place(server, policy=self.name, solve=report)

    @staticmethod
    def _server(problem: PlacementProblem, result: SolveResult) -> NDArray[np.int64]:
        """int64 [layers, experts]: the solver's choice, or the greedy one where that is better."""
        shape = problem.layers, problem.experts, problem.servers
        known = []
        if result.x is not None and not fractional(result.x):
            known.append(np.argmax(result.x.reshape(shape), axis=2))
        if result.status != "optimal" or not known:
            known.append(GreedyLoad()(problem).server_of_expert.astype(np.int64))
        return min(known, key=lambda server: _hops(problem, server))


def _hops(problem: PlacementProblem, server: NDArray[np.int64]) -> float:
    cost = np.take_along_axis(problem.cost, server, axis=1)
    return problem.top_k * float(np.sum(problem.profile.load * cost)) / problem.layers


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
