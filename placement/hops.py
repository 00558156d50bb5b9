"""The paper's integer programs, solved exactly as flows: ILP and ILPLoad."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.greedy import greedy_counts
from placement.highs import solve
from placement.prefix import Tiers, prefix_flow
from placement.solve import SolveReport, relative_gap, status_of
from placement.spread import balance_in_tiers, deal_to_servers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem

WHOLE = 1e-6
"""Distance from a whole number that is the solver's tolerance."""


@dataclass(frozen=True, slots=True, eq=False)
class HopOptimum:
    """Expert counts of a hop-optimal placement, with its certificate.

    Attributes
    ----------
    counts
        int64 [layers, servers]: experts of a layer on a server.
    tiers
        Costs the counts were found for.
    objective_hops, bound_hops
        Hops per token and layer of these counts, and the proven lower bound.
    limit
        What stopped the solver early, or None.
    """

    counts: NDArray[np.int64]
    tiers: Tiers
    objective_hops: float
    bound_hops: float
    limit: str | None


def hop_optimum(
    problem: PlacementProblem,
    weights: NDArray[np.float64],
    *,
    time_limit_s: float | None = None,
) -> HopOptimum:
    """Find the expert counts of least weighted hops, the heaviest experts going cheapest.

    Parameters
    ----------
    problem
        Costs and caps.
    weights
        float64 [layers, experts]: what a hop of each expert counts, whatever the profile says.
    time_limit_s
        Wall seconds for the solver. Where they are not enough, the best of its solution and the
        greedy one is returned, bounded by its multipliers and by `separate_bound`.
    """
    tiers = Tiers.of(problem.cost)
    heaviest_first = -np.sort(-weights, axis=1)
    # Weights near 1 keep the solver's absolute tolerances far below one expert's share.
    flow = prefix_flow(
        heaviest_first * problem.experts,
        tiers,
        layer_slots=problem.layer_slots,
        server_slots=problem.server_slots,
    )
    result = solve(flow.program, time_limit_s=time_limit_s)
    scale = problem.top_k / problem.layers / problem.experts
    if result.status != "optimal" or result.x is None or result.objective is None:
        found = [] if result.x is None or fractional(result.x) else [flow.counts(result.x)]
        known = [greedy_counts(problem), *(deal_to_servers(counts, tiers) for counts in found)]
        counts = min(known, key=lambda counts: _hops_of(problem, heaviest_first, counts))
        objective = _hops_of(problem, heaviest_first, counts)
        dual = (result.bound + flow.constant) * scale
        bound = min(objective, max(dual, separate_bound(problem, weights)))
        return HopOptimum(counts, tiers, objective, bound, limit=result.status)
    return HopOptimum(
        counts=deal_to_servers(flow.counts(result.x), tiers),
        tiers=tiers,
        objective_hops=(result.objective + flow.constant) * scale,
        # The multipliers' rounding may lift a tight bound above the objective it bounds.
        bound_hops=(min(result.bound, result.objective) + flow.constant) * scale,
        limit=None,
    )


def separate_bound(problem: PlacementProblem, weights: NDArray[np.float64]) -> float:
    """Weighted hops per token and layer if every layer had the cluster to itself.

    Without C_exp each layer's heaviest experts take the cheapest of its C_layer slots a server:
    no placement costs less. `weights` is float64 [layers, experts].
    """
    slots = np.repeat(np.sort(problem.cost, axis=1), problem.layer_slots, axis=1)
    heaviest_first = -np.sort(-weights, axis=1)
    cost = float(np.sum(heaviest_first * slots[:, : problem.experts]))
    return problem.top_k * cost / problem.layers


def fractional(x: NDArray[np.float64]) -> bool:
    """Whether a solution is not whole, as a solver stopped between two vertices may leave it."""
    return bool(np.abs(x - np.rint(x)).max(initial=0.0) > WHOLE)


