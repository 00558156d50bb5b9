"""Which links a (source, destination) pair of GPUs crosses, and with which share."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from topologies.checks import indices, sizes
from topologies.errors import RoutingError
from topologies.paths import LinkUsage, Paths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from topologies.cluster import Cluster
    from topologies.switch_graph import SwitchGraph

RULES = ("hash", "shares")
CONVENTIONS = ("links", "router")


class Router:
    """Shortest paths over a cluster's switches.

    Two GPUs of different servers talk over their network cards and the switches between the two
    leaves, along the fewest hops (or the fewest global links first, where the cluster says so);
    two GPUs of one server over its NVLink switch, at zero hops; a GPU to itself over no link.

    Parameters
    ----------
    cluster
        The cluster.
    rule
        ``shares``: at every switch an equal split over the next hops that lie on shortest
        paths, parallel cables to one next hop sharing its part equally (ECMP as an average; it
        stands for spraying). ``hash``: every flow takes one path; at every switch a seeded hash
        of (source NIC, destination NIC, queue pair) picks the next hop and then the cable.
    seed
        Of the hash.

    Raises
    ------
    RoutingError
        If the rule is unknown or the seed is out of range.
    """

    def __init__(self, cluster: Cluster, rule: str = "shares", *, seed: int = 0) -> None:
        if rule not in RULES:
            raise RoutingError(f"unknown routing rule {rule!r}; allowed: {', '.join(RULES)}")
        if not 0 <= seed < 2**64:
            raise RoutingError(f"seed is {seed}; expected 0 to 2^64 - 1")
        self.cluster = cluster
        self.rule = rule
        self.seed = seed

    def __repr__(self) -> str:
        """Name the rule and the cluster."""
        return f"<Router by {self.rule} on {self.cluster!r}>"

    @cached_property
    def _graph(self) -> SwitchGraph:
        from topologies.switch_graph import SwitchGraph  # noqa: PLC0415  loads numba

        return SwitchGraph(self.cluster)

    def server_distance(
        self, convention: Literal["links", "router"] = "links"
    ) -> NDArray[np.int32]:
        """Return int32 [servers, servers]: hops of the route in force.

        Parameters
        ----------
        convention
            ``links`` counts every network link outside a server, host links included;
            ``router`` the hops between switches alone. Zero inside a server.

        Raises
        ------
        RoutingError
            If the convention is unknown, or a server's network cards sit on several leaves.
        """
        if convention not in CONVENTIONS:
            raise RoutingError(
                f"unknown hop convention {convention!r}; allowed: {', '.join(CONVENTIONS)}"
            )
        leaf = self.cluster.leaf_of_gpu.reshape(self.cluster.servers, -1)
        if (leaf != leaf[:, :1]).any():
            server = int((leaf != leaf[:, :1]).any(axis=1).argmax())
            raise RoutingError(
                f"server {server} has network cards on several leaves, so servers have no single "
                "distance; ask for the hops of pairs of GPUs"
            )
        leaves, rank = np.unique(leaf[:, 0], return_inverse=True)
        distance = self._graph.hops(leaves[None, :], leaves[:, None])[np.ix_(rank, rank)]
        if convention == "links":
            distance += 2
            np.fill_diagonal(distance, 0)
        return distance

    def switch_hops(self, switches: ArrayLike) -> NDArray[np.int32]:
        """Return int32 [asked, switches]: hops between each switch asked and every switch.

        Raises
        ------
        RoutingError
            If a switch does not exist.
        """
        asked = indices("switches", switches, self.cluster.switches)
        everyone = np.arange(self.cluster.switches, dtype=np.int32)
        return self._graph.hops(everyone[None, :], asked[:, None])

    def hops(self, src: ArrayLike, dst: ArrayLike) -> NDArray[np.int32]:
        """Return int32 [pairs]: network links that each pair of GPUs crosses.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        src, dst = self._pairs(src, dst)
        leaf = self.cluster.leaf_of_gpu
        hops = self._graph.hops(leaf[src], leaf[dst]) + np.int32(2)
        hops[self._inside(src, dst)] = 0
        return hops

    def paths(self, src: ArrayLike, dst: ArrayLike, queue_pair: ArrayLike | None = None) -> Paths:
        """Return the one path of every flow, in the order its links are crossed.

        Parameters
        ----------
        src, dst
            int [flows]: GPUs.
        queue_pair
            int [flows]: tells flows between the same two network cards apart; 0 by default.

        Raises
        ------
        RoutingError
            If the rule splits flows, or a GPU does not exist.
        """
        if self.rule != "hash":
            raise RoutingError(f"a single path was asked of rule {self.rule!r}; use 'hash'")
        src, dst = self._pairs(src, dst)
        pair = np.zeros(len(src), dtype=np.int64)
        if queue_pair is not None:
            pair = indices("queue_pair", queue_pair, 2**31)
        if len(pair) != len(src):
            raise RoutingError(f"queue_pair has {len(pair)} entries; expected {len(src)}")
        lengths = self.hops(src, dst).astype(np.int64)
        lengths[self._inside(src, dst) & (src != dst)] = 2
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        links = np.empty(indptr[-1], dtype=np.int32)
        moving = lengths > 0
        first, last = self._own_links(src[moving], dst[moving])
        links[indptr[:-1][moving]] = first
        links[indptr[1:][moving] - 1] = last
        self._walk(src, dst, pair, indptr[:-1] + 1, links)
        return Paths(indptr=indptr, links=links)

    def _walk(
        self,
        src: NDArray[np.int64],
        dst: NDArray[np.int64],
        queue_pair: NDArray[np.int64],
        starts: NDArray[np.int64],
        links: NDArray[np.int32],
    ) -> None:
        """Fill in the links between switches of all flows that leave their server."""
        from topologies import _kernels  # noqa: PLC0415  loads numba

        out = ~self._inside(src, dst)
        leaf, graph = self.cluster.leaf_of_gpu, self._graph
        ends = (leaf[src[out]], graph.rows(leaf[dst[out]]))
        keys = _kernels.flow_keys(np.uint64(self.seed), src[out], dst[out], queue_pair[out])
        edges = (graph.indptr, graph.neighbour, graph.weight, graph.link)
        _kernels.hashed_walks(edges, graph.costs, ends, keys, starts[out], links)

    def link_bytes(
        self,
        src: ArrayLike,
        dst: ArrayLike,
        size_bytes: ArrayLike,
        *,
        layer: ArrayLike | None = None,
        layers: int = 1,
        queue_pair: ArrayLike | None = None,
    ) -> NDArray[np.int64] | NDArray[np.float64]:
        """Return [layers, links]: bytes on every link, whole under ``hash``, float64 otherwise.

        Parameters
        ----------
        src, dst, size_bytes
            [flows]: GPUs and bytes; ``hash`` takes whole bytes only.
        layer, layers
            int [flows], 0 to layers - 1; all in layer 0 by default.
        queue_pair
            int [flows], as for `paths`; ``shares`` does not look at it.

        Raises
        ------
        RoutingError
            If a GPU or layer does not exist, or a size is negative, infinite or not whole.
        """
        src, dst = self._pairs(src, dst)
        size = sizes(size_bytes, flows=len(src), whole_bytes=self.rule == "hash")
        layer = np.zeros(len(src), dtype=np.int64) if layer is None else layer
        layer = indices("layer", layer, layers)
        if len(layer) != len(src):
            raise RoutingError(f"layer has {len(layer)} entries; expected {len(src)}")
        if self.rule == "hash":
            return self._path_bytes(self.paths(src, dst, queue_pair), size, layer, layers)
        return self._share_bytes(src, dst, size, layer, layers)

    def _path_bytes(
        self, paths: Paths, size: NDArray[Any], layer: NDArray[np.int64], layers: int
    ) -> NDArray[np.int64]:
        from topologies import _kernels  # noqa: PLC0415  loads numba

        out = np.zeros((layers, self.cluster.links), dtype=np.int64)
        _kernels.add_paths(paths.indptr, paths.links, size, layer, out)
        return out

    def _share_bytes(
        self,
        src: NDArray[np.int64],
        dst: NDArray[np.int64],
        size: NDArray[Any],
        layer: NDArray[np.int64],
        layers: int,
    ) -> NDArray[np.float64]:
        from topologies.shares import add_shares  # noqa: PLC0415  loads numba

        moving = src != dst
        src, dst, size, layer = src[moving], dst[moving], size[moving], layer[moving]
        cells = layers * self.cluster.links
        own = layer * self.cluster.links
        ends = self._own_links(src, dst)
        total = sum(np.bincount(own + end, size, cells) for end in ends)
        out = np.asarray(total, dtype=np.float64).reshape(layers, self.cluster.links)
        far = ~self._inside(src, dst)
        leaf = self.cluster.leaf_of_gpu
        leaves = (leaf[src[far]], leaf[dst[far]])
        add_shares(self._graph, leaves, size[far], layer[far], out)
        return out

    def link_usage(self, src: ArrayLike, dst: ArrayLike) -> LinkUsage:
        """Return the links every flow uses, with the fraction of its bytes that crosses each.

        Under ``shares`` the fractions of the links that leave a switch add up to what enters it;
        single-path rules give 1 for every link of the path (of queue pair 0).

        Parameters
        ----------
        src, dst
            int [flows]: GPUs. A GPU to itself uses no link.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        if self.rule != "shares":
            paths = self.paths(src, dst)
            return LinkUsage(paths.indptr, paths.links, np.ones(len(paths.links)))
        from topologies._usage_kernel import pair_usage, spread  # noqa: PLC0415
        from topologies.shares import distinct  # noqa: PLC0415  loads numba

        src, dst = self._pairs(src, dst)
        switches, leaf = self.cluster.switches, self.cluster.leaf_of_gpu.astype(np.int64)
        far, moving = ~self._inside(src, dst), src != dst
        found, inverse = distinct(leaf[src[far]] * switches + leaf[dst[far]], switches**2)
        graph = self._graph
        rows = graph.rows(found % switches)
        edges = (graph.indptr, graph.neighbour, graph.weight, graph.link)
        between = pair_usage(edges, graph.costs, (found // switches, rows))
        pair = np.full(len(src), -1)
        pair[far] = inverse
        length = 2 * moving.astype(np.int64)
        length[far] += np.diff(between[0])[inverse]
        indptr = np.concatenate([[0], np.cumsum(length)])
        own = np.zeros((2, len(src)), dtype=np.int32)
        own[:, moving] = self._own_links(src[moving], dst[moving])
        return LinkUsage(indptr, *spread(indptr, (own[0], own[1]), between, pair))

    def path_latency(self, src: ArrayLike, dst: ArrayLike) -> NDArray[np.float64]:
        """Return float64 [pairs]: seconds, the largest sum of link latencies over the paths used.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        sources, targets = self._pairs(src, dst)
        latency = self.cluster.latency_s
        if self.rule == "hash":
            paths = self.paths(sources, targets)
            flow = np.repeat(np.arange(len(sources)), np.diff(paths.indptr))
            sums = np.bincount(flow, latency[paths.links], len(sources))
            return np.asarray(sums, dtype=np.float64)
        total = np.zeros(len(sources))
        moving, far = sources != targets, ~self._inside(sources, targets)
        first, last = self._own_links(sources[moving], targets[moving])
        total[moving] = latency[first] + latency[last]
        leaf = self.cluster.leaf_of_gpu
        total[far] += self._graph.latency_s(leaf[sources[far]], leaf[targets[far]])
        return total

    def _pairs(self, src: ArrayLike, dst: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first = indices("src", src, self.cluster.gpus)
        second = indices("dst", dst, self.cluster.gpus)
        if len(first) != len(second):
            raise RoutingError(
                f"src has {len(first)} entries and dst {len(second)}; expected alike"
            )
        return first, second

    def _inside(self, src: NDArray[np.int64], dst: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return bool [pairs]: whether the bytes stay in one server (or one GPU)."""
        inside: NDArray[np.bool_] = (
            src // self.cluster.gpus_per_server == dst // self.cluster.gpus_per_server
        )
        return inside

    def _own_links(
        self, src: NDArray[np.int64], dst: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the first and last link of pairs of different GPUs."""
        first, last = self.cluster.nic_up[src], self.cluster.nic_down[dst]
        inside = self._inside(src, dst)
        first[inside] = self.cluster.nvlink_up[src[inside]]
        last[inside] = self.cluster.nvlink_down[dst[inside]]
        return first, last
