"""The single path of every flow, by each rule that has one."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from topologies import _kernels as kernels
from topologies._adaptive_kernel import merge, settle
from topologies._usage_kernel import spread
from topologies._walk_kernel import detours, taken, walk
from topologies.cluster import LinkClass
from topologies.errors import RoutingError
from topologies.flows import Flows
from topologies.paths import Paths
from topologies.shares import switch_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cards import Cards
    from topologies.cluster import Cluster
    from topologies.switch_graph import SwitchGraph

PASSES = 2
"""Times that adaptive routing asks every flow."""
MAX_TABLE = 1 << 20
"""Pairs of GPUs of a cluster whose paths may all be kept at once: 1024 GPUs, some 30 MB."""


class Walker:
    """Finds the one path of every flow.

    Parameters
    ----------
    cluster, graph, cards
        The cluster, its switches and the rail rule in force.
    seed
        Of the hashes.
    """

    def __init__(self, cluster: Cluster, graph: SwitchGraph, cards: Cards, *, seed: int) -> None:
        self._cluster, self._graph, self._cards = cluster, graph, cards
        self._seed = np.uint64(seed)
        self._tables: dict[str, Paths | None] = {}

    def paths(self, flows: Flows, rule: str) -> Paths:
        """Return the path of every flow, from GPU to GPU."""
        if rule == "ugal":
            return self._adapted(flows)
        gpus = self._cluster.gpus
        if gpus**2 <= min(MAX_TABLE, 8 * len(flows.src)) and not flows.queue_pair.any():
            table = self._table(rule)
            if table is not None:
                return Paths(*taken(table.indptr, table.links, flows.src * gpus + flows.dst))
        return self._found(flows, rule)

    def _table(self, rule: str) -> Paths | None:
        """Return the paths of all pairs of a small cluster, or None if some pair has no route.

        Whoever asks for many pairs once asks again, layer after layer.
        """
        if rule not in self._tables:
            src, dst = np.divmod(np.arange(self._cluster.gpus**2), self._cluster.gpus)
            same = np.zeros_like(src)
            try:
                self._tables[rule] = self._found(Flows(src, dst, same, same, same), rule)
            except RoutingError:
                self._tables[rule] = None
        return self._tables[rule]

    def _found(self, flows: Flows, rule: str) -> Paths:
        """Walk the path of every flow."""
        if rule == "minimal":
            return self._between_switches(flows)
        out, into = self._cards.of(flows.src, flows.dst)
        ends = self._cards.switches(flows.src, flows.dst)
        keys = kernels.flow_keys(self._seed, out, into, flows.queue_pair)
        via = numbers = np.full(len(out), -1)
        to_group = self._graph.costs[:0]
        if rule == "dmodk":
            numbers = self._place_under_leaves[into]
        elif rule == "valiant":
            via, to_group = self._detours(keys, ends)
        own = self._cards.own_links(flows.src, flows.dst)
        return Paths(*self._walked(ends, (via, to_group), (keys, numbers), own))

    def onward(
        self,
        switch: NDArray[np.int64],
        pair: tuple[NDArray[np.int64], NDArray[np.int64]],
        rule: str,
    ) -> Paths:
        """Return paths from switches to the second GPU of every pair; minimal after detours.

        Raises
        ------
        RoutingError
            Naming a switch and a GPU that no links lead to from there.
        """
        into = self._cards.of(*pair)[1]
        target = self._cards.switches(*pair)[1]
        there = self._graph.reached(switch, target)
        if not there.all():
            at = int(there.argmin())
            raise RoutingError(f"no route from switch {switch[at]} to GPU {pair[1][at]}")
        own = self._cards.own_links(*pair)
        none = np.full(len(switch), -1)
        numbers = self._place_under_leaves[into] if rule == "dmodk" else none
        ends = self._cards.of(*pair) if rule in ("hash", "dmodk") else (switch, target)
        keys = kernels.flow_keys(self._seed, *ends, np.zeros_like(none))
        detour = none, self._graph.costs[:0]
        before = np.full_like(own[0], -1)
        return Paths(*self._walked((switch, target), detour, (keys, numbers), (before, own[1])))

    def _walked(
        self,
        ends: tuple[NDArray[np.int64], NDArray[np.int64]],
        detour: tuple[NDArray[np.int64], NDArray[np.int32]],
        choice: tuple[NDArray[np.uint64], NDArray[np.int64]],
        own: tuple[NDArray[np.int32], NDArray[np.int32]],
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Walk between the switches `ends`; see `walk` for the rest."""
        graph, far = self._graph, ends[0] >= 0
        graph.hops(ends[0][far], ends[1][far])  # refuses what has no route
        target = np.zeros(len(far), dtype=np.int64)
        target[far] = graph.rows(ends[1][far])
        via, to_group = detour
        costs = (to_group, graph.costs, graph.unit)
        found: tuple[NDArray[np.int64], NDArray[np.int32]] = walk(
            graph.edges, costs, (ends[0], via, target), choice, own
        )
        return found

    def _between_switches(self, flows: Flows) -> Paths:
        """Walk once between every two switches, and give that path to all flows between them."""
        ends = self._cards.switches(flows.src, flows.dst)
        pairs, which = switch_pairs(ends, len(self._graph.group))
        none = np.full(len(pairs[0]), -1)
        keys = kernels.flow_keys(self._seed, *pairs, np.zeros_like(none))
        nothing = np.full((2, len(none), 3), -1, dtype=np.int32)
        detour = none, self._graph.costs[:0]
        indptr, links = self._walked(pairs, detour, (keys, none), (nothing[0], nothing[1]))
        own = self._cards.own_links(flows.src, flows.dst)
        starts, found, _ = spread(own, (indptr, links, np.ones(len(links))), which)
        return Paths(starts, found)

    @cached_property
    def _place_under_leaves(self) -> NDArray[np.int64]:
        """int64 [gpus]: places in the order of the leaves, and below a leaf of the GPUs."""
        place = np.empty(self._cluster.gpus, dtype=np.int64)
        order = np.argsort(self._cluster.leaf_of_gpu, kind="stable")
        place[order] = np.arange(self._cluster.gpus)
        return place

    def _detours(
        self, keys: NDArray[np.uint64], ends: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the row of every flow's intermediate group, or -1, and the costs to them."""
        group, table = self._graph.group, self._graph.to_group
        drawn = detours(keys, (group[ends[0]], group[ends[1]]), int(group.max()) + 1)
        rows = np.full(len(drawn), -1)
        rows[drawn >= 0] = table.rows(drawn[drawn >= 0])
        if not self._graph.intact:
            rows[self._one_way(rows, table.costs, ends)] = -1
        return rows, table.costs

    def _one_way(
        self,
        rows: NDArray[np.int64],
        to_group: NDArray[np.int32],
        ends: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> NDArray[np.bool_]:
        """Return bool [flows]: detours over dead links into a group, or out of it.

        Where they enter the group is not known here, so all switches must reach the target.
        """
        detour = np.flatnonzero(rows >= 0)
        target = self._graph.rows(ends[1][detour])
        stuck = (self._graph.costs == kernels.UNREACHED).any(axis=1)[target]
        stuck |= to_group[rows[detour], ends[0][detour]] == kernels.UNREACHED
        one_way = np.zeros(len(rows), dtype=np.bool_)
        one_way[detour] = stuck
        return one_way

    def _adapted(self, flows: Flows) -> Paths:
        """Let every flow take its minimal or its Valiant path, whichever looks shorter."""
        cluster = self._cluster
        ways = self.paths(flows, "minimal"), self.paths(flows, "valiant")
        between = cluster.link_class >= LinkClass.LOCAL
        seconds_per_byte = np.where(between, 1 / cluster.bandwidth_Bps, 0.0)
        arrays = tuple((way.indptr, way.links) for way in ways)
        # The order is that of the keys, so that it does not depend on how flows are listed.
        keys = kernels.flow_keys(self._seed, flows.src, flows.dst, flows.queue_pair)
        order = np.lexsort((keys, flows.layer))
        size = flows.size_bytes.astype(np.float64)
        detour = settle(arrays, (size, flows.layer, order), seconds_per_byte, PASSES)
        return Paths(*merge(arrays, detour))


def check_rule(cluster: Cluster, graph: SwitchGraph, rule: str) -> None:
    """Refuse a rule that the fabric gives no meaning to.

    Raises
    ------
    RoutingError
        Naming the rule, what it needs and what serves every fabric.
    """
    instead = "use hash, minimal or shares"
    if rule == "dmodk":
        level = graph.level
        start = np.repeat(np.arange(len(level)), np.diff(graph.indptr))
        if (abs(level[start] - level[graph.neighbour]) != 1).any():
            raise RoutingError(
                f"rule 'dmodk' needs a fat-tree, with cables between neighbouring levels alone, "
                f"and {cluster.name!r} joins switches of one level; {instead}"
            )
    if rule in ("valiant", "ugal"):
        group = graph.group
        groups = np.unique(group)
        fits = cluster.fewest_global_first and np.array_equal(groups, np.arange(len(groups)))
        if not fits or len(groups) < 3:
            raise RoutingError(
                f"rule {rule!r} needs a dragonfly of 3 or more groups, which {cluster.name!r} "
                f"is not; {instead}"
            )
