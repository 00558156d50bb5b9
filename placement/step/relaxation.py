"""Lower bounds on the seconds of a step: one linear program, then layer by layer with packing."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from placement.balance.relaxation import BalanceRelaxation, first_tier
from placement.congestion.least import least_gpu_load
from placement.highs import Program, solve
from placement.hops import separate_bound
from placement.prefix import Tiers
from placement.step.packing import packing_sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem

_EVALUATIONS = 14
_CLOSE = 5e-4


@dataclass(frozen=True, slots=True, eq=False)
class StepRelaxation:
    """What is known of a step before anything is searched.

    Attributes
    ----------
    rounding
        Shares of experts in tiers, in the form that rounding takes.
    aim
        float64 [layers]: work of the busiest GPU that the bound rests on.
    bound
        Lower bound on the sum over layers of busiest work and traffic.
    limit
        What stopped the solver, or None.
    """

    rounding: BalanceRelaxation
    aim: NDArray[np.float64]
    bound: float
    limit: str | None


@dataclass(frozen=True, slots=True, eq=False)
class StepTerms:
    """The two sides of the objective.

    Attributes
    ----------
    problem
        Costs and caps.
    work
        float64 [layers, experts]: what an expert adds to its GPU.
    pull
        float64 [layers, experts]: what a unit of the problem's cost costs it.
    """

    problem: PlacementProblem
    work: NDArray[np.float64]
    pull: NDArray[np.float64]

    @property
    def gpu_slots(self) -> int:
        """Most experts of a layer on a GPU."""
        return ceil(self.problem.layer_slots / self.problem.gpus_per_server)

    def least_top(self) -> NDArray[np.float64]:
        """float64 [layers]: no placement has a busiest GPU with less work."""
        gpus = self.problem.servers * self.problem.gpus_per_server
        alone = np.ones(self.problem.experts, dtype=np.int64)
        hottest = [least_gpu_load(row, alone, gpus, self.gpu_slots) for row in self.work]
        top: NDArray[np.float64] = np.maximum(hottest, self.work.sum(axis=1) / gpus)
        return top


def relax(terms: StepTerms, *, deadline: float) -> StepRelaxation:
    """Bound a step; `deadline` is a ``time.perf_counter`` value."""
    problem, least = terms.problem, terms.least_top()
    tiers = Tiers.of(problem.cost)
    program = _joint(terms, tiers, least)
    result = solve(program, time_limit_s=max(deadline - time.perf_counter(), 1e-9))
    held = int(first_tier(tiers)[-1]) * problem.experts
    if result.status != "optimal" or result.x is None:
        alone = separate_bound(problem, terms.pull) * problem.layers / problem.top_k
        bound = max(result.bound, float(least.sum()) + alone)
        rounding = BalanceRelaxation(tiers, None, bound, result.status)
        return StepRelaxation(rounding, least, bound, result.status)
    share = result.x[:held].reshape(-1, problem.experts)
    price = np.maximum(-result.row_dual[-len(tiers.class_size) :], 0.0)
    known = _layer_bounds(terms, tiers, price, least, deadline)
    if known is None:
        rounding = BalanceRelaxation(tiers, share, result.bound, "time")
        return StepRelaxation(rounding, result.x[-problem.layers :], result.bound, "time")
    refined = sum(layer.bound for layer in known)
    refined -= float(price @ tiers.class_size) * problem.server_slots
    bound = max(result.bound, refined)
    aim = np.array([layer.top for layer in known])
    together = _shares_together(terms, tiers, aim, deadline)
    rounding = BalanceRelaxation(tiers, share if together is None else together, bound, None)
    return StepRelaxation(rounding, aim, bound, None)


def _layer_bounds(
    terms: StepTerms,
    tiers: Tiers,
    price: NDArray[np.float64],
    least: NDArray[np.float64],
    deadline: float,
) -> list[_LayerBound] | None:
    """Bound every layer with slots at `price` [classes]; None without the time for all."""
    found = []
    for at in range(terms.problem.layers):
        known = _Layer(terms, tiers, at, price).search(float(least[at]), deadline)
        if known is None:
            return None
        found.append(known)
    return found


def _shares_together(
    terms: StepTerms, tiers: Tiers, top: NDArray[np.float64], deadline: float
) -> NDArray[np.float64] | None:
    """Shares of experts in tiers [tiers, experts] with every layer's `top` and C_exp at once."""
    left = deadline - time.perf_counter()
    if left <= 0:
        return None
    problem, classes = terms.problem, len(tiers.class_size)
    free = np.zeros(classes)
    result = solve(
        _stacked(
            [_Layer(terms, tiers, at, free).program(float(top[at])) for at in range(len(top))],
            (tiers.class_size * problem.server_slots).astype(np.float64),
        ),
        time_limit_s=left,
    )
    if result.x is None:
        return None
    columns = [len(cost) * problem.experts for cost in tiers.tier_cost]
    ends = np.cumsum(np.array(columns) + classes)
    parts = [
        result.x[end - classes - n : end - classes] for n, end in zip(columns, ends, strict=True)
    ]
    return np.concatenate(parts).reshape(-1, problem.experts)


