"""Inside the servers: an expert that stays on its server keeps its GPU, newcomers fill the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.moves.keep_flow import KeepFlow
from placement.moves.keep_network import KeepNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem


def keep_gpus(
    problem: PlacementProblem, server: NDArray[np.int64], old_gpu: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Choose GPUs inside given servers so that the fewest experts change theirs.

    A GPU gets at most ``ceil(server_slots / gpus)`` experts in all and ``ceil(layer_slots /
    gpus)`` of a layer, as `PlacementProblem.place` guarantees; where that leaves a choice, the
    least loaded GPU of the layer takes the hottest newcomer.

    Parameters
    ----------
    server
        int64 [layers, experts]: the chosen servers, both caps kept.
    old_gpu
        int64 [layers, experts]: GPUs of the previous placement.

    Returns
    -------
    int64 [layers, experts]: GPU of every expert.
    """
    layers, experts, size = problem.layers, problem.experts, problem.gpus_per_server
    gpus = problem.servers * size
    layer = np.arange(layers)[:, None]
    stays = old_gpu // size == server
    home = np.where(stays, layer * gpus + old_gpu, -1).ravel()
    network = KeepNetwork(
        weight=problem.profile.load.ravel(),
        home=home,
        home_cost=np.zeros(layers * experts),
        choice_item=np.arange(layers * experts),
        choice_hub=(layer * problem.servers + server).ravel(),
        choice_cost=np.zeros(layers * experts),
        route_hub=np.arange(layers * gpus) // size,
        route_cell=np.arange(layers * gpus),
        cell_bin=np.tile(np.arange(gpus), layers),
        cell_capacity=np.full(layers * gpus, -(-problem.layer_slots // size)),
        bin_capacity=np.full(gpus, -(-problem.server_slots // size)),
    )
    flow = KeepFlow(network)
    cell = flow.solve(int(flow.scale)).cell
    return cell.reshape(layers, experts) - layer * gpus
