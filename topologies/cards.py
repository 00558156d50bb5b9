"""Which network cards two GPUs talk over, and which links outside the fabric that takes.

A server whose cards sit on several leaves (a rail-optimised fabric: card i of every server on
the leaf of rail i) may use another card than the GPU's own, by one of these rules:

- ``direct``: the GPUs' own cards; a message between rails crosses the fabric;
- ``sender``: over NVLink to the GPU of the own server at the destination's place, and out of its
  card: the message stays on the destination's rail (NCCL calls it PXN);
- ``receiver``: out on the own rail, to the GPU of the destination's server at the own place, and
  over NVLink from there.

Where several cards of a server are on one leaf, a GPU whose own card is on the right rail already
uses that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topologies.errors import RoutingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster

RAIL_RULES = ("direct", "receiver", "sender")


class Cards:
    """The rail rule in force on a cluster.

    Parameters
    ----------
    cluster
        The cluster.
    rail_rule
        One of `RAIL_RULES`.

    Raises
    ------
    RoutingError
        If the rule is unknown, or is to choose between rails where there are none.
    """

    def __init__(self, cluster: Cluster, rail_rule: str) -> None:
        if rail_rule not in RAIL_RULES:
            raise RoutingError(f"unknown rail rule {rail_rule!r}; allowed: {', '.join(RAIL_RULES)}")
        leaf = cluster.leaf_of_gpu.reshape(cluster.servers, -1)
        self.one_leaf = not bool((leaf != leaf[:, :1]).any())
        if self.one_leaf and rail_rule != "direct":
            raise RoutingError(
                f"rail rule {rail_rule!r} on {cluster.name!r}, whose servers have all cards on "
                "one leaf; expected 'direct', or a cluster with rails"
            )
        self._cluster = cluster
        self._rule = rail_rule

    def of(
        self, src: NDArray[np.int64], dst: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the GPUs whose cards send and receive; of pairs in different servers."""
        width, leaf = self._cluster.gpus_per_server, self._cluster.leaf_of_gpu
        if self._rule == "sender":
            out = src - src % width + dst % width
            return np.where(leaf[out] == leaf[src], src, out), dst
        if self._rule == "receiver":
            into = dst - dst % width + src % width
            return src, np.where(leaf[into] == leaf[dst], dst, into)
        return src, dst

    def switches(
        self, src: NDArray[np.int64], dst: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return int64 [pairs] twice: the switches of the cards; -1 for a pair in one server."""
        far = self.outside(src, dst)
        out, into = self.of(src, dst)
        leaf = self._cluster.leaf_of_gpu
        return np.where(far, leaf[out], -1), np.where(far, leaf[into], -1)

    def own_links(
        self, src: NDArray[np.int64], dst: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return int32 [pairs, 3] twice: links before and after those between switches.

        Filled up with -1. A pair inside a server crosses NVLink alone, a GPU to itself nothing.
        """
        cluster, far = self._cluster, self.outside(src, dst)
        out, into = self.of(src, dst)
        before, after = np.full((2, len(src), 3), -1, dtype=np.int32)
        before[far, 2] = cluster.nic_up[out[far]]
        after[far, 0] = cluster.nic_down[into[far]]
        near = ~far & (src != dst)
        for first, last, row, crossing in (
            (src, dst, before, near),
            (src, out, before, far & (out != src)),
            (into, dst, after, far & (into != dst)),
        ):
            at = np.flatnonzero(crossing)
            if at.size:
                start = 1 if row is after else 0
                row[at, start] = cluster.nvlink_up[first[at]]
                row[at, start + 1] = cluster.nvlink_down[last[at]]
        return before, after

    def outside(self, src: NDArray[np.int64], dst: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return bool [pairs]: whether the bytes leave the server."""
        width = self._cluster.gpus_per_server
        outside: NDArray[np.bool_] = src // width != dst // width
        return outside
