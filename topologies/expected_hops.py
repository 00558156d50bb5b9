"""Hops that Valiant routing is expected to take, over its draws of intermediate groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topologies._detour_kernel import entry_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.switch_graph import SwitchGraph


def valiant_hops(graph: SwitchGraph, switches: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64 [switches, switches]: expected hops between each two of them.

    All groups but the two of a pair are equally likely in between; where several next hops tie,
    so are these. Inside a group the hops are those of the minimal path.

    Parameters
    ----------
    graph
        A dragonfly's switches.
    switches
        int64: the switches asked.
    """
    group = graph.group
    groups = int(group.max()) + 1
    own = group[switches]
    minimal = graph.hops(switches[:, None], switches[None, :]).astype(np.float64)
    total = np.zeros_like(minimal)
    for via in range(groups):
        members = np.flatnonzero(group == via)
        place = np.full(len(group), -1)
        place[members] = np.arange(len(members))
        row = graph.to_group.rows(np.array([via]))[0]
        cost = graph.to_group.costs[row]
        entry = entry_shares(graph.edges, cost, place, len(members))[switches]
        onward = graph.hops(members[:, None], switches[None, :])
        hops = (cost[switches] % graph.unit)[:, None] + entry @ onward
        other = own != via
        total += hops * (other[:, None] & other[None, :])
    return np.where(own[:, None] == own[None, :], minimal, total / (groups - 2))