def _stacked(parts: list[Program], total: NDArray[np.float64]) -> Program:
    """Join programs whose last columns, one a class, are also capped in sum by `total`."""
    classes, rows = len(total), 0
    of_all = sum(part.row_lower.size for part in parts)
    index, value, lengths = [], [], []
    for part in parts:
        cut = part.start[-1 - classes]
        shared = np.column_stack((part.index[cut:] + rows, of_all + np.arange(classes)))
        index += [part.index[:cut] + rows, shared.ravel()]
        value += [part.value[:cut], np.column_stack((part.value[cut:], np.ones(classes))).ravel()]
        lengths += [np.diff(part.start)[:-classes], np.full(classes, 2)]
        rows += part.row_lower.size
    return Program(
        cost=np.concatenate([part.cost for part in parts]),
        lower=np.concatenate([part.lower for part in parts]),
        upper=np.concatenate([part.upper for part in parts]),
        start=np.concatenate(([0], np.cumsum(np.concatenate(lengths)))).astype(np.int32),
        index=np.concatenate(index).astype(np.int32),
        value=np.concatenate(value),
        row_lower=np.concatenate([*(part.row_lower for part in parts), np.zeros(classes)]),
        row_upper=np.concatenate([*(part.row_upper for part in parts), total]),
    )