@dataclass(frozen=True, slots=True)
class IlpLoad:
    """ILPLoad: least expected hops, each expert weighed by its load.

    The solver's vertex says how many experts each server takes; which of them, among servers of
    equal cost, is decided by balance. Source: Sivtsov,
    Katrutsa and Oseledets, arXiv 2508.09229; solved as a flow over prefixes of the sorted loads.
    """

    time_limit_s: float | None = None
    name: str = "ilp-load"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place every expert at least expected hops, or few where the time limit is hit."""
        begun = time.perf_counter()
        load = problem.profile.load
        optimum = hop_optimum(problem, load, time_limit_s=self.time_limit_s)
        server = balance_in_tiers(load, optimum.counts, optimum.tiers.tier_of_server)
        return _placed(self.name, problem, server, optimum, begun)


@dataclass(frozen=True, slots=True)
class Ilp:
    """ILP: least hops, every expert weighed the same, blind to load.

    Its optimum is degenerate: which expert goes where is open. Experts are taken by ascending
    id from the cheapest tier to the dearest; `hops_over_optima` gives what any choice could
    cost. Source: Sivtsov, Katrutsa and Oseledets, arXiv 2508.09229.
    """

    time_limit_s: float | None = None
    name: str = "ilp"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place every expert at least unweighted hops."""
        begun = time.perf_counter()
        alike = _alike(problem)
        optimum = hop_optimum(problem, alike, time_limit_s=self.time_limit_s)
        server = balance_in_tiers(alike, optimum.counts, optimum.tiers.tier_of_server)
        return _placed(self.name, problem, server, optimum, begun)


def hops_over_optima(problem: PlacementProblem) -> tuple[float, float]:
    """Least and most expected hops among the placements that the unweighted ILP calls optimal.

    Load breaks ties of the unweighted cost, in favour of hot experts and then of cold ones.

    Returns
    -------
    Hops per token and layer: the lowest and the highest.
    """
    return _tie_broken(problem, favour=1.0), _tie_broken(problem, favour=-1.0)


def _tie_broken(problem: PlacementProblem, *, favour: float) -> float:
    """Expected hops of the unweighted optimum that favours hot (1) or cold (-1) experts.

    A weight ``1 / E + epsilon * favour * load`` keeps the unweighted cost first if epsilon is
    small enough: the answer proves that by costing no more unweighted hops than the optimum.
    """
    alike, load = _alike(problem), problem.profile.load
    least = _hops_of(problem, alike, hop_optimum(problem, alike).counts)
    epsilon = 1.0 / problem.experts
    while True:
        counts = hop_optimum(problem, alike + epsilon * favour * (load - 1)).counts
        if relative_gap(_hops_of(problem, alike, counts), least) == 0:
            return _hops_of(problem, np.sort(load * favour, axis=1)[:, ::-1] * favour, counts)
        epsilon /= 8


def _hops_of(
    problem: PlacementProblem, weights: NDArray[np.float64], counts: NDArray[np.int64]
) -> float:
    """Hops per token and layer when experts, in the order of `weights`, go cheapest first."""
    per_layer = [
        row @ np.sort(np.repeat(cost, count))
        for row, cost, count in zip(weights, problem.cost, counts, strict=True)
    ]
    return problem.top_k * float(np.mean(per_layer))


def _alike(problem: PlacementProblem) -> NDArray[np.float64]:
    return np.full((problem.layers, problem.experts), 1.0 / problem.experts)


def _placed(
    name: str,
    problem: PlacementProblem,
    server: NDArray[np.int32],
    optimum: HopOptimum,
    begun: float,
) -> Placement:
    report = SolveReport(
        status=status_of(optimum.objective_hops, optimum.bound_hops),
        objective=optimum.objective_hops,
        bound=optimum.bound_hops,
        seconds=time.perf_counter() - begun,
        limit=optimum.limit,
    )
    return problem.place(server, policy=name, solve=report)
