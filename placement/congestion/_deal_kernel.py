"""Compiled deals of a layer's slots to GPUs, from which the search starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def deal_counts(
    slots: int,
    total: tuple[Any, ...],
    most: tuple[Any, ...],
) -> NDArray[np.int64]:
    """Give each slot of a layer to the GPU that has had the fewest so far, servers in turn.

    Parameters
    ----------
    slots
        Slots of the layer.
    total
        (GPU, server) totals of earlier layers, int64; raised in place.
    most
        (of a layer on a GPU, on a server; in all on a GPU, on a server).

    Returns
    -------
    int64 [gpus]: slots of this layer; fewer in sum than asked where the caps leave no room.
    """
    of_gpu, of_server = total
    gpus, servers = len(of_gpu), len(of_server)
    size = gpus // servers
    count = np.zeros(gpus, dtype=np.int64)
    inside = np.zeros(servers, dtype=np.int64)
    for _ in range(slots):
        best = -1
        for gpu in range(gpus):
            server = gpu // size
            if count[gpu] >= most[0] or inside[server] >= most[1]:
                continue
            if of_gpu[gpu] >= most[2] or of_server[server] >= most[3]:
                continue
            if best >= 0:
                mine = (of_gpu[gpu], of_server[server])
                theirs = (of_gpu[best], of_server[best // size])
                if mine >= theirs:
                    continue
            best = gpu
        if best < 0:
            break
        count[best] += 1
        inside[best // size] += 1
        of_gpu[best] += 1
        of_server[best // size] += 1
    return count


@njit(cache=True)
def deal_slots(
    order: NDArray[np.int64],
    share: NDArray[np.float64],
    slot_expert: NDArray[np.int64],
    count: NDArray[np.int64],
    target: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Longest processing time first: each slot to the GPU that lacks most of its target load.

    Ties go to the GPU that takes the fewest slots, so that the hottest sit where little else must.

    Parameters
    ----------
    order
        int64 [slots]: heaviest first.
    share
        float64 [slots]: load of a slot.
    slot_expert
        int64 [slots].
    count
        int64 [gpus]: slots a GPU takes.
    target
        float64 [gpus].

    Returns
    -------
    int64 [slots]: GPU of every slot; -1 where only GPUs that hold the expert had room.
    """
    free, lack = count.copy(), target.copy()
    held = np.zeros((slot_expert.max() + 1, len(count)), dtype=np.bool_)
    slot_gpu = np.full(len(order), -1, dtype=np.int64)
    for slot in order:
        best = -1
        for gpu in range(len(count)):
            if free[gpu] == 0 or held[slot_expert[slot], gpu]:
                continue
            if best < 0 or (lack[gpu], -free[gpu]) > (lack[best], -free[best]):
                best = gpu
        if best >= 0:
            slot_gpu[slot] = best
            held[slot_expert[slot], best] = True
            free[best] -= 1
            lack[best] -= share[slot]
    return slot_gpu
