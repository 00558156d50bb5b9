"""ECMP as an average: an equal split over the next hops at every switch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topologies import _kernels as kernels
from topologies._usage_kernel import pair_usage, spread
from topologies.paths import LinkUsage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cards import Cards
    from topologies.flows import Flows
    from topologies.switch_graph import SwitchGraph

_DENSE = 1 << 22
"""Largest range of keys for which marking beats sorting, and its table stays small."""


def share_bytes(graph: SwitchGraph, cards: Cards, flows: Flows, out: NDArray[np.float64]) -> None:
    """Add what flows put on every link to out [layers, links].

    Splitting is linear, so all flows of a layer to one target are added up where they start
    and carried to it together: work grows with targets times links, not with flows.

    Parameters
    ----------
    graph, cards
        The switches, and the rail rule in force.
    flows
        Rows of flows; their queue pairs are not looked at.
    out
        The array to be added to.

    Raises
    ------
    RoutingError
        If two GPUs have no route.
    """
    layers, links = out.shape
    for own in cards.own_links(flows.src, flows.dst):
        for column in own.T:
            used = column >= 0
            cell = flows.layer[used] * links + column[used]
            out += np.bincount(cell, flows.size_bytes[used], out.size).reshape(out.shape)
    source, target = cards.switches(flows.src, flows.dst)
    far = source >= 0
    source, target = source[far], target[far]
    graph.hops(source, target)  # refuses what has no route
    switches, row = len(graph.group), graph.rows(target)
    cell = (row * layers + flows.layer[far]) * switches + source
    found, inverse = distinct(cell, len(graph.costs) * layers * switches)
    sums = np.bincount(inverse, flows.size_bytes[far], len(found))
    cells = (found // switches // layers, found // switches % layers, found % switches)
    volume = np.asarray(sums, dtype=np.float64)
    kernels.split_volumes(graph.edges, graph.costs, cells, volume, out)


def share_usage(
    graph: SwitchGraph, cards: Cards, src: NDArray[np.int64], dst: NDArray[np.int64]
) -> LinkUsage:
    """Return the links every flow uses and its shares of them.

    The links between two switches are listed once for all flows between these.

    Parameters
    ----------
    graph, cards
        The switches, and the rail rule in force.
    src, dst
        int64 [flows]: GPUs.

    Raises
    ------
    RoutingError
        If two GPUs have no route.
    """
    pairs, which = switch_pairs(cards.switches(src, dst), len(graph.group))
    graph.hops(*pairs)  # refuses what has no route
    between = pair_usage(graph.edges, graph.costs, (pairs[0], graph.rows(pairs[1])))
    return LinkUsage(*spread(cards.own_links(src, dst), between, which))


def switch_pairs(
    ends: tuple[NDArray[np.int64], NDArray[np.int64]], switches: int
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Return the distinct pairs of switches, and which of them every flow crosses between.

    Parameters
    ----------
    ends
        int64 [flows]: source and target switch, -1 for a flow that crosses none.
    switches
        Switches there are.

    Returns
    -------
    Sources and targets, int64 [pairs] each; int64 [flows], -1 for a flow that crosses none.
    """
    far = ends[0] >= 0
    found, inverse = distinct(ends[0][far] * switches + ends[1][far], switches**2)
    which = np.full(len(far), -1)
    which[far] = inverse
    return (found // switches, found % switches), which


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
