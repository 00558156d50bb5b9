"""The graph of switches that routes run on, with costs computed for the targets asked."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies import _kernels as kernels
from topologies.cluster import LinkClass
from topologies.errors import RoutingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster

    Edges = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]

_GLOBAL_UNIT = 1 << 16
"""Cost of a global link where those count first: above any sum of hops."""


class CostTable:
    """Costs from all switches to the nearest switch of each label asked, row by row.

    Parameters
    ----------
    edges
        ``(indptr, neighbour, weight)`` of the switches, against the way that is to be costed.
    label
        int64 [switches]: the target (or group) that each switch belongs to.
    """

    def __init__(self, edges: Edges, label: NDArray[np.int64]) -> None:
        self._edges = edges
        self._label = label
        self._row = np.full(int(label.max()) + 1, -1, dtype=np.int64)
        self._store = np.empty((0, len(label)), dtype=np.int32)
        self._used = 0

    @property
    def costs(self) -> NDArray[np.int32]:
        """int32 [targets so far, switches]."""
        return self._store[: self._used]

    def rows(self, targets: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the row of `costs` of every target, computing the rows that are new."""
        rows: NDArray[np.int64] = self._row[targets]
        if rows.size and rows.min() < 0:
            self._add(np.unique(targets[rows < 0]).astype(np.int64))
            rows = self._row[targets]
        return rows

    def _add(self, targets: NDArray[np.int64]) -> None:
        end = self._used + len(targets)
        if end > len(self._store):
            store = np.empty((max(end, 2 * self._used), len(self._label)), dtype=np.int32)
            store[: self._used] = self.costs
            self._store = store
        self._store[self._used : end] = kernels.cost_rows(*self._edges, self._label, targets)
        self._row[targets] = np.arange(self._used, end)
        self._used = end


class SwitchGraph:
    """Directed edges between switches in rows by source, and costs to the switches asked.

    Attributes
    ----------
    indptr, neighbour, weight
        The edges, sorted by (source, target, weight, link); `weight` is 1, or 65,537 for a
        global link where the fewest global links come first.
    link
        int64 [edges]: the cluster's link of each edge.
    unit
        Costs modulo it are hops.
    group
        int64 [switches]: the group of every switch.
    intact
        Whether all links have their edges.

    Parameters
    ----------
    cluster
        The cluster.
    dead
        bool [links]: links without an edge; by default none.
    """

    def __init__(self, cluster: Cluster, dead: NDArray[np.bool_] | None = None) -> None:
        alive = cluster.link_class >= LinkClass.LOCAL
        self.intact = dead is None
        between = np.flatnonzero(alive if dead is None else alive & ~dead)
        src = cluster.link_src[between] - cluster.first_switch
        dst = cluster.link_dst[between] - cluster.first_switch
        weight = np.ones(len(between), dtype=np.int32)
        if cluster.fewest_global_first:
            weight[cluster.link_class[between] == LinkClass.GLOBAL] += _GLOBAL_UNIT
        order = np.lexsort((between, weight, dst, src))
        self.unit = _GLOBAL_UNIT if cluster.fewest_global_first else int(kernels.UNREACHED)
        self.indptr = np.searchsorted(src[order], np.arange(cluster.switches + 1)).astype(np.int64)
        self.neighbour = dst[order]
        self.weight = weight[order]
        self.link = between[order]
        self.group = cluster.group_of_switch.astype(np.int64)
        self._latency = cluster.latency_s[self.link]
        self._latencies = np.empty((0, cluster.switches))
        # Costs spread from the targets against the edges, which run both ways until one is dead.
        self._towards = self._plain
        if dead is not None:
            order = np.lexsort((between, weight, src, dst))
            starts = np.searchsorted(dst[order], np.arange(cluster.switches + 1)).astype(np.int64)
            self._towards = starts, src[order], weight[order]
        self._switches = CostTable(self._towards, np.arange(cluster.switches))
        self._leaves = cluster.leaf_of_gpu

    @property
    def _plain(self) -> Edges:
        return self.indptr, self.neighbour, self.weight

    @property
    def edges(self) -> tuple[NDArray[Any], ...]:
        """``(indptr, neighbour, weight, link)``, as kernels take it."""
        return *self._plain, self.link

    @property
    def costs(self) -> NDArray[np.int32]:
        """int32 [targets so far, switches]: costs to single switches."""
        return self._switches.costs

    def rows(self, targets: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the row of `costs` of every target switch."""
        return self._switches.rows(targets)

    @cached_property
    def to_group(self) -> CostTable:
        """Costs to the nearest switch of a group; for graphs whose switches all have one."""
        return CostTable(self._towards, self.group)

    @cached_property
    def level(self) -> NDArray[np.int32]:
        """int32 [switches]: hops to the nearest switch with GPUs."""
        has_gpus = np.zeros(len(self.group), dtype=np.int64)
        has_gpus[self._leaves] = 1
        hops = np.ones(len(self.weight), dtype=np.int32)
        plain = (self.indptr, self.neighbour, hops)
        level: NDArray[np.int32] = kernels.cost_rows(*plain, has_gpus, np.array([1]))[0]
        return level

    def latency_s(
        self, src: NDArray[np.integer[Any]], dst: NDArray[np.integer[Any]]
    ) -> NDArray[np.float64]:
        """Return float64: seconds of the slowest shortest path between each pair of switches.

        Raises
        ------
        RoutingError
            If two of the switches have no path between them.
        """
        self.hops(src, dst)
        rows = self.rows(dst)
        new = self.costs[len(self._latencies) :]
        if len(new):
            edges = (*self._plain, self._latency)
            found = kernels.latency_rows(edges, new)
            self._latencies = np.concatenate([self._latencies, found])
        latencies: NDArray[np.float64] = self._latencies[rows, src]
        return latencies

    def reached(
        self, src: NDArray[np.integer[Any]], dst: NDArray[np.integer[Any]]
    ) -> NDArray[np.bool_]:
        """Return bool: whether there is a path from each `src` to its `dst`."""
        rows = self.rows(dst)
        there: NDArray[np.bool_] = self.costs[rows, src] != kernels.UNREACHED
        return there

    def hops(
        self, src: NDArray[np.integer[Any]], dst: NDArray[np.integer[Any]]
    ) -> NDArray[np.int32]:
        """Return int32: links between each pair of switches, on a shortest path.

        Raises
        ------
        RoutingError
            If two of the switches have no path between them.
        """
        rows = self.rows(dst)
        costs: NDArray[np.int32] = self.costs[rows, src]
        if (costs == kernels.UNREACHED).any():
            raise RoutingError("no route: a switch asked for is cut off from the others")
        return costs % np.int32(self.unit)
