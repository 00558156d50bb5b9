"""Compiled sweeps over the layers: each layer placed exactly, its neighbours held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from placement.field._transport_kernel import transport

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def chain(
    affinity: NDArray[np.float64],
    parent: NDArray[np.int64],
    room: NDArray[np.int64],
    child: NDArray[np.int64],
) -> float:
    """Keep as much inter-layer affinity as possible inside children (devices of a parent).

    One pass forward places every layer for its predecessor, and sweeps follow in which every
    layer is placed anew, exactly, for both neighbours, until a sweep gains nothing.

    Parameters
    ----------
    affinity
        float64 [layers - 1, E, E].
    parent
        int64 [layers, E]: where every expert is, on the level above.
    room
        int64 [layers, parents, children]: experts each child takes.
    child
        int64 [layers, E]: its first layer is the start; changed.

    Returns
    -------
    float: affinity kept, summed over the neighbouring layers.
    """
    layers = len(child)
    for layer in range(1, layers):
        _place(affinity, parent, room, child, layer, look_ahead=False)
    kept = kept_affinity(affinity, parent, child)
    while True:
        before = child.copy()
        for layer in range(layers):
            _place(affinity, parent, room, child, layer, look_ahead=True)
        now = kept_affinity(affinity, parent, child)
        if now <= kept + 1e-12 * layers:
            child[:] = before
            return kept
        kept = now


@njit(cache=True)
def kept_affinity(
    affinity: NDArray[np.float64], parent: NDArray[np.int64], child: NDArray[np.int64]
) -> float:
    """Sum the affinity between experts of neighbouring layers on one child."""
    layers, experts = child.shape
    kept = 0.0
    for layer in range(layers - 1):
        for i in range(experts):
            for j in range(experts):
                if (
                    parent[layer, i] == parent[layer + 1, j]
                    and child[layer, i] == (child[layer + 1, j])
                ):
                    kept += affinity[layer, i, j]
    return kept


@njit(cache=True)
def _place(
    affinity: NDArray[np.float64],
    parent: NDArray[np.int64],
    room: NDArray[np.int64],
    child: NDArray[np.int64],
    layer: int,
    look_ahead: bool,
) -> None:
    """Place one layer exactly for the layer before and, looking ahead, the one after."""
    layers, experts = child.shape
    profit = np.zeros((experts, room.shape[2]))
    if layer > 0:
        for i in range(experts):
            for e in range(experts):
                if parent[layer - 1, i] == parent[layer, e]:
                    profit[e, child[layer - 1, i]] += affinity[layer - 1, i, e]
    if look_ahead and layer < layers - 1:
        for e in range(experts):
            for j in range(experts):
                if parent[layer + 1, j] == parent[layer, e]:
                    profit[e, child[layer + 1, j]] += affinity[layer, e, j]
    for p in range(room.shape[1]):
        mine = np.flatnonzero(parent[layer] == p)
        child[layer, mine] = transport(profit[mine], room[layer, p])
