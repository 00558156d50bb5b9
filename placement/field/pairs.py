"""Collaborative pairs: experts that tokens choose together go to one device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.field.equal import equal_counts
from placement.field.partition_bounds import within_bound
from placement.slots import measured, place_on_gpus
from placement.training_tokens import training_choices
from workloads import coactivation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class CollaborativePairs:
    """Occult's grouping: most co-activation between experts of one GPU, under equal counts.

    Source: Luo et al., "Occult: Optimizing Collaborative Communication across Experts",
    arXiv 2505.13345. Faithful: pairs of experts a token chooses together (intra-device
    collaboration) are gathered on GPUs that all hold equally many experts; loads and hops are
    not looked at. Adapted: every layer is solved by swaps from several starts instead of
    graph clustering with rescheduling, and the pruning of collaboration is left out, for it
    changes the model. Equal counts keep both caps.

    Attributes
    ----------
    starts
        Starts of the search: the experts in order of load, then random ones.
    seed
        Seed of the random starts.
    """

    starts: int = 4
    seed: int = 0
    name: str = "pairs"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Group the experts of every layer."""
        begun = time.perf_counter()
        weight = coactivation(training_choices(problem.profile, self.name), problem.experts)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        room, load = equal_counts(problem), problem.profile.load
        gpu = np.empty((problem.layers, problem.experts), dtype=np.int64)
        for layer in range(problem.layers):
            # Work in the order of load: the answer does not depend on how experts are numbered.
            order = np.argsort(-load[layer], kind="stable")
            pair_weight = weight[layer][np.ix_(order, order)]
            gpu[layer, order] = self._grouped(pair_weight, room[layer], rng)
        return measured(place_on_gpus(problem, gpu, policy=self.name), problem, begun)

    def _grouped(
        self, weight: NDArray[np.float64], room: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """int64 [experts]: the best of the starts, each improved by swaps."""
        from placement.field._swap_kernel import gather_pairs  # noqa: PLC0415  numba loads slowly

        start = np.repeat(np.arange(len(room)), room)
        best, most = start, -np.inf
        indifferent = np.zeros(len(start))
        for turn in range(max(1, self.starts)):
            device = start.copy() if turn == 0 else rng.permutation(start)
            kept = gather_pairs(weight, indifferent, device, len(room), np.inf)
            if kept > most:
                best, most = device, kept
        return best


def kept_pairs(coactivation: NDArray[np.float64], device: NDArray[np.integer]) -> float:
    """Mean over layers of a token's pairs of choices that share a device.

    Parameters
    ----------
    coactivation
        float64 [layers, E, E], as `workloads.choices.coactivation` counts it.
    device
        int [layers, E]: the GPU, or server, of every expert.
    """
    together = device[:, :, None] == device[:, None, :]
    twice = (coactivation * together).sum() - np.trace(coactivation, axis1=1, axis2=2).sum()
    return float(twice) / 2 / len(coactivation)


def kept_pairs_bound(coactivation: NDArray[np.float64], devices: int) -> float:
    """Upper bound on `kept_pairs` of any placement with equal counts on `devices`."""
    return float(np.mean([within_bound(weight, devices) for weight in coactivation]))
