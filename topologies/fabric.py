"""What routes run over: a cluster less its dead links, and who can reach whom there."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from topologies.cards import Cards
from topologies.checks import indices, sizes
from topologies.errors import RoutingError
from topologies.flows import Flows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from topologies.cluster import Cluster
    from topologies.switch_graph import SwitchGraph


class Fabric:
    """The living links of a cluster under a rail rule.

    Parameters
    ----------
    cluster
        The cluster.
    rail_rule
        As for `topologies.Router`; None for the cluster's own.
    dead_links
        Numbers of links that nothing crosses.

    Raises
    ------
    RoutingError
        If the rail rule is unknown or does not fit, or a link does not exist.
    """

    def __init__(self, cluster: Cluster, rail_rule: str | None, dead_links: ArrayLike) -> None:
        self.cluster = cluster
        self.rail_rule = cluster.rail_rule if rail_rule is None else rail_rule
        self._cards = Cards(cluster, self.rail_rule)
        self._dead = np.zeros(cluster.links, dtype=np.bool_)
        self._dead[indices("dead_links", dead_links, cluster.links)] = True

    @property
    def dead_links(self) -> NDArray[np.int64]:
        """int64 [dead]: links that nothing crosses, ascending."""
        return np.flatnonzero(self._dead)

    def cards(self, src: ArrayLike, dst: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return int64 [pairs] twice: the GPUs whose network cards send and receive.

        They are others than the GPUs themselves where the rail rule forwards over NVLink; pairs
        inside a server use no card.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        first, last = self._ends(src, dst)
        out, into = self._cards.of(first, last)
        far = self._cards.outside(first, last)
        return np.where(far, out, first), np.where(far, into, last)

    def has_route(self, src: ArrayLike, dst: ArrayLike) -> NDArray[np.bool_]:
        """Return bool [pairs]: whether links that are not dead lead from each GPU to the other.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        first, last = self._ends(src, dst)
        there = ~self._own_link_dead(first, last)
        leaves = self._cards.switches(first, last)
        far = leaves[0] >= 0
        there[far] &= self._graph.reached(leaves[0][far], leaves[1][far])
        return there

    @cached_property
    def _graph(self) -> SwitchGraph:
        from topologies.switch_graph import SwitchGraph  # noqa: PLC0415  loads numba

        return SwitchGraph(self.cluster, self._dead if self._dead.any() else None)

    def _flows(
        self,
        src: ArrayLike,
        dst: ArrayLike,
        queue_pair: ArrayLike | None,
        size_bytes: ArrayLike | None,
        layer: ArrayLike | None,
    ) -> Flows:
        first, last = self._pairs(src, dst)
        size = np.ones(len(first), dtype=np.int64)
        if size_bytes is not None:
            size = sizes(size_bytes, flows=len(first), whole_bytes=False)
        columns = [np.zeros_like(first)] * 2
        given = ("queue_pair", queue_pair), ("layer", layer)
        for at, (name, values) in enumerate(given):
            if values is not None:
                columns[at] = indices(name, values, 2**31)
                if len(columns[at]) != len(first):
                    raise RoutingError(
                        f"{name} has {len(columns[at])} entries; expected {len(first)}"
                    )
        return Flows(first, last, columns[0], size, columns[1])

    def _pairs(self, src: ArrayLike, dst: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the GPUs, after checking that their own links are not dead."""
        first, last = self._ends(src, dst)
        if self._dead.any():
            cut = self._own_link_dead(first, last)
            if cut.any():
                at = int(cut.argmax())
                raise RoutingError(
                    f"no route from GPU {first[at]} to GPU {last[at]}: a link of theirs is dead"
                )
        return first, last

    def _own_link_dead(
        self, first: NDArray[np.int64], last: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        own = np.concatenate(self._cards.own_links(first, last), axis=1)
        dead: NDArray[np.bool_] = np.any(self._dead[own] & (own >= 0), axis=1)
        return dead

    def _ends(self, src: ArrayLike, dst: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first = indices("src", src, self.cluster.gpus)
        second = indices("dst", dst, self.cluster.gpus)
        if len(first) != len(second):
            raise RoutingError(
                f"src has {len(first)} entries and dst {len(second)}; expected alike"
            )
        return first, second
