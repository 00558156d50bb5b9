"""Independent evaluation of any placement, from its slots and the load statistics alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from workloads import ExpertProfile


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a placement is expected to cost.

    Attributes
    ----------
    hops_per_token_layer
        Expected hops of a token in a layer, dispatch and collect, all k choices.
    balance_server, balance_gpu
        Mean over layers of the busiest server's (GPU's) load over the mean load.
    balancedness
        Mean over layers of mean over largest GPU load, as SGLang logs it.
    """

    hops_per_token_layer: float
    balance_server: float
    balance_gpu: float
    balancedness: float


def evaluate(placement: Placement, problem: PlacementProblem) -> Evaluation:
    """Price a placement under `problem`'s costs and profile; replicas share their load equally.

    Raises
    ------
    PlacementError
        If placement and problem differ in layers, experts or servers.
    """
    _check_shapes(placement, problem)
    share = slot_load(placement, problem.profile)
    server = placement.slot_gpu // placement.gpus_per_server
    hops = problem.top_k * float(share @ problem.cost[placement.slot_layer, server])
    gpu_load = _by_layer(placement.layers, placement.gpus, placement, placement.slot_gpu, share)
    server_load = gpu_load.reshape(placement.layers, placement.servers, -1).sum(axis=2)
    return Evaluation(
        hops_per_token_layer=hops / placement.layers,
        balance_server=imbalance(server_load),
        balance_gpu=imbalance(gpu_load),
        balancedness=float(np.mean(gpu_load.mean(axis=1) / gpu_load.max(axis=1))),
    )


def slot_load(placement: Placement, profile: ExpertProfile) -> NDArray[np.float64]:
    """float64 [slots]: load of every slot, an expert's load shared equally by its replicas."""
    at = placement.slot_layer, placement.slot_expert
    return profile.load[at] / placement.replicas[at]


def imbalance(load: NDArray[np.float64] | NDArray[np.int64]) -> float:
    """Mean over layers of max / mean of a load array [layers, places]."""
    return float(np.mean(load.max(axis=1) / load.mean(axis=1)))


def _by_layer(
    layers: int,
    places: int,
    placement: Placement,
    place: NDArray[np.int32],
    share: NDArray[np.float64],
) -> NDArray[np.float64]:
    flat = placement.slot_layer.astype(np.int64) * places + place
    total = np.asarray(np.bincount(flat, share, layers * places), dtype=np.float64)
    return total.reshape(layers, places)


def _check_shapes(placement: Placement, problem: PlacementProblem) -> None:
    for what, have, want in (
        ("MoE layers", placement.layers, problem.layers),
        ("experts", placement.experts, problem.experts),
        ("servers", placement.servers, problem.servers),
    ):
        if have != want:
            raise PlacementError(f"the placement has {have} {what}, the problem {want}")
