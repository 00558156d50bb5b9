"""Proven bounds for replication: on the busiest GPU, and on hops under a cap on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem
    from placement.replicas.problem import ReplicaProblem

_SLACK = 1e-9
"""Relative slack on a cap: rounding must not make a bound invalid."""


def balance_bound(
    load: NDArray[np.float64], slots: int, gpus: int, reached: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lower bound on the busiest GPU over the mean, whatever rule splits experts over replicas.

    The largest of: the mean; the largest load / count under the best replica counts; without
    redundant slots, the hottest expert with the coldest that must sit beside it. It holds for
    any rule, as some replica of an expert takes at least an equal part.

    Parameters
    ----------
    load
        float64 [layers, experts], rows summing to 1.
    slots, gpus
        Slots of a layer, and GPUs that share them evenly.
    reached
        float64 [layers]: busiest GPU over the mean of some placement.

    Returns
    -------
    float64 [layers]
    """
    from placement.replicas._search_kernel import replica_counts  # noqa: PLC0415  numba is slow to import

    weight = load * gpus
    largest = np.array([(row / replica_counts(row, slots, gpus)).max() for row in weight])
    if slots == load.shape[1]:
        largest += np.sort(weight, axis=1)[:, : slots // gpus - 1].sum(axis=1)
    bound = np.maximum(largest, 1.0)
    return np.asarray(np.minimum(bound, reached), dtype=np.float64)


def equal_balance_bound(
    load: NDArray[np.float64],
    slots: int,
    gpus: int,
    reached: NDArray[np.float64],
    *,
    deadline: float = np.inf,
) -> NDArray[np.float64]:
    """`balance_bound`, tightened for the rule `equal` where GPUs have two slots each.

    Layers that come after `deadline`, a ``time.perf_counter`` value, keep the looser bound.
    """
    from placement.replicas._bound_kernel import pair_bound  # noqa: PLC0415  numba is slow to import

    bound = balance_bound(load, slots, gpus, reached)
    if slots != 2 * gpus:
        return bound
    pairs = [
        low if time.perf_counter() > deadline else pair_bound(row, gpus, low, high)
        for row, low, high in zip(load * gpus, bound, reached, strict=True)
    ]
    return np.array(pairs)


def hops_bound(
    problem: PlacementProblem,
    origins: ReplicaProblem | None,
    slots: int,
    cap: NDArray[np.float64],
) -> float:
    """Lower bound on hops per token and layer with no GPU above `cap`.

    Where the rule is `equal`, or a layer's tokens start on one server, an expert's tokens cost
    what its servers do: servers are filled to the cap, cheapest first. Under other rules the
    tokens near a replica are counted as well.

    Parameters
    ----------
    problem
        Loads and costs.
    origins
        The same with origins; None under the rule `equal`.
    slots
        Slots of a layer.
    cap
        float64 [layers]: most load of a GPU over the mean.
    """
    total = 0.0
    for layer, most in enumerate(cap * (1 + _SLACK)):
        bounds = [0.0]
        if origins is None or np.count_nonzero(origins.origin_share[layer]) == 1:
            bounds.append(_filled(problem, layer, slots, most))
        if origins is not None:
            bounds.append(_covered(origins, layer, slots, most))
        total += max(bounds)
    return problem.top_k * total / len(cap)


def _filled(base: PlacementProblem, layer: int, slots: int, cap: float) -> float:
    """Hops of a choice when the cheapest servers take all they can.

    N slots take at most the N largest of the pieces that experts are cut to by the cap, N slots'
    GPUs at most their caps.
    """
    gpus = base.servers * base.gpus_per_server
    cost = np.sort(base.cost[layer])
    weight = base.profile.load[layer] * gpus
    whole = np.floor(weight / cap).astype(np.int64)
    pieces = np.append(np.full(int(whole.sum()), cap), weight - whole * cap)
    pieces = -np.sort(-pieces)
    taken = np.append(0.0, np.cumsum(pieces))
    servers = np.arange(1, len(cost) + 1)
    room = np.minimum(servers * base.gpus_per_server * (slots // gpus), len(pieces))
    filled = np.minimum(taken[room], servers * base.gpus_per_server * cap) / gpus
    left = np.maximum(1.0 - filled[:-1], 0.0)
    return float(cost[0] + left @ np.diff(cost))


def _covered(problem: ReplicaProblem, layer: int, slots: int, cap: float) -> float:
    """Hops of a choice when replicas lie wherever they are near most tokens, for each distance.

    n replicas bring at most the n largest masses of origins within t hops of a server; the hops
    of an expert so bounded fall, ever more slowly, with n, so slots go where they save most.
    """
    base = problem.problem
    gpus = base.servers * base.gpus_per_server
    trip, origin = problem.trip(layer), problem.origin_share[layer]
    load = base.profile.load[layer]
    levels = np.unique(trip)
    near = np.stack([-np.sort(-(origin @ (trip <= t))) for t in levels])
    reach = np.minimum(np.cumsum(near, axis=1), 1.0)
    hops = levels[0] + np.diff(levels) @ (1.0 - reach[:-1])
    count = np.maximum(np.ceil(load * gpus / cap), 1).astype(np.int64)
    spare = slots - int(count.sum())
    saved = np.append(hops[:-1] - hops[1:], 0.0)
    further = np.arange(1, len(hops) + 1) >= count[:, None]
    gains = -np.sort(-(load[:, None] * saved)[further])
    first = hops[np.minimum(count, len(hops)) - 1]
    return float(load @ first - gains[: max(spare, 0)].sum())
