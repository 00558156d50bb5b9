"""One collective of the fluid network: its flows as rows that join the kernel's table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import SimulationError
from sim.network._fluid_routes import fluid_routes
from sim.network._fluid_state import BUNDLE, FIRST, LAST, NONE

if TYPE_CHECKING:
    import simpy
    from numpy.typing import NDArray

    from sim.network._fluid_routes import Bundles
    from sim.network.flows import Flows
    from sim.network.fluid import FluidSession


class FluidCollective:
    """A set of flows under way in a `FluidSession`."""

    def __init__(self, session: FluidSession, flows: Flows) -> None:
        self._session = session
        self._flows = flows
        self._places: list[tuple[str, int, int]] = []
        self._link_bytes: NDArray[Any] | None = None
        self._delivered_ns: NDArray[np.float64] | None = None
        self._bundles: list[tuple[int, Bundles]] = []
        self._excused = np.zeros(0, dtype=np.int64)
        self._moving: NDArray[np.int64]
        self._columns: dict[str, NDArray[Any]]
        self._unsent: dict[int, tuple[slice, int | None]]
        self.started_ns: int | None = None
        self.ended_ns: int | None = None
        self._order = np.argsort(flows.src, kind="stable")
        self._register_inboxes()
        self._register_flows()

    @property
    def inboxes(self) -> range:
        """The kernel's inboxes of this collective."""
        return range(self._first_inbox, self._first_inbox + len(self._events))

    @property
    def link_bytes(self) -> NDArray[Any]:
        """int64 or (under ``shares``) float64 [links]: bytes of the flows that have ended."""
        if self._link_bytes is not None:
            return self._link_bytes
        session = self._session
        carried: NDArray[Any] = session.view("carried", self._account, 1)[0].copy()
        for first, bundles in self._bundles:
            volume = session.view("bundles", first, len(bundles.indptr) - 1)["carried"]
            part = np.repeat(volume, np.diff(bundles.indptr)) * bundles.fraction
            carried += np.bincount(bundles.link, part, len(carried))
        if session.network.router.rule == "shares":
            return carried
        # Sums of whole numbers below 2**53: float64 is exact.
        return carried.astype(np.int64)

    @property
    def delivered_ns(self) -> NDArray[np.float64]:
        """float64 [flows]: when each flow's last byte arrived; of a finished collective."""
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
        rows, local = self._unsent.pop(gpu)
        now = int(self._session.env.now)
        if self.started_ns is None and self.ended_ns is None:  # else nothing is left to send
            self.started_ns = now
        if rows.stop > rows.start:
            self._session.inject(self._columns, rows)
        if local is not None:
            self._deliver_locally(local, now)

    def complete(self, inbox: int) -> None:
        """Tell whoever waits that an inbox has everything, now."""
        self._events[inbox - self._first_inbox].succeed()
        self._incomplete -= 1
        if self._incomplete == 0:
            self.ended_ns = int(self._session.env.now)
            self._close()

    def reroute(self) -> None:
        """Route what has not been sent anew: flows under way, and those that are to come."""
        rows, delivery = self._session.under_way(self._account)
        place_of = np.zeros(len(self._flows), dtype=np.int64)
        place_of[self._moving] = np.arange(len(self._moving))
        running = place_of[delivery - self._first_delivery]
        unsent = [np.arange(rows.start, rows.stop) for rows, _ in self._unsent.values()]
        places = np.concatenate([running, *unsent])
        if len(places):
            self._route(places)
        moved = {name: self._columns[name][running] for name in ("way", "latency")}
        self._session.move(rows, moved)

    def cut(self, gpu: int) -> NDArray[np.int64]:
        """Give up what has not left, to a GPU or from it; returns int64 [flows] bytes."""
        session, flows = self._session, self._flows
        mine = (flows.src == gpu) | (flows.dst == gpu)
        lost = np.zeros(len(flows), dtype=np.int64)
        rows, delivery = session.under_way(self._account)
        running = mine[delivery - self._first_delivery]
        lost[delivery[running] - self._first_delivery] = session.end_early(rows[running])
        unsent = self._forget(mine)
        lost[unsent] = flows.size_bytes[unsent]
        _, own = self._unsent.pop(gpu, (None, None))
        missing = unsent if own is None else np.append(unsent, own)
        inbox = self._first_inbox + self._inbox[missing]
        session.miss(inbox, np.full(len(inbox), float(session.env.now)))
        missing = np.append(missing, delivery[running] - self._first_delivery)
        self._excused = np.unique(self._inbox[missing])
        return lost

    def excuse(self) -> None:
        """Announce the inboxes that wait for nothing any more since `cut`."""
        left = self._session.view("inboxes", self._first_inbox, len(self._events))["left"]
        for inbox in self._excused[left[self._excused] == 0].tolist():
            self._session.announce(self._first_inbox + inbox)

    def _forget(self, mine: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Take flows that have not been sent off the columns; returns which."""
        pending = np.zeros(len(self._moving), dtype=np.bool_)
        for rows, _ in self._unsent.values():
            pending[rows] = True
        gone = pending & mine[self._moving]
        before = np.concatenate(([0], np.cumsum(~gone))).tolist()
        self._unsent = {
            sender: (slice(before[rows.start], before[rows.stop]), local)
            for sender, (rows, local) in self._unsent.items()
        }
        unsent: NDArray[np.int64] = self._moving[gone]
        self._moving = self._moving[~gone]
        self._columns = {name: each[~gone] for name, each in self._columns.items()}
        return unsent

    def _deliver_locally(self, flow: int, now: int) -> None:
        inbox = self._first_inbox + int(self._inbox[flow])
        self._session.view("delivered", self._first_delivery + flow, 1)[0] = now
        record = self._session.view("inboxes", inbox, 1)
        record["left"] -= 1
        record["ready"] = max(float(record["ready"][0]), now)
        if record["left"][0] == 0:
            self._session.announce(inbox)

    def _reserve(self, what: str, length: int) -> tuple[int, NDArray[Any]]:
        start, places = self._session.reserve(what, length)
        self._places.append((what, start, length))
        return start, places

    def _register_inboxes(self) -> None:
        gpus, self._inbox = np.unique(self._flows.dst, return_inverse=True)
        self._inbox_of = {gpu: place for place, gpu in enumerate(gpus.tolist())}
        self._events = [self._session.env.event() for _ in self._inbox_of]
        self._incomplete = len(self._events)
        self._first_inbox, inboxes = self._reserve("inboxes", len(gpus))
        inboxes["left"] = np.bincount(self._inbox, minlength=len(gpus))

    def _register_flows(self) -> None:
        """Write down what every flow over links joins with, by source."""
        session, flows = self._session, self._flows
        moving = self._order[flows.src[self._order] != flows.dst[self._order]]
        self._account, _ = self._reserve("carried", 1)
        self._first_delivery, _ = self._reserve("delivered", len(flows))
        self._moving = moving
        size = flows.size_bytes[moving].astype(np.float64)
        self._columns = {
            "way": np.full((len(moving), 4), self._account),
            "inbox": self._first_inbox + self._inbox[moving],
            "delivery": self._first_delivery + moving,
            "size": size,
            "latency": np.zeros(len(moving)),
        }
        bundles = self._route(np.arange(len(moving)))
        if len(moving):
            busy_ns = bundles.link_bytes(size, len(session.capacity)) / session.capacity
            need = np.maximum(busy_ns[bundles.first], busy_ns[bundles.last])
            work = float(busy_ns.sum() + self._columns["latency"].max())
            session.expect(self._account, work, float(need.mean()))
        self._register_senders(flows.src[moving])

    def _route(self, places: NDArray[np.int64]) -> Bundles:
        """Route the flows at some places of the columns, over the links of now."""
        condition = self._session.condition
        flows, moving = self._flows, self._moving[places]
        asked, part = np.arange(len(flows)), flows
        if self._bundles:  # routed before: what has been delivered needs no path
            asked = np.sort(moving)
            part = flows.part(asked)
        condition.check_routes(part.src, part.dst)
        routes, late = fluid_routes(condition.router, part)
        at = np.searchsorted(asked, moving)
        bundles = routes.of(at)
        first = self._register_bundles(bundles)
        way = self._columns["way"]
        bundle = np.where(bundles.bundle == NONE, NONE, bundles.bundle + first)
        for column, values in ((FIRST, bundles.first), (LAST, bundles.last), (BUNDLE, bundle)):
            way[places, column] = values
        self._columns["latency"][places] = late[at] * 1e9
        return bundles

    def _register_bundles(self, bundles: Bundles) -> int:
        first_entry, entries = self._reserve("entries", len(bundles.link))
        entries["link"], entries["fraction"] = bundles.link, bundles.fraction
        first_bundle, rows = self._reserve("bundles", len(bundles.indptr) - 1)
        rows["begin"] = first_entry + bundles.indptr[:-1]
        rows["end"] = first_entry + bundles.indptr[1:]
        rows["account"] = self._account
        self._bundles.append((first_bundle, bundles))
        return first_bundle

    def _register_senders(self, moving_src: NDArray[np.int32]) -> None:
        src, dst = self._flows.src, self._flows.dst
        senders = np.unique(src)
        begin = np.searchsorted(moving_src, senders).tolist()
        end = np.searchsorted(moving_src, senders, side="right").tolist()
        to_itself = np.flatnonzero(src == dst)
        local = dict(zip(src[to_itself].tolist(), to_itself.tolist(), strict=True))
        self._unsent = {
            gpu: (slice(b, e), local.get(gpu))
            for gpu, b, e in zip(senders.tolist(), begin, end, strict=True)
        }

    def _close(self) -> None:
        """Keep what results need and give the places back to later collectives."""
        session = self._session
        self._link_bytes = self.link_bytes
        self._link_bytes.setflags(write=False)
        delivered = session.view("delivered", self._first_delivery, len(self._flows)).copy()
        delivered.setflags(write=False)
        self._delivered_ns = delivered
        for what, start, length in self._places:
            session.release(what, start, length)
