"""Placements that say on which GPU every slot sits."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from placement.objective import evaluate
from placement.placement import Placement
from placement.solve import SolveReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem


def place_on_gpus(
    problem: PlacementProblem,
    gpu: NDArray[np.integer],
    expert: NDArray[np.integer] | None = None,
    *,
    policy: str,
    solve: SolveReport | None = None,
) -> Placement:
    """Turn a choice of GPUs into a placement.

    Parameters
    ----------
    gpu
        int [layers, slots]: the GPU of every slot.
    expert
        int [layers, slots]: its expert; by default slot e holds expert e.
    policy, solve
        Who chose, and what the solver says of it.
    """
    layers, slots = gpu.shape
    if expert is None:
        expert = np.broadcast_to(np.arange(slots), gpu.shape)
    return Placement(
        model=problem.model,
        layers=layers,
        experts=problem.experts,
        gpus=problem.servers * problem.gpus_per_server,
        gpus_per_server=problem.gpus_per_server,
        slot_layer=np.repeat(np.arange(layers), slots).astype(np.int32),
        slot_gpu=gpu.ravel().astype(np.int32),
        slot_expert=expert.ravel().astype(np.int32),
        policy=policy,
        solve=solve,
    )


def measured(placement: Placement, problem: PlacementProblem, begun: float) -> Placement:
    """Report the hops of a policy that minimises something else, without a bound on hops.

    Parameters
    ----------
    placement, problem
        What was placed, replicas sharing their load equally.
    begun
        `time.perf_counter` when the policy was called.
    """
    hops = evaluate(placement, problem).hops_per_token_layer
    report = SolveReport(
        status="heuristic",
        objective=hops,
        bound=None,
        seconds=time.perf_counter() - begun,
    )
    return replace(placement, solve=report)
