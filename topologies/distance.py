"""Hops between GPUs and between servers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from topologies.errors import RoutingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cards import Cards
    from topologies.cluster import Cluster
    from topologies.switch_graph import SwitchGraph

Convention = Literal["links", "router"]
CONVENTIONS: dict[str, int] = {"links": 2, "router": 0}
"""Hops that each convention counts beside those between switches."""

_BLOCK = 256
"""GPUs whose distances are computed at a time."""


class Distances:
    """Hops of a rule, in expectation where it draws.

    Parameters
    ----------
    cluster, graph, cards
        The cluster, its switches and the rail rule in force.
    valiant
        Whether flows make detours over intermediate groups.
    """

    def __init__(
        self, cluster: Cluster, graph: SwitchGraph, cards: Cards, *, valiant: bool
    ) -> None:
        self._cluster, self._graph, self._cards = cluster, graph, cards
        self._valiant = valiant

    def pairs(
        self,
        src: NDArray[np.int64],
        dst: NDArray[np.int64],
        convention: Convention = "links",
    ) -> NDArray[Any]:
        """Return the hops of pairs of GPUs: int32, or float64 if they are an expectation.

        Raises
        ------
        RoutingError
            If the convention is unknown, or two GPUs have no route.
        """
        ends = _ends(convention)
        src, dst = np.broadcast_arrays(src, dst)
        far = self._cards.outside(src, dst)
        out, into = self._cards.of(src[far], dst[far])
        between = self._between(out, into)
        hops = np.zeros(far.shape, dtype=between.dtype)
        hops[far] = between + between.dtype.type(ends)
        return hops

    def gpus(self, convention: Convention) -> NDArray[Any]:
        """Return [gpus, gpus]."""
        gpu = np.arange(self._cluster.gpus)
        blocks = [
            self.pairs(gpu[start : start + _BLOCK, None], gpu, convention)
            for start in range(0, len(gpu), _BLOCK)
        ]
        return np.concatenate(blocks)

    def servers(self, convention: Convention) -> NDArray[Any]:
        """Return [servers, servers]: the mean over the GPUs of both, int32 if all are equal.

        Costs that were measured replace ``links``: int64, in their own unit.
        """
        ends = _ends(convention)
        if self._cluster.measured is not None and convention == "links":
            return self._cluster.measured.cost
        gpu = np.arange(self._cluster.gpus).reshape(self._cluster.servers, -1)
        if self._cards.one_leaf:
            gpu = gpu[:, :1]
        # Servers on the same leaves are alike: one stands for all.
        leaves = self._cluster.leaf_of_gpu[gpu]
        _, first, rank = np.unique(leaves, axis=0, return_index=True, return_inverse=True)
        between = self._mean(gpu[first])
        rank = rank.reshape(-1)
        distance: NDArray[Any] = between[np.ix_(rank, rank)]
        distance += distance.dtype.type(ends)
        np.fill_diagonal(distance, 0)
        return distance

    def _mean(self, gpu: NDArray[np.int64]) -> NDArray[Any]:
        """Return the mean hops between the switches of any two rows of `gpu` [rows, places]."""
        least = most = self._between(*self._cards.of(gpu[:, :1], gpu[:, 0]))
        total = np.zeros(least.shape)
        for out in gpu.T:
            for into in gpu.T:
                hops = self._between(*self._cards.of(out[:, None], into))
                least, most = np.minimum(least, hops), np.maximum(most, hops)
                total += hops
        return least if np.array_equal(least, most) else total / gpu.shape[1] ** 2

    def _between(self, out: NDArray[np.int64], into: NDArray[np.int64]) -> NDArray[Any]:
        """Return the hops between the switches of the cards used."""
        leaf = self._cluster.leaf_of_gpu
        if not self._valiant:
            return self._graph.hops(leaf[out], leaf[into])
        rank, table = self._expected
        return table[rank[leaf[out]], rank[leaf[into]]]

    @cached_property
    def _expected(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ranks [switches] of the leaves, and the expected hops between each two leaves."""
        from topologies.expected_hops import valiant_hops  # noqa: PLC0415  loads numba

        leaves = np.unique(self._cluster.leaf_of_gpu).astype(np.int64)
        rank = np.zeros(self._cluster.switches, dtype=np.int64)
        rank[leaves] = np.arange(len(leaves))
        return rank, valiant_hops(self._graph, leaves)


def _ends(convention: str) -> int:
    """Return the hops that a convention counts beside those between switches."""
    if convention not in CONVENTIONS:
        raise RoutingError(
            f"unknown hop convention {convention!r}; allowed: {', '.join(CONVENTIONS)}"
        )
    return CONVENTIONS[convention]
