"""Cluster, then map: balanced clusters of dependent experts, placed near their successors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.field.affinity import kept_affinity, kept_affinity_bound
from placement.field.equal import equal_counts
from placement.slots import measured, place_on_gpus
from placement.training_tokens import training_choices
from workloads import affinity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem

NVLINK_COST = 50 / 160
"""Time of a byte inside a server over its time between servers: DeepEP's H800 figures, 160 GB/s
usable over NVLink and 50 GB/s through a GPU's network card."""


@dataclass(frozen=True, slots=True)
class ClusterThenMap:
    """MOETuner's two stages: clusters of a layer's experts, then clusters to GPUs.

    Source: Go and Mahajan, "MOETuner: Optimized Mixture of Expert Serving with Balanced Expert
    Placement and Token Routing", arXiv 2502.06643. Faithful: clusters of equal count and
    balanced load, built from token-routing dependency, and a second stage that maps clusters to
    GPUs for least communication between consecutive layers, dearer between servers than
    inside. Adapted: where the paper solves an integer program for each stage, stage 1 packs the
    hottest experts first onto the coolest cluster and then swaps experts for dependency while no
    cluster exceeds `beta`; stage 2 assigns one layer's clusters exactly, its neighbours held, in
    sweeps until none gains (a local optimum). GPUs are told apart only by their server: the
    problem prices servers per layer and not pairs of GPUs. Equal counts keep both caps.

    Attributes
    ----------
    beta
        Most load of a cluster over the mean of its layer; layers whose packing is hotter than
        that keep the packing's greatest load as their cap.
    inside
        Cost of a transition between GPUs of one server, where one between servers costs 1.
    """

    beta: float = 1.1
    inside: float = NVLINK_COST
    name: str = "cluster-map"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Cluster the experts of every layer and map the clusters to GPUs."""
        begun = time.perf_counter()
        if not self.beta >= 1 or not 0 <= self.inside <= 1:
            raise PlacementError(
                f"policy '{self.name}': beta must be at least 1 and inside in 0..1, "
                f"got {self.beta} and {self.inside}"
            )
        follow = affinity(training_choices(problem.profile, self.name), problem.experts)
        room = equal_counts(problem)
        cluster = _clustered(problem.profile.load, follow, room, self.beta)
        gpu_of_cluster = _mapped(
            _flow(follow, cluster, room.shape[1]),
            room,
            gpus_per_server=problem.gpus_per_server,
            inside=self.inside,
        )
        gpu = np.take_along_axis(gpu_of_cluster, cluster, axis=1)
        return measured(place_on_gpus(problem, gpu, policy=self.name), problem, begun)


def dependency(follow: NDArray[np.float64], layer: int) -> NDArray[np.float64]:
    """How much more often two experts of a layer share predecessors and successors than by chance.

    ``sum_h A[h, i] A[h, j] / p[h] - p[i] p[j]`` over the experts h of the layer before, with A
    the affinity and p the loads: the probability that two choices that left the same expert come
    to i and to j, less that of independent choices. The same for the layer after is added.

    Parameters
    ----------
    follow
        float64 [layers - 1, E, E], as `workloads.affinity` counts it.
    layer
        Which layer's experts.

    Returns
    -------
    float64 [E, E], symmetric.
    """
    experts = follow.shape[1]
    shared = np.zeros((experts, experts))
    if layer > 0:
        shared += _shared(follow[layer - 1])
    if layer < len(follow):
        shared += _shared(follow[layer].T)
    return shared


def _shared(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [E, E]: pairs of columns reached from the same row, less chance."""
    source = weight.sum(axis=1)
    each = np.divide(weight, source[:, None], out=np.zeros_like(weight), where=source[:, None] > 0)
    arrive = weight.sum(axis=0)
    excess: NDArray[np.float64] = weight.T @ each - np.outer(arrive, arrive)
    return excess


def _clustered(
    load: NDArray[np.float64], follow: NDArray[np.float64], room: NDArray[np.int64], beta: float
) -> NDArray[np.int64]:
    """int64 [layers, E]: the cluster of every expert, cluster d as large as GPU d's share."""
    from placement.field._swap_kernel import gather_pairs  # noqa: PLC0415  numba loads slowly

    layers, experts = load.shape
    # Work in the order of load: the answer does not depend on how experts are numbered.
    order = np.argsort(-load, axis=1, kind="stable")
    hot_first = np.take_along_axis(load, order, axis=1)
    packed = _packed(hot_first, room)
    cluster = np.empty((layers, experts), dtype=np.int64)
    for layer in range(layers):
        device = packed[layer]
        heat = np.bincount(device, hot_first[layer], room.shape[1])
        cap = max(beta * float(heat.mean()), float(heat.max()))
        at = np.ix_(order[layer], order[layer])
        weight = dependency(follow, layer)[at]
        gather_pairs(weight, hot_first[layer], device, room.shape[1], cap)
        cluster[layer, order[layer]] = device
    return cluster


