"""The graph of switches that routes run on, with costs computed for the targets asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topologies import _kernels as kernels
from topologies.cluster import LinkClass
from topologies.errors import RoutingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster

_GLOBAL_UNIT = 1 << 16
"""Cost of a global link where those count first: above any sum of hops."""


class SwitchGraph:
    """Directed edges between switches in rows by source, and costs to the switches asked.

    Attributes
    ----------
    indptr, neighbour, weight
        The edges, sorted by (source, target, weight, link); `weight` is 1, or 65,537 for a
        global link where the fewest global links come first.
    link
        int64 [edges]: the cluster's link of each edge.
    costs
        int32 [targets so far, switches].
    """

    def __init__(self, cluster: Cluster) -> None:
        between = np.flatnonzero(cluster.link_class >= LinkClass.LOCAL)
        src = cluster.link_src[between] - cluster.first_switch
        dst = cluster.link_dst[between] - cluster.first_switch
        weight = np.ones(len(between), dtype=np.int32)
        if cluster.fewest_global_first:
            weight[cluster.link_class[between] == LinkClass.GLOBAL] += _GLOBAL_UNIT
        order = np.lexsort((between, weight, dst, src))
        self._unit = _GLOBAL_UNIT if cluster.fewest_global_first else None
        self.indptr = np.searchsorted(src[order], np.arange(cluster.switches + 1)).astype(np.int64)
        self.neighbour = dst[order]
        self.weight = weight[order]
        self.link = between[order]
        self._latency = cluster.latency_s[self.link]
        self.costs = np.empty((0, cluster.switches), dtype=np.int32)
        self._latencies = np.empty((0, cluster.switches))
        self._row = np.full(cluster.switches, -1, dtype=np.int64)

    def rows(self, targets: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the row of `costs` of every target, computing the rows that are new."""
        new = np.unique(targets[self._row[targets] < 0]).astype(np.int64)
        if new.size:
            found = kernels.cost_rows(self.indptr, self.neighbour, self.weight, new)
            self._row[new] = len(self.costs) + np.arange(len(new))
            self.costs = np.concatenate([self.costs, found])
        rows: NDArray[np.int64] = self._row[targets]
        return rows

    def latency_s(
        self, src: NDArray[np.integer[Any]], dst: NDArray[np.integer[Any]]
    ) -> NDArray[np.float64]:
        """Return float64: seconds of the slowest route in force between each pair of switches."""
        rows = self.rows(dst)
        new = self.costs[len(self._latencies) :]
        if len(new):
            edges = (self.indptr, self.neighbour, self.weight, self._latency)
            found = kernels.latency_rows(edges, new)
            self._latencies = np.concatenate([self._latencies, found])
        latencies: NDArray[np.float64] = self._latencies[rows, src]
        return latencies

    def hops(
        self, src: NDArray[np.integer[Any]], dst: NDArray[np.integer[Any]]
    ) -> NDArray[np.int32]:
        """Return int32: links between each pair of switches, on the route in force.

        Raises
        ------
        RoutingError
            If two of the switches have no path between them.
        """
        rows = self.rows(dst)
        costs: NDArray[np.int32] = self.costs[rows, src]
        if (costs == kernels.UNREACHED).any():
            raise RoutingError("no route: a switch asked for is cut off from the others")
        return costs if self._unit is None else costs % np.int32(self._unit)
