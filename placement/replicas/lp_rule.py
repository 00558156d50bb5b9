"""The fractions of a layer's tokens that replicas take: fewest hops at the least balance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError
from placement.highs import Program, SolveResult, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray


def least_fractions(
    load: NDArray[np.float64],
    expert: NDArray[np.integer],
    gpu: NDArray[np.integer],
    origin: NDArray[np.float64],
    trip: NDArray[np.float64],
    *,
    cap: float | None,
    gpus: int,
) -> NDArray[np.float64]:
    """Fractions of fewest hops of one layer under a cap on the busiest GPU.

    Two linear programs: the least busiest GPU, which no origin decides; then, with origins, the
    fewest hops at that load, or at `cap` where it is higher.

    Parameters
    ----------
    load
        float64 [experts].
    expert, gpu
        int [slots].
    origin
        float64 [origins]: P(o).
    trip
        float64 [origins, slots]: hops from an origin to a slot and on to the collector.
    cap
        Most load of a GPU over the mean; None asks for the least.
    gpus
        GPUs, empty ones included.

    Returns
    -------
    float64 [origins, slots]
        Of what an origin sends to the slot's expert, the slot's part; origins without tokens
        have their parts at random among the nearest.
    """
    weight = load * gpus
    cap_load = least_cap(weight, expert, gpu, gpus)
    if cap is not None:
        cap_load = max(cap_load, cap)
    several = np.bincount(expert, minlength=len(load))[expert] > 1
    fixed = np.bincount(gpu[~several], weight[expert[~several]], gpus)
    part = np.zeros(trip.shape)
    part[:, ~several] = 1.0
    if several.any():
        room = np.maximum(cap_load - fixed, 0.0)
        part[:, several] = _split(
            weight, expert[several], gpu[several], origin, trip[:, several], room
        )
    return part


def least_cap(
    weight: NDArray[np.float64], expert: NDArray[np.integer], gpu: NDArray[np.integer], gpus: int
) -> float:
    """Least load of the busiest GPU that any fractions reach, in units of `weight`.

    Columns: what every slot takes, and the busiest GPU's load; rows: experts, then GPUs.
    """
    slots, experts = len(expert), len(weight)
    used = np.unique(gpu)
    column = np.arange(slots)
    start = np.append(2 * np.arange(slots + 1), 2 * slots + len(used))
    row = np.searchsorted(used, gpu)
    index = np.append(
        np.column_stack((expert[column], experts + row)).ravel(), experts + np.arange(len(used))
    )
    value = np.append(np.ones(2 * slots), np.full(len(used), -1.0))
    result = solve(
        Program(
            cost=np.append(np.zeros(slots), 1.0),
            lower=np.zeros(slots + 1),
            upper=np.append(weight[expert], weight.sum()),
            start=start.astype(np.int32),
            index=index.astype(np.int32),
            value=value,
            row_lower=np.append(weight, np.full(len(used), -np.inf)),
            row_upper=np.append(weight, np.zeros(len(used))),
        )
    )
    return max(float(_found(result)[-1]), float(weight.sum()) / gpus)


def _split(
    weight: NDArray[np.float64],
    expert: NDArray[np.integer],
    gpu: NDArray[np.integer],
    origin: NDArray[np.float64],
    trip: NDArray[np.float64],
    room: NDArray[np.float64],
) -> NDArray[np.float64]:
    """float64 [origins, slots]: fractions of fewest hops for experts with several replicas.

    Columns: (origin with tokens, slot); rows: (origin, expert), then GPUs.
    """
    there = np.flatnonzero(origin > 0)
    of, used = np.unique(expert), np.unique(gpu)
    row_of, row_gpu = np.searchsorted(of, expert), np.searchsorted(used, gpu)
    at = np.arange(len(there))[:, None]
    index = np.stack(
        np.broadcast_arrays(at * len(of) + row_of, len(there) * len(of) + row_gpu), axis=2
    )
    sent = (origin[there, None] * weight[of]).ravel()
    columns = len(there) * len(expert)
    result = solve(
        Program(
            cost=trip[there].ravel(),
            lower=np.zeros(columns),
            upper=np.repeat(origin[there], len(expert)) * np.tile(weight[expert], len(there)),
            start=np.arange(0, 2 * columns + 1, 2, dtype=np.int32),
            index=index.ravel().astype(np.int32),
            value=np.ones(2 * columns),
            row_lower=np.append(sent, np.full(len(used), -np.inf)),
            row_upper=np.append(sent, room[used] + 1e-9),
        )
    )
    flow = np.maximum(_found(result), 0.0).reshape(len(there), len(expert))
    # Origins without tokens, and experts without load, go to the nearest.
    part = _nearest(expert, trip)
    total = np.stack([np.bincount(row_of, row, len(of)) for row in flow])[:, row_of]
    part[there] = np.where(total > 0, flow / np.where(total > 0, total, 1.0), part[there])
    return part


def _nearest(expert: NDArray[np.integer], trip: NDArray[np.float64]) -> NDArray[np.float64]:
    """0/1 [origins, slots]: the first slot of each expert at the fewest hops."""
    part = np.zeros(trip.shape)
    at = np.arange(len(trip))
    for one in np.unique(expert):
        mine = np.flatnonzero(expert == one)
        part[at, mine[np.argmin(trip[:, mine], axis=1)]] = 1.0
    return part


def _found(result: SolveResult) -> NDArray[np.float64]:
    if result.x is None:
        raise PlacementError(f"the replicas' fractions cannot be found: {result.status}")
    return result.x