def _packed(hot_first: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [layers, E]: each expert, hottest first, on the coolest cluster with room."""
    layers, experts = hot_first.shape
    device = np.empty((layers, experts), dtype=np.int64)
    heat, free = np.zeros(room.shape), room.copy()
    row = np.arange(layers)
    for rank in range(experts):
        coolest = np.argmin(np.where(free > 0, heat, np.inf), axis=1)
        device[:, rank] = coolest
        heat[row, coolest] += hot_first[:, rank]
        free[row, coolest] -= 1
    return device


def _flow(
    follow: NDArray[np.float64], cluster: NDArray[np.int64], clusters: int
) -> NDArray[np.float64]:
    """float64 [layers - 1, D, D]: affinity between the clusters of neighbouring layers."""
    flow = np.empty((len(follow), clusters, clusters))
    for layer, weight in enumerate(follow):
        pair = cluster[layer][:, None] * clusters + cluster[layer + 1]
        flow[layer] = np.bincount(pair.ravel(), weight.ravel(), clusters**2).reshape(clusters, -1)
    return flow


def _mapped(
    flow: NDArray[np.float64], room: NDArray[np.int64], *, gpus_per_server: int, inside: float
) -> NDArray[np.int64]:
    """int64 [layers, D]: the GPU of every cluster; a cluster fits a GPU of its own count."""
    layers, gpus = room.shape
    gpu = np.tile(np.arange(gpus), (layers, 1))

    def saved(layer: int, *, ahead: bool) -> NDArray[np.float64]:
        """float64 [D, D]: cost each GPU would save each cluster of `layer`, neighbours held."""
        save = np.zeros((gpus, gpus))
        if layer > 0:
            save += _saved(flow[layer - 1].T, gpu[layer - 1], gpus_per_server, inside)
        if ahead and layer < layers - 1:
            save += _saved(flow[layer], gpu[layer + 1], gpus_per_server, inside)
        return save

    def total() -> float:
        rows = np.arange(gpus)
        return sum(float(saved(at, ahead=False)[rows, gpu[at]].sum()) for at in range(layers))

    for layer in range(1, layers):
        gpu[layer] = _assigned(saved(layer, ahead=False), room[layer])
    most = total()
    while True:
        before = gpu.copy()
        for layer in range(layers):
            gpu[layer] = _assigned(saved(layer, ahead=True), room[layer])
        now = total()
        if now <= most + 1e-12 * layers:
            return before
        most = now


def _saved(
    flow: NDArray[np.float64], gpu: NDArray[np.int64], gpus_per_server: int, inside: float
) -> NDArray[np.float64]:
    """float64 [clusters, GPUs]: what each GPU saves a cluster, against all flow between servers.

    Parameters
    ----------
    flow
        float64 [clusters, clusters of the neighbouring layer].
    gpu
        int64 [clusters of the neighbouring layer]: their GPUs.
    gpus_per_server, inside
        Flow costs 0 on one GPU, `inside` on one server, 1 otherwise.
    """
    on_gpu = np.empty_like(flow)
    on_gpu[:, gpu] = flow
    on_server = on_gpu.reshape(len(flow), -1, gpus_per_server).sum(axis=2)
    return inside * on_gpu + (1.0 - inside) * np.repeat(on_server, gpus_per_server, axis=1)


def _assigned(saved: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [D]: the GPU of every cluster that saves the most."""
    from placement.field._transport_kernel import transport  # noqa: PLC0415  numba loads slowly

    # All flow of a layer sums to 2 at most, so nothing saved outweighs a misfit.
    misfit = room[:, None] != room
    return transport(saved - 3.0 * misfit, np.ones(len(saved), dtype=np.int64))


def communication(
    affinity: NDArray[np.float64],
    gpu: NDArray[np.integer],
    *,
    gpus_per_server: int,
    inside: float = NVLINK_COST,
) -> float:
    """Mean over neighbouring layers of a transition's cost: what stage 2 minimises.

    Parameters
    ----------
    affinity
        float64 [layers - 1, E, E], as `workloads.affinity` counts it.
    gpu
        int [layers, E]: the GPU of every expert.
    gpus_per_server, inside
        A transition costs 0 on one GPU, `inside` on one server, 1 otherwise.
    """
    same_server = kept_affinity(affinity, gpu // gpus_per_server)
    return 1.0 - (1.0 - inside) * same_server - inside * kept_affinity(affinity, gpu)


def communication_bound(
    affinity: NDArray[np.float64],
    *,
    servers: int,
    gpus_per_server: int,
    inside: float = NVLINK_COST,
) -> float:
    """Lower bound on `communication` of any placement with equal counts, whatever the clusters."""
    same_server = kept_affinity_bound(affinity, servers)
    same_gpu = kept_affinity_bound(affinity, servers * gpus_per_server)
    return 1.0 - (1.0 - inside) * same_server - inside * same_gpu
