"""Which links a (source, destination) pair of GPUs crosses, and with which share."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies.checks import indices, sizes
from topologies.errors import RoutingError
from topologies.fabric import Fabric
from topologies.memory import PathMemory
from topologies.paths import LinkUsage, Paths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from topologies.cluster import Cluster
    from topologies.distance import Convention, Distances
    from topologies.layers import Rows
    from topologies.walks import Walker

RULES = ("dmodk", "hash", "minimal", "shares", "ugal", "valiant")


class Router(Fabric):
    """Routes over a cluster's links.

    Two GPUs of different servers talk over network cards and the switches between the two
    leaves, two GPUs of one server over its NVLink switch at zero hops, a GPU to itself over no
    link. A shortest path has the fewest hops between the leaves (or the fewest global links
    first, where the cluster says so).

    Parameters
    ----------
    cluster
        The cluster.
    rule
        How flows find their way through the switches:

        - ``shares``: at every switch an equal split over the next hops that lie on shortest
          paths, parallel cables to one next hop sharing its part equally (ECMP as an average;
          it stands for spraying);
        - ``hash``: one shortest path a flow; at every switch a seeded hash of (source card,
          destination card, queue pair) picks the next hop and then the cable;
        - ``dmodk``: one shortest path a flow on fat-trees: the destination picks it (D-mod-k
          routing; Zahavi, 2012). Number the cards leaf by leaf: a switch with n ways up takes
          way d mod n, and the switch above goes on with d div n. Where nothing is cut or
          oversubscribed, no two flows of a shifted permutation meet on a link;
        - ``minimal``: one shortest path between two switches, whatever the flow; a seeded hash
          of the two settles ties. On a full dragonfly local-global-local (Kim et al., 2008);
        - ``valiant``: on dragonflies; a flow to another group goes by a shortest path to a
          third one, drawn by the hash of the flow, and from where it enters by a shortest path
          to its destination; inside a group minimal;
        - ``ugal``: on dragonflies; each flow takes its minimal or its Valiant path, whichever
          has the smaller product of hops and load (minimal if equal), as UGAL decides by its
          queues. Load is what others put on the path's busiest link between switches, in bytes
          over bandwidth, counted over the flows of the same call and layer, which choose one
          after another, twice. It is like UGAL with a view of all queues, for whole flows
          instead of packets; a path depends on the flows asked together and on their sizes.
    seed
        Of the hashes.
    rail_rule
        ``direct``, ``sender`` or ``receiver``, as in `topologies.cards`; the cluster's own by
        default. It is the router's because libraries choose it, not cables; and a cluster's
        because a fabric without links between its rails leaves no choice.
    dead_links
        Numbers of links that nothing crosses: routes are the shortest ones without them, by the
        same rule (which the intact fabric must give a meaning to). A detour of ``valiant`` or
        ``ugal`` is not taken to where not all switches can come away from.

    Raises
    ------
    RoutingError
        If a rule is unknown or does not fit the cluster, or the seed is out of range.
    """

    def __init__(
        self,
        cluster: Cluster,
        rule: str = "shares",
        *,
        seed: int = 0,
        rail_rule: str | None = None,
        dead_links: ArrayLike = (),
    ) -> None:
        if rule not in RULES:
            raise RoutingError(f"unknown routing rule {rule!r}; allowed: {', '.join(RULES)}")
        if not 0 <= seed < 2**64:
            raise RoutingError(f"seed is {seed}; expected 0 to 2^64 - 1")
        super().__init__(cluster, rail_rule, dead_links)
        self.rule = rule
        self.seed = seed
        self._memory = PathMemory()
        self._without: dict[bytes, Router] = {}
        if rule in ("dmodk", "valiant", "ugal"):
            from topologies.switch_graph import SwitchGraph  # noqa: PLC0415  loads numba
            from topologies.walks import check_rule  # noqa: PLC0415  loads numba

            intact = SwitchGraph(cluster) if self._dead.any() else self._graph
            check_rule(cluster, intact, rule)

    def __repr__(self) -> str:
        """Name the rule and the cluster."""
        return f"<Router by {self.rule} on {self.cluster!r}>"

    def without(self, dead_links: ArrayLike) -> Router:
        """Return the router by the same rules over the intact cluster less `dead_links`.

        Raises
        ------
        RoutingError
            If a link does not exist.
        """
        dead = np.unique(indices("dead_links", dead_links, self.cluster.links))
        if np.array_equal(dead, np.flatnonzero(self._dead)):
            return self
        if dead.tobytes() not in self._without:
            self._without[dead.tobytes()] = Router(
                self.cluster, self.rule, seed=self.seed, rail_rule=self.rail_rule, dead_links=dead
            )
        return self._without[dead.tobytes()]

    def onward(self, switch: ArrayLike, src: ArrayLike, dst: ArrayLike) -> Paths:
        """Return the paths of messages from src to dst that have come as far as a switch.

        Parameters
        ----------
        switch
            int [flows]: network switches.
        src, dst
            int [flows]: GPUs in different servers.

        Raises
        ------
        RoutingError
            If the rule splits flows, a GPU or switch does not exist or there is no route.
        """
        if self.rule == "shares":
            raise RoutingError("a single path was asked of rule 'shares'; use 'hash'")
        at = indices("switch", switch, self.cluster.switches)
        first, last = self._ends(src, dst)
        return self._walker.onward(at, (first, last), self.rule)

    @property
    def shortest(self) -> bool:
        """Whether every flow keeps to shortest paths, so that hops are those of the two leaves."""
        return self.rule not in ("valiant", "ugal")

    @cached_property
    def _walker(self) -> Walker:
        from topologies.walks import Walker  # noqa: PLC0415  loads numba

        return Walker(self.cluster, self._graph, self._cards, seed=self.seed)

    @cached_property
    def _distances(self) -> Distances:
        from topologies.distance import Distances  # noqa: PLC0415  loads numba

        return Distances(self.cluster, self._graph, self._cards, valiant=self.rule == "valiant")

    def server_distance(self, convention: Convention = "links") -> NDArray[Any]:
        """Return [servers, servers]: hops of the route in force, expected where they vary.

        int32 where all GPUs of two servers are equally far apart by every route the rule may
        take. Otherwise float64, the mean: over all pairs of their GPUs (rails under ``direct``)
        and over the intermediate groups (``valiant``). What ``ugal`` takes depends on the load;
        its distances are those of an idle fabric, minimal. Measured costs replace ``links``.

        Parameters
        ----------
        convention
            ``links`` counts every network link outside a server, host links included;
            ``router`` the hops between switches alone. Zero inside a server.

        Raises
        ------
        RoutingError
            If the convention is unknown.
        """
        return self._distances.servers(convention)

    def gpu_distance(self, convention: Convention = "links") -> NDArray[Any]:
        """Return [gpus, gpus]: hops of the route in force, as `server_distance` counts them.

        For fabrics where the GPUs of a server are not equally far from others. int32, or the
        expected hops as float64 under ``valiant``.

        Raises
        ------
        RoutingError
            If the convention is unknown.
        """
        return self._distances.gpus(convention)

    def switch_hops(self, switches: ArrayLike) -> NDArray[np.int32]:
        """Return int32 [asked, switches]: hops of the shortest paths from each switch asked.

        Raises
        ------
        RoutingError
            If a switch does not exist.
        """
        asked = indices("switches", switches, self.cluster.switches)
        everyone = np.arange(self.cluster.switches, dtype=np.int32)
        return self._graph.hops(everyone[None, :], asked[:, None])

    def hops(
        self,
        src: ArrayLike,
        dst: ArrayLike,
        *,
        size_bytes: ArrayLike | None = None,
        layer: ArrayLike | None = None,
    ) -> NDArray[np.int32]:
        """Return int32 [pairs]: network links that each pair of GPUs crosses.

        Parameters
        ----------
        src, dst, size_bytes, layer
            As for `paths`.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        if not self.shortest:
            paths = self.paths(src, dst, size_bytes=size_bytes, layer=layer)
            return paths.sums(self.cluster.hop_weight).astype(np.int32)
        first, last = self._pairs(src, dst)
        return self._distances.pairs(first, last)

    def paths(
        self,
        src: ArrayLike,
        dst: ArrayLike,
        queue_pair: ArrayLike | None = None,
        *,
        size_bytes: ArrayLike | None = None,
        layer: ArrayLike | None = None,
    ) -> Paths:
        """Return the one path of every flow, in the order its links are crossed.

        The last results are remembered, so that asking again costs little.

        Parameters
        ----------
        src, dst
            int [flows]: GPUs.
        queue_pair
            int [flows]: tells flows between the same two network cards apart; 0 by default.
        size_bytes, layer
            [flows]: what ``ugal`` weighs, one byte each and all in layer 0 by default; other
            rules do not look at them.

        Raises
        ------
        RoutingError
            If the rule splits flows, a GPU does not exist or two have no route.
        """
        if self.rule == "shares":
            raise RoutingError("a single path was asked of rule 'shares'; use 'hash'")
        flows = self._flows(src, dst, queue_pair, size_bytes, layer)
        known = flows if self.rule == "ugal" else flows[:3]
        return self._memory.recall(known, lambda: self._walker.paths(flows, self.rule))

    def link_usage(
        self, src: ArrayLike, dst: ArrayLike, *, size_bytes: ArrayLike | None = None
    ) -> LinkUsage:
        """Return the links every flow uses, with the fraction of its bytes that crosses each.

        Under ``shares`` the fractions of the links that leave a switch add up to what enters it;
        single-path rules give 1 for every link of the path (of queue pair 0).

        Parameters
        ----------
        src, dst, size_bytes
            As for `paths`. A GPU to itself uses no link.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        if self.rule != "shares":
            paths = self.paths(src, dst, size_bytes=size_bytes)
            return LinkUsage(paths.indptr, paths.links, np.ones(len(paths.links)))
        from topologies.shares import share_usage  # noqa: PLC0415  loads numba

        first, last = self._pairs(src, dst)
        return share_usage(self._graph, self._cards, first, last)

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
        """Return [layers, links]: bytes on every link, float64 under ``shares``, whole otherwise.

        Parameters
        ----------
        src, dst, size_bytes
            [flows]: GPUs and bytes; single-path rules take whole bytes only.
        layer, layers
            int [flows], 0 to layers - 1; all in layer 0 by default.
        queue_pair
            int [flows], as for `paths`; ``shares`` does not look at it.

        Raises
        ------
        RoutingError
            If a GPU or layer does not exist, or a size is negative, infinite or not whole.
        """
        flows = self._flows(src, dst, queue_pair, None, layer)
        indices("layer", flows.layer, layers)
        size = sizes(size_bytes, flows=len(flows.src), whole_bytes=self.rule != "shares")
        if self.rule == "shares":
            from topologies.shares import share_bytes  # noqa: PLC0415  loads numba

            out = np.zeros((layers, self.cluster.links))
            share_bytes(self._graph, self._cards, flows._replace(size_bytes=size), out)
            return out
        from topologies import _kernels  # noqa: PLC0415  loads numba

        paths = self.paths(src, dst, queue_pair, size_bytes=size, layer=layer)
        whole = np.zeros((layers, self.cluster.links), dtype=np.int64)
        _kernels.add_paths(paths.indptr, paths.links, size, flows.layer, whole)
        return whole

    def bytes_by_layer(
        self,
        rows: Rows,
        pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> NDArray[np.int64] | NDArray[np.float64]:
        """Return [layers, links]: what `link_bytes` does, for many layers of the same pairs.

        Every pair finds its way once. It keeps a table of all pairs of the GPUs that talk: for
        some thousand of them, and for rules by which a way does not depend on other flows.

        Parameters
        ----------
        rows
            ``(indptr, src, dst, messages, message_bytes)``: the flows of layer l are
            ``indptr[l]`` to ``indptr[l + 1] - 1`` of the next three; every message has the same
            size.
        pairs
            int64 [pairs] twice: all sources and destinations among them.

        Raises
        ------
        RoutingError
            If the rule is ``ugal``.
        """
        if self.rule == "ugal":
            raise RoutingError("bytes_by_layer of rule 'ugal', whose ways depend on other flows")
        from topologies.layers import path_bytes, split_bytes  # noqa: PLC0415  loads numba

        place = np.full(self.cluster.gpus, -1, dtype=np.int32)
        who = np.unique(np.concatenate(pairs))
        place[who] = np.arange(len(who))
        rank = np.full((len(who), len(who)), -1)
        rank[place[pairs[0]], place[pairs[1]]] = np.arange(len(pairs[0]))
        if len(who) < len(place):
            rows = (rows[0], place[rows[1]], place[rows[2]], *rows[3:])
        if self.rule == "shares":
            return split_bytes(self._graph, self._cards, rows, (pairs, rank), self.cluster.links)
        return path_bytes(self.paths(*pairs), rows, rank, self.cluster.links)

    def path_latency(
        self, src: ArrayLike, dst: ArrayLike, *, size_bytes: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Return float64 [pairs]: seconds, the largest sum of link latencies over the paths used.

        Parameters
        ----------
        src, dst, size_bytes
            As for `paths`.

        Raises
        ------
        RoutingError
            If a GPU does not exist.
        """
        latency = self.cluster.latency_s
        if self.rule != "shares":
            return self.paths(src, dst, size_bytes=size_bytes).sums(latency)
        first, last = self._pairs(src, dst)
        total = np.zeros(len(first))
        for own in self._cards.own_links(first, last):
            total += np.where(own >= 0, latency[own], 0.0).sum(axis=1)
        ends = self._cards.switches(first, last)
        far = ends[0] >= 0
        total[far] += self._graph.latency_s(ends[0][far], ends[1][far])
        return total
