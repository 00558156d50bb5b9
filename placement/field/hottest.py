"""Full replication of the hottest experts: a replica on every server, or every GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from placement.errors import PlacementError
from placement.field.equal import equal_counts
from placement.slots import measured, place_on_gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.policy import Policy
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class HottestEverywhere:
    """A replica of each layer's K hottest experts on every server (or GPU).

    Practice rather than one paper: what serving teams do by hand, and what "hot expert
    replication" usually means. One slot of every expert goes where `base` puts it, by default in
    runs of consecutive experts with equal counts on all GPUs, within both caps; the replicas
    come on top of the caps, at most `hottest` slots more of a layer per server (or per GPU). On
    a server the replica takes the GPU with the fewest slots of the layer, among those the one
    with the least load. An expert is never twice on a server (GPU).

    Attributes
    ----------
    hottest
        K: experts of each layer that are replicated; equal loads go by expert id.
    scope
        ``server`` or ``gpu``: where every one of them is to be found.
    base
        Policy that places one slot of every expert; None places consecutive runs.
    """

    hottest: int = 1
    scope: Literal["server", "gpu"] = "server"
    base: Policy | None = None
    name: str = "hottest"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place every expert once and the hottest ones everywhere."""
        begun = time.perf_counter()
        self._check(problem)
        home = self._homes(problem)
        hot = np.argsort(-problem.profile.load, axis=1, kind="stable")[:, : self.hottest]
        if self.scope == "gpu":
            gpus = problem.servers * problem.gpus_per_server
            gpu = np.broadcast_to(np.arange(gpus), (*hot.shape, gpus))
        else:
            gpu = _gpu_on_each_server(problem, home, hot)
        at = _all_slots(home, hot, gpu)
        return measured(place_on_gpus(problem, *at, policy=self.name), problem, begun)

    def _homes(self, problem: PlacementProblem) -> NDArray[np.int64]:
        """int64 [layers, experts]: the GPU of every expert's first slot."""
        if self.base is not None:
            return self.base(problem).gpu_of_expert.astype(np.int64)
        counts = equal_counts(problem)
        return np.array([np.repeat(np.arange(len(row)), row) for row in counts])

    def _check(self, problem: PlacementProblem) -> None:
        if self.scope not in ("server", "gpu"):
            raise PlacementError(
                f"policy '{self.name}': scope is '{self.scope}', allowed: server, gpu"
            )
        places = problem.servers * (problem.gpus_per_server if self.scope == "gpu" else 1)
        if not 1 <= self.hottest <= problem.experts:
            raise PlacementError(
                f"policy '{self.name}': hottest is {self.hottest}, expected 1..{problem.experts}, "
                f"the experts of a layer; all of them on every {self.scope} take "
                f"{problem.experts * (places - 1)} redundant slots"
            )


def _gpu_on_each_server(
    problem: PlacementProblem, home: NDArray[np.int64], hot: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64 [layers, K, servers]: the GPU of each hot expert on each server, its own at home.

    Hottest first, every replica carrying an equal share of its expert's load.
    """
    layers, servers, inside = problem.layers, problem.servers, problem.gpus_per_server
    row = np.arange(layers)
    share = problem.profile.load.copy()
    share[row[:, None], hot] /= servers
    cell = (row[:, None] * servers * inside + home).ravel()
    size = layers * servers * inside
    slots = np.bincount(cell, minlength=size).reshape(layers, servers, inside)
    heat = np.bincount(cell, share.ravel(), size).reshape(slots.shape)
    gpu = np.empty((layers, hot.shape[1], servers), dtype=np.int64)
    of_layer, of_server = np.ogrid[:layers, :servers]
    for rank, expert in enumerate(hot.T):
        fewest = slots == slots.min(axis=2, keepdims=True)
        pick = np.argmin(np.where(fewest, heat, np.inf), axis=2)
        away = np.arange(servers) != (home[row, expert] // inside)[:, None]
        slots[of_layer, of_server, pick] += away
        heat[of_layer, of_server, pick] += away * share[row, expert][:, None]
        gpu[:, rank] = np.where(
            away, np.arange(servers) * inside + pick, home[row, expert][:, None]
        )
    return gpu


def _all_slots(
    home: NDArray[np.int64], hot: NDArray[np.int64], gpu: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """GPUs and experts int64 [layers, slots]: homes of cold experts, hot ones as in `gpu`."""
    layers, experts = home.shape
    cold = np.ones(home.shape, dtype=bool)
    np.put_along_axis(cold, hot, values=False, axis=1)
    expert = np.broadcast_to(np.arange(experts), home.shape)
    places = gpu.shape[2]
    return (
        np.hstack((home[cold].reshape(layers, -1), gpu.reshape(layers, -1))),
        np.hstack((expert[cold].reshape(layers, -1), np.repeat(hot, places, axis=1))),
    )
