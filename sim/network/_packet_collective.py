"""One collective of the packet network: its flows as rows of the kernel's state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sim.errors import SimulationError
from sim.network._packet_state import NONE
from sim.network.issue import IssueOrder, issue_rank
from topologies import RoutingError

if TYPE_CHECKING:
    from collections.abc import Callable

    import simpy
    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from sim.network.packet import PacketNetwork, PacketSession
    from topologies import Router

    Withdraw = Callable[[tuple[int, int], NDArray[np.int64]], NDArray[np.int64]]


class Routes(NamedTuple):
    """Flows in issue order, and the links they cross.

    Attributes
    ----------
    order
        int64 [flows]: the flows by (source, first link, rank); those over no link come first
        within their source.
    links
        int32 [crossings]: links of the ordered flows, one path after another.
    hops
        int64 [flows]: links of every flow, in the flows' own order.
    first_link
        int32 [flows]: in the flows' own order; NONE for a flow over no link.
    """

    order: NDArray[np.int64]
    links: NDArray[np.int32]
    hops: NDArray[np.int64]
    first_link: NDArray[np.int32]


def ordered_routes(
    network: PacketNetwork, router: Router, flows: Flows, rng: np.random.Generator
) -> Routes:
    """Route the flows and put them into the order in which their sources issue them."""
    paths = router.paths(flows.src, flows.dst, size_bytes=flows.size_bytes)
    hops = np.diff(paths.indptr)
    remote = hops > 0
    first_link = np.full(len(flows), NONE, dtype=np.int32)
    first_link[remote] = paths.links[paths.indptr[:-1][remote]]
    rank = issue_rank(IssueOrder(network.order), flows, network.router.cluster.gpus, rng)
    order = np.lexsort((rank, first_link, flows.src))
    lengths = hops[order]
    offset = paths.indptr[:-1][order] - (np.cumsum(lengths) - lengths)
    links = paths.links[np.repeat(offset, lengths) + np.arange(int(lengths.sum()))]
    return Routes(order, links, hops, first_link)


class PacketCollective:
    """A set of flows under way in a `PacketSession`."""

    def __init__(self, session: PacketSession, flows: Flows, routes: Routes) -> None:
        self._session = session
        self._flows = flows
        self._order = routes.order
        self._rows: list[tuple[str, int, int]] = []
        self._link_bytes: NDArray[np.int64] | None = None
        self._delivered_ns: NDArray[np.int64] | None = None
        self._excused = np.zeros(0, dtype=np.int64)
        self.started_ns: int | None = None
        self.ended_ns: int | None = None
        self._register_inboxes()
        self._register_flows(routes)
        self._register_injections(routes.first_link[routes.order])

    @property
    def inboxes(self) -> range:
        """The kernel's inboxes of this collective."""
        return range(self._first_inbox, self._first_inbox + len(self._events))

    @property
    def link_bytes(self) -> NDArray[np.int64]:
        """int64 [links]: bytes carried for this collective, as counted chunk by chunk."""
        if self._link_bytes is None:
            carried: NDArray[np.int64] = self._session.view("link_bytes", self._account, 1)[0]
            return carried.copy()
        return self._link_bytes

    @property
    def delivered_ns(self) -> NDArray[np.int64]:
        """int64 [flows]: when each flow's last byte arrived; of a finished collective."""
        if self._delivered_ns is None:
            raise SimulationError("delivered_ns is known when the collective has ended")
        return self._delivered_ns

    def arrived(self, gpu: int) -> simpy.Event:
        """Event that fires when everything addressed to `gpu` is in."""
        if gpu not in self._inbox_of:
            raise SimulationError(f"nothing is addressed to GPU {gpu} in this collective")
        return self._events[self._inbox_of[gpu]]

    def send(self, gpu: int) -> None:
        """Start the messages of `gpu` now."""
        if gpu not in self._unsent:
            raise SimulationError(f"GPU {gpu} has nothing to send, or has sent, in this collective")
        first, end, local = self._unsent.pop(gpu)
        if self.started_ns is None and self.ended_ns is None:  # else nothing is left to send
            self.started_ns = int(self._session.env.now)
        if end > first:
            self._session.inject(first, end)
        for inbox in local:
            counter = self._session.view("inboxes", inbox, 1)
            counter -= 1
            if counter[0] == 0:
                self._session.announce(inbox)

    def complete(self, inbox: int) -> None:
        """Tell whoever waits that an inbox has everything, now."""
        self._events[inbox - self._first_inbox].succeed()
        self._incomplete -= 1
        if self._incomplete == 0:
            self.ended_ns = int(self._session.env.now)
            self._close()

    def reroute(self) -> None:
        """Give flows that are not all delivered the paths of now, for chunks to be issued."""
        session, flows = self._session, self._flows
        rows = session.view("flows", self._first_flow, len(self._order))
        moving = flows.src[self._order] != flows.dst[self._order]
        at = np.flatnonzero((rows["undelivered"] > 0) & moving)
        if not len(at):
            return
        part = flows.part(self._order[at])
        session.condition.check_routes(part.src, part.dst)
        paths = session.condition.router.paths(part.src, part.dst, size_bytes=part.size_bytes)
        first = self._reserve_hops(paths.links)
        rows["first_hop"][at] = first + paths.indptr[:-1]
        rows["end_hop"][at] = first + paths.indptr[1:]

    def cut(self, gpu: int, withdraw: Withdraw) -> NDArray[np.int64]:
        """Give up what has not left, to a GPU or from it; returns int64 [flows] bytes."""
        session, flows = self._session, self._flows
        mine = ((flows.src == gpu) | (flows.dst == gpu))[self._order]
        moving = (flows.src != flows.dst)[self._order]
        gone = self._first_flow + np.flatnonzero(mine & moving)
        lost = np.zeros(len(flows), dtype=np.int64)
        before = session.view("inboxes", self._first_inbox, len(self._events)).copy()
        lost[self._order[gone - self._first_flow]] = withdraw(self._injections, gone)
        _, _, local = self._unsent.pop(gpu, (0, 0, []))
        for inbox in local:
            counter = session.view("inboxes", inbox, 1)
            counter -= 1
        left = session.view("inboxes", self._first_inbox, len(self._events))
        self._excused = np.flatnonzero((left == 0) & (before > 0))
        return lost

    def excuse(self) -> None:
        """Announce the inboxes that wait for nothing any more since `cut`."""
        for inbox in self._excused.tolist():
            self._session.announce(self._first_inbox + inbox)

    def redirect(
        self, chunks: NDArray[Any], switch: NDArray[np.int64], link: NDArray[np.int64]
    ) -> None:
        """Give chunks (records of the kernel) of this collective paths from the switches on.

        The link that each is on stands before its path, for it may have to turn once more.

        Raises
        ------
        SimulationError
            If no living links lead on from there.
        """
        flow = self._order[chunks["flow"] - self._first_flow]
        src, dst = self._flows.src[flow], self._flows.dst[flow]
        try:
            paths = self._session.condition.router.onward(switch, src, dst)
        except RoutingError as error:
            raise SimulationError(
                f"partition: a message is cut off on its way: {error}; expected a fault schedule "
                "that leaves a path for messages under way"
            ) from error
        first = self._reserve_hops(np.insert(paths.links, paths.indptr[:-1], link))
        chunks["hop"] = first + paths.indptr[:-1] + np.arange(len(link))
        chunks["end_hop"] = first + paths.indptr[1:] + np.arange(1, len(link) + 1)

    def owns(self, flow: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows of the kernel's flows are this collective's."""
        own: NDArray[np.bool_] = (flow >= self._first_flow) & (
            flow < self._first_flow + len(self._order)
        )
        return own

    def _reserve(self, what: str, length: int) -> tuple[int, NDArray[Any]]:
        start, places = self._session.reserve(what, length)
        self._rows.append((what, start, length))
        return start, places

    def _reserve_hops(self, links: NDArray[np.int32]) -> int:
        first, places = self._reserve("hops", len(links))
        places[:] = links
        return first

    def _register_inboxes(self) -> None:
        gpus, self._inbox = np.unique(self._flows.dst, return_inverse=True)
        self._inbox_of = {gpu: place for place, gpu in enumerate(gpus.tolist())}
        self._events = [self._session.env.event() for _ in self._inbox_of]
        self._incomplete = len(self._events)
        self._first_inbox, counters = self._reserve("inboxes", len(gpus))
        counters[:] = np.bincount(self._inbox, minlength=len(gpus))

    def _register_flows(self, routes: Routes) -> None:
        session, order, size = self._session, routes.order, self._flows.message_bytes
        self._account, _ = self._reserve("link_bytes", 1)
        first_hop = self._reserve_hops(routes.links)
        self._first_flow, flows = self._reserve("flows", len(order))
        ends = first_hop + np.cumsum(routes.hops[order])
        flows["first_hop"], flows["end_hop"] = ends - routes.hops[order], ends
        flows["message_bytes"] = flows["rest"] = size
        chunks = self._flows.count[order] * -(-size // session.network.chunk_bytes)
        flows["unissued"] = flows["undelivered"] = chunks
        flows["next"] = self._first_flow + 1 + np.arange(len(order))
        flows["inbox"] = self._first_inbox + self._inbox[order]
        flows["account"], flows["delivered_at"] = self._account, NONE

    def _register_injections(self, first_link: NDArray[np.int32]) -> None:
        """Make one injection of every run of flows with the same source and first link."""
        session, src = self._session, self._flows.src[self._order]
        change = (np.diff(src) != 0) | (np.diff(first_link) != 0)
        starts = np.flatnonzero(np.r_[len(src) > 0, change])
        remote = first_link[starts] != NONE
        begin, end = starts[remote], np.r_[starts[1:], len(src)][remote]
        self._first_injection, injections = self._reserve("injections", len(begin))
        self._injections = (self._first_injection, self._first_injection + len(begin))
        flows = session.view("flows", self._first_flow, len(src))
        flows["next"][end - 1] = self._first_flow + begin
        bytes_before = np.r_[0, np.cumsum(self._flows.size_bytes[self._order])]
        chunks_before = np.r_[0, np.cumsum(flows["unissued"])]
        injections["link"] = first_link[begin]
        injections["total_bytes"] = bytes_before[end] - bytes_before[begin]
        injections["unissued"] = chunks_before[end] - chunks_before[begin]
        injections["cursor"] = self._first_flow + begin
        injections["previous"] = self._first_flow + end - 1
        self._register_senders(src, src[begin], first_link == NONE)

    def _register_senders(
        self, src: NDArray[np.int32], injection_src: NDArray[np.int32], local: NDArray[np.bool_]
    ) -> None:
        senders = np.unique(src)
        first = self._first_injection + np.searchsorted(injection_src, senders)
        end = self._first_injection + np.searchsorted(injection_src, senders, side="right")
        inboxes = self._first_inbox + self._inbox[self._order[local]]
        begin_local = np.searchsorted(src[local], senders)
        end_local = np.searchsorted(src[local], senders, side="right")
        self._unsent = {
            gpu: (f, e, inboxes[b:s].tolist())
            for gpu, f, e, b, s in zip(
                *(a.tolist() for a in (senders, first, end, begin_local, end_local)), strict=True
            )
        }

    def _close(self) -> None:
        """Keep what results need and give the rows back to later collectives."""
        session = self._session
        self._link_bytes = self.link_bytes
        self._link_bytes.setflags(write=False)
        delivered = np.empty(len(self._order), dtype=np.int64)
        rows = session.view("flows", self._first_flow, len(self._order))
        delivered[self._order] = rows["delivered_at"]
        self._delivered_ns = delivered
        for what, start, length in self._rows:
            session.release(what, start, length)
