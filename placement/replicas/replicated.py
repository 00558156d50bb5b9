"""Redundant slots: how many replicas each expert gets and where, chosen together."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from placement.errors import InfeasibleError, PlacementError
from placement.replicas.bounds import hops_bound
from placement.replicas.problem import ReplicaProblem
from placement.replicas.rules import LeastHops, gpu_load, layer_hops, replica_flows
from placement.replicas.search import Search
from placement.solve import SolveReport, status_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.replicas.rules import ReplicaRule

_ALIKE = 0.01
"""Relative distance of busiest GPUs under `lp` up to which hops decide between two layers."""
_PROGRAM_SHARE = 0.3
"""Part of the time limit for each of the two searches behind `lp`; its programs need theirs."""
_TOUCH = 1e-9
"""Relative distance kept below a cap that was asked for, so that rounding cannot exceed it."""


@dataclass(frozen=True, slots=True, eq=False)
class Replication:
    """Replicas chosen for every layer, and how good they are.

    Attributes
    ----------
    lightest
        Placement of the lightest busiest GPU found (stage 1).
    placement
        Placement of the fewest hops found under `cap` (stage 2), with its report.
    least, bound
        float64 [layers]: busiest GPU over the mean of `lightest` under the rule, and a proven
        lower bound on it.
    cap
        float64 [layers]: what `placement` keeps to.
    """

    lightest: Placement
    placement: Placement
    least: NDArray[np.float64]
    bound: NDArray[np.float64]
    cap: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replicated:
    """Redundant slots on every GPU: first a light busiest GPU, then few hops at that load.

    Replica counts start from water-filling (least largest load / count) and are dealt longest
    processing time first; annealing then swaps slots between GPUs and exchanges a replica of one
    expert for one of another, scored under the rule that will run. Every GPU holds equally many
    slots of a layer, never two of one expert; redundant slots come on top of the problem's caps.

    Under `equal` a `PlacementProblem` is enough; other rules depend on origins and need a
    `ReplicaProblem`. `lp` is searched as `equal` and as `nearest`, and of the two the better
    placement under `lp` is kept: the one of fewer hops, where busiest GPUs are within 1 %. Where
    all servers cost the same, `equal` has no hops to save and only balances.

    Attributes
    ----------
    redundant
        Slots of a layer beyond one per expert; with the experts they divide by the GPUs.
    rule
        Which replica a token takes.
    cap
        Most load of a GPU over the mean, one for all layers or one for each; None keeps to the
        least found.
    relax
        Layers that do not reach the cap keep to the least found, instead of an error.
    seed
        Of the search.
    time_limit_s
        Wall seconds after which further layers keep their start; None for no limit.
    steps
        Proposals of a layer in each stage.
    """

    redundant: int
    rule: Literal["equal", "nearest", "lp"] = "equal"
    cap: float | tuple[float, ...] | None = None
    relax: bool = False
    seed: int = 0
    time_limit_s: float | None = None
    steps: int = 40_000
    name: str = "replicated"

    def __call__(self, problem: PlacementProblem | ReplicaProblem) -> Placement:
        """Place every expert and its replicas."""
        return self.replicate(problem).placement

    def replicate(self, problem: PlacementProblem | ReplicaProblem) -> Replication:
        """Place, and return the bounds and the stage 1 placement too.

        Raises
        ------
        PlacementError
            If the redundant slots do not divide, or the rule needs origins that are not given.
        InfeasibleError
            If more replicas than GPUs are asked for, or a layer does not reach the cap.
        """
        begun = time.perf_counter()
        base, origins = _parts(problem)
        self._check(base, origins)
        if origins is not None and self.rule == "lp":
            return self._by_program(origins, begun)
        search = Search(self, base, None if self.rule == "equal" else origins, begun)
        lightest, least = search.stage_one()
        cap = self._caps(least, search)
        slot, hops = search.stage_two(lightest, cap)
        return self._result(search, (lightest, slot), (least, cap), hops)

    def _result(
        self,
        search: Search,
        slots: tuple[NDArray[np.int64], NDArray[np.int64]],
        loads: tuple[NDArray[np.float64], NDArray[np.float64]],
        hops: float,
    ) -> Replication:
        least, cap = loads
        bound = hops_bound(search.base, search.origins, search.slots, cap)
        lightest, placement = (search.placement(slot) for slot in slots)
        return Replication(
            lightest=lightest,
            placement=replace(placement, solve=self._report(search, hops, bound)),
            least=least,
            bound=search.bound,
            cap=cap,
        )

    def _report(self, search: Search, hops: float, bound: float) -> SolveReport:
        return SolveReport(
            status=status_of(hops, bound),
            objective=hops,
            bound=min(bound, hops),
            seconds=time.perf_counter() - search.begun,
            limit="time" if search.hurried else None,
        )

    def _caps(self, least: NDArray[np.float64], search: Search) -> NDArray[np.float64]:
        """float64 [layers]: the cap asked for, or the least found where that is above it."""
        if self.cap is None:
            return least
        asked = np.broadcast_to(np.asarray(self.cap, dtype=np.float64), least.shape)
        short = np.flatnonzero(least > asked * (1 + _TOUCH))
        if short.size and not self.relax:
            at = int(short[0])
            raise InfeasibleError(
                f"policy '{self.name}': layer {at}: no GPU above {asked[at]:.4f} x the mean was "
                f"asked, the least found is {least[at]:.4f} (proven: not below "
                f"{search.bound[at]:.4f}); raise the cap, add redundant slots, or relax"
            )
        return np.maximum(least, asked * (1 - _TOUCH))

    def _by_program(self, problem: ReplicaProblem, begun: float) -> Replication:
        """Search under `equal` and `nearest`; keep, layer by layer, the better under `lp`."""
        limit = self.time_limit_s and self.time_limit_s * _PROGRAM_SHARE
        found = [
            replace(self, rule=rule, relax=True, time_limit_s=limit).replicate(problem)
            for rule in ("equal", "nearest")
        ]
        search = Search(self, problem.problem, problem, begun)
        search.hurried = any(r.placement.solve and r.placement.solve.limit for r in found)
        least = np.stack([_measure(r.placement, problem, LeastHops())[0] for r in found])
        cap = self._caps(least.min(axis=0), search)
        measured = [_measure(r.placement, problem, LeastHops(tuple(cap))) for r in found]
        hops = np.stack([h for _, h in measured])
        alike = cap * (1 + (_ALIKE if self.cap is None else 1e-6))
        pick = np.argmin(np.where(least <= alike, hops, np.inf), axis=0)
        shape = (search.base.layers, search.gpus, -1)
        slots = np.stack([r.placement.slot_expert.reshape(shape) for r in found])
        row = np.arange(shape[0])
        cap = np.maximum(cap, least[pick, row])
        slot = slots[pick, row].astype(np.int64)
        lightest = slots[np.argmin(least, axis=0), row].astype(np.int64)
        search.bound = np.minimum(search.bound, least.min(axis=0))
        return self._result(
            search, (lightest, slot), (least.min(axis=0), cap), float(hops[pick, row].mean())
        )

    def _check(self, base: PlacementProblem, origins: ReplicaProblem | None) -> None:
        if self.rule not in ("equal", "nearest", "lp"):
            raise PlacementError(
                f"policy '{self.name}': rule is '{self.rule}', allowed: equal, nearest, lp"
            )
        if origins is None and self.rule != "equal":
            raise PlacementError(
                f"policy '{self.name}': rule '{self.rule}' needs to know where tokens come from: "
                "give a ReplicaProblem"
            )
        gpus = base.servers * base.gpus_per_server
        slots = base.experts + self.redundant
        if self.redundant < 0 or slots % gpus:
            below = self.redundant - slots % gpus
            above = max(self.redundant, 0) + -(base.experts + max(self.redundant, 0)) % gpus
            would = f"{below} or {above}" if below >= 0 else f"{above}"
            raise PlacementError(
                f"policy '{self.name}': {base.experts} experts and {self.redundant} redundant "
                f"slots must divide by {gpus} GPUs; redundant={would} would"
            )
        if slots > base.experts * gpus:
            raise InfeasibleError(
                f"policy '{self.name}': {slots} slots for {base.experts} experts need more "
                f"replicas of an expert than the {gpus} GPUs; redundant is at most "
                f"{base.experts * (gpus - 1)}"
            )
        if self.cap is not None and not np.isfinite(self.cap).all():
            raise PlacementError(
                f"policy '{self.name}': cap is {self.cap}; expected finite multiples of the mean"
            )
        if isinstance(self.cap, tuple) and len(self.cap) != base.layers:
            raise PlacementError(
                f"policy '{self.name}': {len(self.cap)} caps for {base.layers} layers"
            )


def _parts(
    problem: PlacementProblem | ReplicaProblem,
) -> tuple[PlacementProblem, ReplicaProblem | None]:
    if isinstance(problem, ReplicaProblem):
        return problem.problem, problem
    return problem, None


def _measure(
    placement: Placement, problem: ReplicaProblem, rule: ReplicaRule
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 [layers]: busiest GPU over the mean, and hops of a token, under a rule."""
    flows = replica_flows(placement, problem, rule)
    heat = gpu_load(placement, flows)
    return heat.max(axis=1) * placement.gpus, layer_hops(placement, problem, flows)
