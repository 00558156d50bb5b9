"""What part of an origin's tokens each replica takes: the laws of rules that need no load.

Engines run these laws and the simulator replays them; policies price them in expectation
(`placement.replicas.rules`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement


def slots_by_expert(
    placement: Placement,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Slots ordered by (layer, expert, slot), where each expert starts, and which it is.

    Returns
    -------
    int64 [slots], int64 [layers * experts], int64 [slots]
    """
    order = np.lexsort((placement.slot_expert, placement.slot_layer))
    count = placement.replicas.ravel()
    start = np.cumsum(count) - count
    return order, start, np.repeat(np.arange(len(count)), count)


def equal_parts(placement: Placement) -> NDArray[np.float64]:
    """float64 [slots]: 1 / replicas, whatever the origin."""
    parts: NDArray[np.float64] = 1 / placement.replicas[placement.slot_layer, placement.slot_expert]
    return parts


def nearest_parts(placement: Placement, server_distance: NDArray[Any]) -> NDArray[np.float64]:
    """Equal parts for the replicas at the fewest hops from the origin's server.

    Parameters
    ----------
    server_distance
        [servers, servers]: hops.

    Returns
    -------
    float64 [servers, slots]
    """
    order, start, group = slots_by_expert(placement)
    server = placement.slot_gpu[order] // placement.gpus_per_server
    distance = server_distance[:, server]
    least = np.minimum.reduceat(distance, start, axis=1)[:, group]
    ties = np.add.reduceat(distance == least, start, axis=1, dtype=np.int64)[:, group]
    part = np.empty(distance.shape)
    part[:, order] = (distance == least) / ties
    return part


def static_parts(placement: Placement, seed: int) -> NDArray[np.float64]:
    """All to one replica: the rank's own where it holds the expert, else a fixed one.

    The ranks without a replica of their own are dealt to the replicas in random order, as
    equally as can be. Source: SGLang's ``--ep-dispatch-algorithm static``; the law is its own,
    the random numbers are ours.

    Returns
    -------
    float64 [gpus, slots], 0 or 1
    """
    order, start, group = slots_by_expert(placement)
    gpu = placement.slot_gpu[order]
    stop = np.append(start[1:], len(order))
    single = stop - start == 1
    dealt = np.zeros((placement.gpus, len(order)))
    dealt[:, single[group]] = 1.0
    rng = np.random.Generator(np.random.PCG64(seed))
    for first, last in zip(start[~single], stop[~single], strict=True):
        _deal(rng, gpu[first:last], dealt[:, first:last])
    part = np.empty_like(dealt)
    part[:, order] = dealt
    return part


def _deal(rng: np.random.Generator, gpu: NDArray[np.int32], part: NDArray[np.float64]) -> None:
    """Fill ``part[rank, replica]`` of one expert: own replica first, the others dealt."""
    own, first = np.unique(gpu, return_index=True)
    part[own, first] = 1.0
    others = np.setdiff1d(np.arange(len(part)), own)
    rounds, over = divmod(len(others), len(gpu))
    extra = rng.choice(len(gpu), size=over, replace=False)
    replica = np.append(np.tile(np.arange(len(gpu)), rounds), extra)
    part[others, rng.permutation(replica)] = 1.0
