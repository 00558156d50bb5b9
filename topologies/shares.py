"""ECMP as an average: an equal split over the next hops at every switch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topologies import _kernels as kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.switch_graph import SwitchGraph

_DENSE = 1 << 22
"""Largest range of keys for which marking beats sorting, and its table stays small."""


def add_shares(
    graph: SwitchGraph,
    ends: tuple[NDArray[np.int32], NDArray[np.int32]],
    size_bytes: NDArray[np.float64],
    layer: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """Add what flows between switches put on every link to out [layers, links].

    Splitting is linear, so all flows of a layer to one target are added up where they start
    and carried to it together: work grows with targets times links, not with flows.

    Parameters
    ----------
    graph
        The switches.
    ends
        int32 [flows]: source and target switch.
    size_bytes, layer
        float64 and int64 [flows].
    out
        The array to be added to.
    """
    layers, switches = len(out), len(graph.indptr) - 1
    source, target = ends
    row = graph.rows(target)
    cell = (row * layers + layer) * switches + source
    found, inverse = distinct(cell, len(graph.costs) * layers * switches)
    volume = np.asarray(np.bincount(inverse, size_bytes, len(found)), dtype=np.float64)
    cells = (found // switches // layers, found // switches % layers, found % switches)
    edges = (graph.indptr, graph.neighbour, graph.weight, graph.link)
    kernels.split_volumes(edges, graph.costs, cells, volume, out)


def distinct(keys: NDArray[np.int64], bound: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct keys, ascending, and where each of `keys` stands among them.

    Parameters
    ----------
    keys
        int64, from 0 to `bound` - 1.
    bound
        Decides the way, not the result: short ranges are marked in a table, long ones sorted.
    """
    if bound > _DENSE:
        found, inverse = np.unique(keys, return_inverse=True)
        return found, inverse
    present = np.zeros(bound, dtype=np.bool_)
    present[keys] = True
    found = np.flatnonzero(present)
    place = np.empty(bound, dtype=np.int64)
    place[found] = np.arange(len(found))
    return found, place[keys]
