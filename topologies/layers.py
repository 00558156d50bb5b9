"""Bytes on links, layer by layer, where the same pairs of GPUs talk again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topologies import _kernels as kernels
from topologies._layers_kernel import add_path_rows, add_split_rows
from topologies.shares import switch_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cards import Cards
    from topologies.paths import Paths
    from topologies.switch_graph import SwitchGraph

    Ends = tuple[NDArray[np.int64], NDArray[np.int64]]
    Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], int]


def path_bytes(paths: Paths, rows: Rows, rank: NDArray[np.int64], links: int) -> NDArray[np.int64]:
    """Return int64 [layers, links] of flows that keep to the paths of their pairs.

    Parameters
    ----------
    paths
        Of the pairs.
    rows
        ``(indptr, src, dst, messages, message_bytes)`` of the flows.
    rank
        int64 [talking, talking]: places of the pairs, in rows and columns that the ends name.
    links
        Links of the cluster.
    """
    out = np.zeros((len(rows[0]) - 1, links), dtype=np.int64)
    add_path_rows(rows[:4], rank, paths.indptr, paths.links, out)
    return out * rows[4]


def split_bytes(
    graph: SwitchGraph,
    cards: Cards,
    rows: Rows,
    pairs: tuple[Ends, NDArray[np.int64]],
    links: int,
) -> NDArray[np.float64]:
    """Return float64 [layers, links] of flows that are split by `topologies.shares`.

    Parameters
    ----------
    graph, cards
        The switches, and the rail rule in force.
    rows
        ``(indptr, src, dst, messages, message_bytes)`` of the flows.
    pairs
        The distinct pairs, and ranks [gpus, gpus] of them.
    links
        Links of the cluster.

    Raises
    ------
    RoutingError
        If two GPUs have no route.
    """
    ends, rank = pairs
    layers, switches = len(rows[0]) - 1, len(graph.group)
    # Links first, then -1, in no more columns than are used.
    own = -np.sort(-np.hstack(cards.own_links(*ends)), axis=1)
    own = own[:, (own >= 0).any(axis=0)].copy()
    between, which = switch_pairs(cards.switches(*ends), switches)
    graph.hops(*between)  # refuses what has no route
    target = graph.rows(between[1])
    # Counted in integers, whose sums a processor has sooner; float64 holds their bytes exactly.
    own_messages = np.zeros((layers, links), dtype=np.int64)
    far_messages = np.zeros((layers, len(between[0])), dtype=np.int64)
    add_split_rows(rows[:4], rank, own, which, (own_messages, far_messages))
    out, volume = own_messages * np.float64(rows[4]), far_messages * np.float64(rows[4])
    layer, pair = np.nonzero(volume)
    order = np.lexsort((between[0][pair], layer, target[pair]))
    layer, pair = layer[order], pair[order]
    cells = (target[pair], layer, between[0][pair])
    kernels.split_volumes(graph.edges, graph.costs, cells, volume[layer, pair], out)
    return out