def _joint(terms: StepTerms, tiers: Tiers, least: NDArray[np.float64]) -> Program:
    """Build the program of all layers.

    Columns: x[tier, expert], y[layer, class] counts, top[layer]. Rows: every expert once; counts
    of a tier; work of a tier, at most that of its GPUs at `top`; total of a class.
    """
    problem = terms.problem
    layers, experts, classes = problem.layers, problem.experts, len(tiers.class_size)
    first = first_tier(tiers)
    count = int(first[-1])
    layer_of_tier = np.repeat(np.arange(layers), np.diff(first))
    tier_of_class = first[:-1, None] + tiers.tier_of_class
    size = np.bincount(tier_of_class.ravel(), np.tile(tiers.class_size, layers), count)
    count_row, work_row, total_row = layers * experts + np.array([0, count, 2 * count])

    tier, expert = np.divmod(np.arange(count * experts), experts)
    layer = layer_of_tier[tier]
    ones = np.ones(len(tier))
    x_rows = np.stack((layer * experts + expert, count_row + tier, work_row + tier), axis=1)
    x_values = np.stack((ones, ones, terms.work[layer, expert]), axis=1)
    total = np.broadcast_to(total_row + np.arange(classes), tier_of_class.shape)
    y_rows = np.stack((count_row + tier_of_class, total), axis=-1).reshape(-1, 2)
    y_upper = np.tile(np.minimum(tiers.class_size * problem.layer_slots, experts), layers)
    all_work = terms.work.sum(axis=1)
    lengths = np.concatenate((np.full(len(tier), 3), np.full(len(y_rows), 2), np.diff(first)))
    tier_cost = np.concatenate(tiers.tier_cost)
    return Program(
        cost=np.concatenate(
            (tier_cost[tier] * terms.pull[layer, expert], np.zeros(len(y_rows)), np.ones(layers))
        ),
        lower=np.concatenate((np.zeros(len(tier) + len(y_rows)), least)),
        upper=np.concatenate((ones, y_upper, all_work)),
        start=np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
        index=np.concatenate((x_rows.ravel(), y_rows.ravel(), work_row + np.arange(count))).astype(
            np.int32
        ),
        value=np.concatenate(
            (
                x_values.ravel(),
                np.tile((-1.0, 1.0), len(y_rows)),
                -size * problem.gpus_per_server,
            )
        ),
        # The lower side of a work row never binds: a multiplier of the wrong sign costs a hair.
        row_lower=np.concatenate(
            (
                np.ones(count_row),
                np.zeros(count),
                -size * problem.gpus_per_server * all_work[layer_of_tier],
                np.zeros(classes),
            )
        ),
        row_upper=np.concatenate(
            (
                np.ones(count_row),
                np.zeros(2 * count),
                tiers.class_size * float(problem.server_slots),
            )
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _LayerBound:
    """A layer's bound, C_exp priced, and the best `top` found."""

    bound: float
    top: float


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One layer on its own; a slot of a class costs its share of `price` for C_exp."""

    terms: StepTerms
    tiers: Tiers
    at: int
    price: NDArray[np.float64]

    def search(self, least: float, deadline: float) -> _LayerBound | None:
        """Bound ``top + traffic`` over all tops; None without the time for it.

        Traffic falls as `top` rises. So over an interval the sum is at least the interval's
        lower end plus the traffic at its upper end; the lowest interval is halved until it is
        short.
        """
        everything = float(self.terms.work[self.at].sum())
        free = self._traffic(everything)
        if free is None or time.perf_counter() > deadline:
            return None
        best, least_sum = everything, everything + free
        # Value of an interval, its ends, and the traffic at its upper end.
        heap = [(least + free, least, everything, free)]
        tops = [least, 2 * least]
        for _ in range(_EVALUATIONS):
            value, low, high, beyond = heap[0]
            if least_sum - value <= _CLOSE * abs(value) or time.perf_counter() > deadline:
                break
            top = tops.pop(0) if tops else (low * high) ** 0.5
            if not low <= top < high:
                continue
            heapq.heappop(heap)
            below = self._traffic(top)
            heapq.heappush(heap, (max(value, top + beyond), top, high, beyond))
            if below is not None:
                if top > low:
                    heapq.heappush(heap, (max(value, low + below), low, top, below))
                if top + below < least_sum:
                    best, least_sum = top, top + below
        return _LayerBound(min(heap[0][0], least_sum), best)

    def _traffic(self, top: float) -> float | None:
        """Bound the traffic with GPUs of at most `top` work; None if they cannot take it."""
        result = solve(self.program(top))
        return None if result.status == "infeasible" else result.bound

    def program(self, top: float) -> Program:
        """Build the program: x[tier, expert], y[class]; experts, counts, work and packing rows."""
        problem, work = self.terms.problem, self.terms.work[self.at]
        cost, classes = self.tiers.tier_cost[self.at], self.tiers.class_size
        tiers, experts = len(cost), problem.experts
        own = self.tiers.tier_of_class[self.at]
        gpus = np.bincount(own, classes, tiers) * problem.gpus_per_server
        size = np.vstack((work / top, packing_sizes(work, top, self.terms.gpu_slots)))
        tier, expert = np.divmod(np.arange(tiers * experts), experts)
        rows = experts + tiers + np.arange(len(size)) * tiers
        index = np.column_stack((expert, experts + tier, rows + tier[:, None]))
        value = np.column_stack((np.ones((len(tier), 2)), size.T[expert]))
        kept = value != 0
        y_rows = experts + own
        lengths = np.concatenate((kept.sum(axis=1), np.ones(len(y_rows), dtype=np.int64)))
        room = np.tile(gpus, len(size))
        return Program(
            cost=np.concatenate((cost[tier] * self.terms.pull[self.at][expert], self.price)),
            lower=np.zeros(len(lengths)),
            upper=np.concatenate(
                (np.ones(len(tier)), np.minimum(classes * problem.layer_slots, experts))
            ),
            start=np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
            index=np.concatenate((index[kept], y_rows)).astype(np.int32),
            value=np.concatenate((value[kept], -np.ones(len(y_rows)))),
            row_lower=np.concatenate((np.ones(experts), np.zeros(tiers), 0 * room - experts)),
            row_upper=np.concatenate((np.ones(experts), np.zeros(tiers), room)),
        )
