"""The balanced hop problem relaxed: experts to tiers, tiers to servers, load capped by tier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.highs import Program, solve
from placement.hops import separate_bound
from placement.prefix import Tiers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True, eq=False)
class BalanceRelaxation:
    """Solution of the relaxation.

    A server of equal cost to another takes the same load in the relaxation, so a tier's servers
    share one load row of their summed caps; its experts' counts go on to classes of servers.

    Attributes
    ----------
    tiers
        Tiers of the costs.
    share
        float64 [tiers of all layers, experts]: share of an expert in a tier, layer by layer; or
        None if a limit came before a solution.
    bound
        Lower bound on ``sum load * E * cost`` plus priced excess, summed over layers.
    limit
        What stopped the solver, or None.
    """

    tiers: Tiers
    share: NDArray[np.float64] | None
    bound: float
    limit: str | None


def first_tier(tiers: Tiers) -> NDArray[np.int64]:
    """int64 [layers + 1]: number of tiers in the layers before."""
    return np.concatenate(([0], np.cumsum([len(cost) for cost in tiers.tier_cost])))


def solve_relaxation(
    problem: PlacementProblem,
    cap: NDArray[np.float64],
    *,
    price: float | None = None,
    time_limit_s: float | None = None,
) -> BalanceRelaxation:
    """Bound the balanced hop problem from below.

    Parameters
    ----------
    problem
        Costs, loads and count caps.
    cap
        float64 [layers]: most load of a server, as share of the layer's load.
    price
        What load above the cap costs, in the units of ``load * cost``; None forbids it.
    time_limit_s
        Wall seconds for the solver.
    """
    tiers = Tiers.of(problem.cost)
    program = relaxation(problem, tiers, cap, price)
    result = solve(program, time_limit_s=time_limit_s)
    tiers_in_all = int(first_tier(tiers)[-1])
    share = None
    if result.x is not None:
        share = result.x[: tiers_in_all * problem.experts].reshape(tiers_in_all, problem.experts)
    if result.status == "optimal":
        return BalanceRelaxation(tiers=tiers, share=share, bound=result.bound, limit=None)
    scale = problem.layers * problem.experts / problem.top_k
    bound = max(result.bound, separate_bound(problem, problem.profile.load) * scale)
    return BalanceRelaxation(tiers=tiers, share=share, bound=bound, limit=result.status)


def relaxation(
    problem: PlacementProblem, tiers: Tiers, cap: NDArray[np.float64], price: float | None
) -> Program:
    """Build the linear program.

    Columns: x[tier, expert], y[layer, class] counts, and with a price v[tier], load above the
    cap. Rows: every expert once; counts of a tier; load of a tier; total of a class. Loads are
    scaled to a mean of 1 per expert, which keeps the solver's tolerances small. Load rows have
    a lower side that never binds: a multiplier of the wrong sign by rounding then costs the
    bound a hair, not everything.
    """
    layers, experts, classes = problem.layers, problem.experts, len(tiers.class_size)
    first = first_tier(tiers)
    count = int(first[-1])
    layer_of_tier = np.repeat(np.arange(layers), np.diff(first))
    tier_of_class = first[:-1, None] + tiers.tier_of_class
    size = np.bincount(tier_of_class.ravel(), np.tile(tiers.class_size, layers), count)
    weight = problem.profile.load * experts
    count_row, load_row, total_row = layers * experts + np.array([0, count, 2 * count])

    tier, expert = np.divmod(np.arange(count * experts), experts)
    layer = layer_of_tier[tier]
    x_rows = np.stack((layer * experts + expert, count_row + tier, load_row + tier), axis=1)
    ones = np.ones(len(tier))
    x_values = np.stack((ones, ones, weight[layer, expert]), axis=1)
    total = np.broadcast_to(total_row + np.arange(classes), tier_of_class.shape)
    y_rows = np.stack((count_row + tier_of_class, total), axis=-1).reshape(-1, 2)
    y_upper = np.tile(np.minimum(tiers.class_size * problem.layer_slots, experts), layers)
    total_upper = tiers.class_size * float(problem.server_slots)
    excess = 0 if price is None else count

    lengths = np.repeat([3, 2, 1], [len(tier), len(y_rows), excess])
    return Program(
        cost=np.concatenate(
            (
                np.concatenate(tiers.tier_cost)[tier] * weight[layer, expert],
                np.zeros(len(y_rows)),
                np.full(excess, price or 0.0),
            )
        ),
        lower=np.zeros(len(lengths)),
        upper=np.concatenate((ones, y_upper, np.full(excess, float(experts)))),
        start=np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
        index=np.concatenate((x_rows.ravel(), y_rows.ravel(), load_row + np.arange(excess))).astype(
            np.int32
        ),
        value=np.concatenate(
            (x_values.ravel(), np.tile((-1.0, 1.0), len(y_rows)), np.full(excess, -1.0))
        ),
        row_lower=np.concatenate(
            (np.ones(count_row), np.zeros(count), np.full(count, -float(experts)), 0 * total_upper)
        ),
        row_upper=np.concatenate(
            (np.ones(count_row), np.zeros(count), size * cap[layer_of_tier] * experts, total_upper)
        ),
    )
