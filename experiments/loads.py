"""What a placement's places carry as the profile expects it: where caps on the load hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.costs import replica_problem
from experiments.workload import domain_profile
from placement.balance import Places, least_maximum_bound
from placement.balance.caps import TOLERANCE
from placement.objective import slot_load
from placement.replicas import make_rule
from placement.replicas.rules import gpu_load, replica_flows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.run import Placed
    from experiments.spec import RunSpec
    from workloads import ExpertProfile


@dataclass(frozen=True, slots=True, eq=False)
class CapKept:
    """How the loads of a placement stand to the cap that was asked for.

    Attributes
    ----------
    beta, scope
        The cap over the mean, and what it is on: ``server`` or ``gpu``.
    busiest
        float64 [layers]: load of the busiest place over the mean.
    above
        float64 [layers]: load above the cap, summed over places, in mean loads of a place.
    least
        float64 [layers]: proven least load of the busiest place over the mean; None where there
        is no such bound.
    """

    beta: float
    scope: str
    busiest: NDArray[np.float64]
    above: NDArray[np.float64]
    least: NDArray[np.float64] | None

    @property
    def relaxed(self) -> NDArray[np.int64]:
        """Layers above the cap, relaxed or by the rule that replicas follow."""
        return np.flatnonzero(self.busiest > self.beta * (1 + TOLERANCE))


def cap_kept(spec: RunSpec, placed: Placed) -> CapKept | None:
    """Judge a placement by the cap on its loads; None where none was asked for.

    Loads are those of the run's profile under the replica rule -- engines' own rules are searched
    with replicas that share equally, and may end above the cap --, or of the worst of the training
    domains, replicas sharing equally.
    """
    table = spec.placement
    if table.beta is None:
        return None
    if table.domains:
        profiles = [domain_profile(placed.setting.model, Path(path)) for path in table.domains]
        loads = [_of_places(_equal(placed, each), placed, table.beta_scope) for each in profiles]
        worst = np.max(loads, axis=0)
    else:
        worst = place_loads(spec, placed, table.beta_scope)
    return CapKept(
        beta=table.beta,
        scope=table.beta_scope,
        busiest=worst.max(axis=1),
        above=np.maximum(worst - table.beta, 0.0).sum(axis=1),
        least=None if table.domains else _least(placed, table.beta_scope),
    )


def place_loads(spec: RunSpec, placed: Placed, scope: str) -> NDArray[np.float64]:
    """float64 [layers, places]: load over the mean, from the profile under the replica rule."""
    setting = placed.setting
    if not placed.placement.redundant:
        return _of_places(_equal(placed, setting.problem.profile), placed, scope)
    problem = replica_problem(setting, setting.problem)
    flows = replica_flows(placed.placement, problem, make_rule(spec.placement.replica_rule))
    return _of_places(gpu_load(placed.placement, flows), placed, scope)


def _equal(placed: Placed, profile: ExpertProfile) -> NDArray[np.float64]:
    """float64 [layers, GPUs]: part of a layer's choices, replicas sharing equally."""
    placement = placed.placement
    flat = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    heat = np.bincount(flat, slot_load(placement, profile), placement.layers * placement.gpus)
    return np.asarray(heat, dtype=np.float64).reshape(placement.layers, placement.gpus)


def _of_places(heat: NDArray[np.float64], placed: Placed, scope: str) -> NDArray[np.float64]:
    """Sum the GPUs' loads by place, over the mean place's."""
    if scope == "server":
        heat = heat.reshape(len(heat), placed.placement.servers, -1).sum(axis=2)
    over_mean: NDArray[np.float64] = heat / heat.mean(axis=1, keepdims=True)
    return over_mean


def _least(placed: Placed, scope: str) -> NDArray[np.float64] | None:
    """float64 [layers]: proven for single slots from the loads, for replicas by their policy."""
    if placed.placement.redundant:
        return placed.choice.least_busiest if scope == "gpu" else None
    problem = placed.setting.problem
    places = Places.of(problem, scope)
    return least_maximum_bound(problem, places) * places.server.size
