"""Inter-layer affinity: experts that follow one another go to one device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.field.equal import equal_counts
from placement.field.partition_bounds import between_bound
from placement.slots import measured, place_on_gpus
from placement.training_tokens import training_choices
from workloads import affinity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class InterLayerAffinity:
    """ExFlow's objective: most inter-layer transitions inside a server, then inside a GPU.

    Source: Yao et al., "Exploiting Inter-Layer Expert Affinity for Accelerating
    Mixture-of-Experts Model Inference" (ExFlow), arXiv 2401.08383. Faithful: experts that
    follow one another are kept together, under equal counts in every layer, in two stages,
    servers first and the GPUs of each server after; loads and hops are not looked at. Adapted:
    its integer program is climbed layer by layer, each layer placed exactly (a transport
    problem) with its neighbours held, in sweeps until none gains, from several starts: a local
    optimum, where a full solve of the program would be the global one. Affinity is counted over
    all of a token's k choices. Equal counts keep both caps.

    Attributes
    ----------
    starts
        Starts of the climb: the first layer's experts in order of load, then random ones.
    seed
        Seed of the random starts.
    """

    starts: int = 4
    seed: int = 0
    name: str = "affinity"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place servers for inter-layer affinity, then the GPUs inside each."""
        begun = time.perf_counter()
        follow = affinity(training_choices(problem.profile, self.name), problem.experts)
        # Work in the order of load: the answer does not depend on how experts are numbered.
        order = np.argsort(-problem.profile.load, axis=1, kind="stable")
        rows = np.take_along_axis(follow, order[:-1, :, None], axis=1)
        follow = np.take_along_axis(rows, order[1:, None, :], axis=2)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        room = equal_counts(problem).reshape(problem.layers, problem.servers, -1)
        server = self._climbed(follow, np.zeros_like(order), room.sum(axis=2)[:, None, :], rng)
        inside = self._climbed(follow, server, room, rng)
        gpu = np.empty_like(order)
        np.put_along_axis(gpu, order, server * problem.gpus_per_server + inside, axis=1)
        return measured(place_on_gpus(problem, gpu, policy=self.name), problem, begun)

    def _climbed(
        self,
        follow: NDArray[np.float64],
        parent: NDArray[np.int64],
        room: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """int64 [layers, E]: the child of each expert's `parent`, best of the starts."""
        from placement.field._chain_kernel import chain  # noqa: PLC0415  numba loads slowly

        best, most = np.zeros_like(parent), -np.inf
        for turn in range(max(1, self.starts)):
            child = np.zeros_like(parent)
            child[0] = _start(parent[0], room[0], rng if turn else None)
            kept = chain(follow, parent, room, child)
            if kept > most:
                best, most = child, kept
        return best


def _start(
    parent: NDArray[np.int64], room: NDArray[np.int64], rng: np.random.Generator | None
) -> NDArray[np.int64]:
    """int64 [E]: children filled in the experts' order, or at random."""
    child = np.empty_like(parent)
    for at, places in enumerate(room):
        run = np.repeat(np.arange(len(places)), places)
        child[parent == at] = run if rng is None else rng.permutation(run)
    return child


def kept_affinity(affinity: NDArray[np.float64], device: NDArray[np.integer]) -> float:
    """Mean over neighbouring layers of the share of transitions that stay on their device.

    Parameters
    ----------
    affinity
        float64 [layers - 1, E, E], as `workloads.affinity` counts it.
    device
        int [layers, E]: the GPU, or server, of every expert.
    """
    stay = device[:-1, :, None] == device[1:, None, :]
    return float((affinity * stay).sum()) / max(1, len(affinity))


def kept_affinity_bound(affinity: NDArray[np.float64], devices: int) -> float:
    """Upper bound on `kept_affinity` of any placement with equal counts on `devices`."""
    return sum(between_bound(weight, devices) for weight in affinity) / max(1, len(affinity))
