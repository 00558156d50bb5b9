"""Inside the server: experts to GPUs so that the busiest GPU of every layer is light."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.slots import place_on_gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True, eq=False)
class GpuSpread:
    """Experts dealt to GPUs, and how good that is.

    Attributes
    ----------
    gpu
        int64 [layers, experts]: GPU of every expert.
    busiest
        float64 [layers]: load of the busiest GPU.
    bound
        float64 [layers]: no dealing of the same servers under the same caps does better. Equal
        to `busiest` where the dealing is proven best: by branch and bound, or because it meets
        max(mean of a server, its hottest expert + the coldest that must sit beside it, the two
        that must share a GPU).
    """

    gpu: NDArray[np.int64]
    busiest: NDArray[np.float64]
    bound: NDArray[np.float64]

    @property
    def proven(self) -> NDArray[np.bool_]:
        """bool [layers]: layers whose busiest GPU cannot be lighter."""
        return self.busiest <= self.bound * (1 + 1e-9)


def spread(
    problem: PlacementProblem, placement: Placement, *, seed: int = 0, nodes: int = 100_000
) -> Placement:
    """Keep every expert's server and deal the experts of each to its GPUs anew.

    At most ``ceil(server_slots / gpus)`` experts on a GPU, ``ceil(layer_slots / gpus)`` of a
    layer. `spread_gpus` gives the same with bounds.

    Parameters
    ----------
    problem
        Loads and caps.
    placement
        One slot for every expert.
    seed, nodes
        Of the search; nodes of the branch and bound for each server that decides its layer.
    """
    dealt = spread_gpus(problem, placement.server_of_expert, seed=seed, nodes=nodes)
    return place_on_gpus(problem, dealt.gpu, policy=placement.policy, solve=placement.solve)


def spread_gpus(
    problem: PlacementProblem,
    server: NDArray[np.integer],
    *,
    seed: int = 0,
    nodes: int = 100_000,
) -> GpuSpread:
    """Deal the experts of every server to its GPUs, lightest busiest GPU first.

    Each layer and server is packed on its own; which GPU takes which part is then chosen so
    that all layers together fit (`_fit`), which rarely costs balance and never breaks a cap.

    Parameters
    ----------
    problem
        Loads and caps.
    server
        int [layers, experts]: the server of every expert.
    seed, nodes
        See `spread`.

    Raises
    ------
    PlacementError
        If the servers break the problem's caps.
    """
    from placement.balance._inside_kernel import pack_servers  # noqa: PLC0415  numba is slow to import

    home = np.ascontiguousarray(server, dtype=np.int64)
    layer_cap, total_cap = _gpu_caps(problem, home)
    load = problem.profile.load
    rng = np.random.Generator(np.random.PCG64(seed))
    shape = problem.servers, problem.gpus_per_server
    order = np.argsort(-load, axis=1, kind="stable")
    hot_first = np.take_along_axis(load, order, axis=1)
    home_of_rank = np.take_along_axis(home, order, axis=1)
    packed, bound = pack_servers(rng, hot_first, home_of_rank, shape, layer_cap, nodes)
    part = np.empty_like(packed)
    np.put_along_axis(part, order, packed, axis=1)
    _fit(load, home, part, shape, (layer_cap, total_cap))
    gpu = home * problem.gpus_per_server + part
    gpus = problem.servers * problem.gpus_per_server
    flat = np.arange(problem.layers)[:, None] * gpus + gpu
    heat = np.bincount(flat.ravel(), load.ravel(), problem.layers * gpus)
    busiest = heat.reshape(problem.layers, gpus).max(axis=1)
    return GpuSpread(gpu=gpu, busiest=busiest, bound=np.minimum(bound, busiest))


def _gpu_caps(problem: PlacementProblem, home: NDArray[np.int64]) -> tuple[int, int]:
    if home.shape != (problem.layers, problem.experts):
        raise PlacementError(
            f"servers must be [{problem.layers} layers, {problem.experts} experts], "
            f"got {home.shape}"
        )
    if home.min() < 0 or home.max() >= problem.servers:
        raise PlacementError(f"a server is outside 0..{problem.servers - 1}")
    flat = (np.arange(problem.layers)[:, None] * problem.servers + home).ravel()
    counts = np.bincount(flat, minlength=problem.layers * problem.servers)
    total = np.bincount(home.ravel(), minlength=problem.servers)
    for name, most, cap in (
        ("layer_slots", int(counts.max()), problem.layer_slots),
        ("server_slots", int(total.max()), problem.server_slots),
    ):
        if most > cap:
            raise PlacementError(f"the servers break {name}: {most} experts, at most {cap} fit")
    gpus = problem.gpus_per_server
    return ceil(problem.layer_slots / gpus), ceil(problem.server_slots / gpus)


def _fit(
    load: NDArray[np.float64],
    home: NDArray[np.int64],
    part: NDArray[np.int64],
    shape: tuple[int, int],
    caps: tuple[int, int],
) -> None:
    """Choose, in place, which GPU takes which part, so that totals fit.

    In turn by layer the largest part goes to the GPU with the fewest experts so far. What is
    still too much goes by exchanging parts of two GPUs whose sizes differ by one, in any layer;
    failing that, an expert moves where it heats its new GPU least. A GPU above its cap has a
    larger part than one below in some layer, so one of the two is always possible.
    """
    servers, gpus = shape
    for server in range(servers):
        mine = home == server
        count = np.stack(
            [np.bincount(p[m], minlength=gpus) for p, m in zip(part, mine, strict=True)]
        )
        total = np.zeros(gpus, dtype=np.int64)
        name = np.empty_like(count)
        for at, row in enumerate(count):
            name[at, np.argsort(-row, kind="stable")] = np.argsort(total, kind="stable")
            total[name[at]] += row
        for at in range(len(count)):
            part[at, mine[at]] = name[at, part[at, mine[at]]]
        _relieve(load, mine, part, gpus, caps[1])


def _relieve(
    load: NDArray[np.float64],
    mine: NDArray[np.bool_],
    part: NDArray[np.int64],
    gpus: int,
    total_cap: int,
) -> None:
    """Take experts off GPUs of one server that hold more than `total_cap`, in place."""
    while True:
        total = np.bincount(part[mine], minlength=gpus)
        full, free = int(np.argmax(total)), int(np.argmin(total))
        if total[full] <= total_cap:
            return
        on_full, on_free = mine & (part == full), mine & (part == free)
        more = on_full.sum(axis=1) - on_free.sum(axis=1)
        if (more == 1).any():
            at = int(np.argmax(more == 1))
            part[at, on_full[at]], part[at, on_free[at]] = free, full
            continue
        heat = (load * on_free).sum(axis=1)
        after = np.where(on_full & (more > 0)[:, None], load + heat[:, None], np.inf)
        part[np.unravel_index(np.argmin(after), after.shape)] = free
