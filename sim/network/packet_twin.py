"""The packet network again, readable and slow: pure SimPy, a process per chunk.

It shares no code with the compiled kernel and is what the kernel is tested against, to the
nanosecond. The rules are the same: a link serves chunks in the order they arrive; of chunks
that arrive in the same nanosecond, those that a link dropped when it died come first, then those
a GPU sends, then the others by the number of the link they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np
import simpy

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from sim.network.flows import Flows
    from topologies import Router

FROM_A_DEAD_LINK, FROM_A_GPU = -2, -1


@dataclass(eq=False)
class Crossing:
    """A chunk on a link; `done` fires when it has crossed (True) or the link has died (False)."""

    size: int
    came_from: int
    joined: int
    done: simpy.Event
    start: int = 0
    finish: int = 0
    left: int = 0
    turn: int = 0


@dataclass
class TwinLink:
    """A FIFO link that computes the finish of a chunk when the chunk arrives."""

    env: simpy.Environment
    bandwidth: float
    latency_ns: int
    busy_start: int = 0
    busy_bytes: int = 0
    free_at: int = 0
    total_bytes: int = 0
    resent_bytes: int = 0
    busy_ns: int = 0
    wait_ns: int = 0
    wait_max_ns: int = 0
    chunks: int = 0
    arriving: list[Crossing] = field(default_factory=list)
    queue: list[Crossing] = field(default_factory=list)

    def cross(self, size: int, came_from: int) -> Crossing:
        """Put a chunk into the queue."""
        crossing = Crossing(size, came_from, int(self.env.now), self.env.event())
        self.arriving.append(crossing)
        if len(self.arriving) == 1:
            self.env.process(self._admit())
        return crossing

    def change(self, bandwidth: float) -> list[Crossing]:
        """Work at another bandwidth from now on, 0 when dead; returns what a dead link drops."""
        now, old = int(self.env.now), self.bandwidth
        self.bandwidth = bandwidth or old
        if bandwidth == old:
            return []
        rest = self._halt(old)
        for crossing in rest:
            if bandwidth:
                self._take_on(crossing, max(self.free_at, now) if crossing != rest[0] else None)
                continue
            self.queue.remove(crossing)
            self.resent_bytes += crossing.size - crossing.left
            self._book(crossing.joined, min(crossing.start, now), now)
        return [] if bandwidth else rest

    def withdraw(self, gone: list[Crossing]) -> None:
        """Take chunks that wait off the queue; those behind are served earlier."""
        rest, now = self._halt(self.bandwidth), int(self.env.now)
        for crossing in gone:
            self.queue.remove(crossing)
        for crossing in rest:
            if crossing not in gone:
                self._take_on(crossing, max(self.free_at, now) if crossing != rest[0] else None)

    def _halt(self, bandwidth: float) -> list[Crossing]:
        """Stop serving; returns what has not left, the first one with the bytes that are left."""
        now = int(self.env.now)
        rest = [crossing for crossing in self.queue if crossing.finish > now]
        for crossing in rest[:1]:
            served = (now - max(crossing.start, self.busy_start)) * bandwidth / 1e9
            crossing.left -= min(floor(served + 1e-9), crossing.left - 1)
        self.busy_start, self.busy_bytes, self.free_at = now, 0, now
        for crossing in rest:
            crossing.turn += 1
        return rest

    def _admit(self) -> Generator[simpy.Event, int, None]:
        yield self.env.timeout(0)  # until all that arrives in this nanosecond is here
        arriving, self.arriving = self.arriving, []
        for crossing in sorted(arriving, key=lambda chunk: chunk.came_from):
            self.queue.append(crossing)
            crossing.left = crossing.size
            now = int(self.env.now)
            if self.free_at <= now:
                self.busy_start, self.busy_bytes = now, 0
            self._take_on(crossing, max(now, self.free_at))

    def _take_on(self, crossing: Crossing, start: int | None) -> None:
        """Serve what is left of a chunk next; one that is in service keeps its start."""
        if start is not None:
            crossing.start = start
        self.busy_bytes += crossing.left
        duration = self.busy_bytes * 1e9 / self.bandwidth
        self.free_at = crossing.finish = self.busy_start + ceil(duration - 1e-6)
        self.env.process(self._deliver(crossing, crossing.turn))

    def _deliver(self, crossing: Crossing, turn: int) -> Generator[simpy.Event, int, None]:
        yield self.env.timeout(crossing.finish + self.latency_ns - self.env.now)
        if turn != crossing.turn:
            return
        self.queue.remove(crossing)
        self.total_bytes += crossing.size
        self.chunks += 1
        self._book(crossing.joined, crossing.start, crossing.finish)
        crossing.done.succeed(value=True)

    def _book(self, joined: int, start: int, finish: int) -> None:
        self.busy_ns += finish - start
        self.wait_ns += start - joined
        self.wait_max_ns = max(self.wait_max_ns, start - joined)


@dataclass
class Trip:
    """A chunk under way: its flow, and the links ahead, the first being the one it is on."""

    flows: Flows
    flow: int
    path: list[int]
    crossing: Crossing | None = None


class PacketTwin:
    """Open-loop runs of the packet network: flows of a source start at given times.

    Parameters
    ----------
    router
        Single-path routes.
    chunk_bytes
        Bytes of a full chunk.
    order
        ``interleaved``, ``shifted`` or ``destination``.
    """

    def __init__(self, router: Router, *, chunk_bytes: int, order: str) -> None:
        self.env = simpy.Environment()
        self.router, self.chunk_bytes, self.order = router, chunk_bytes, order
        self._trips: list[Trip] = []
        self._dead: set[int] = set()
        cluster = router.cluster
        self.links = [
            TwinLink(self.env, float(bandwidth), ceil(latency * 1e9 - 1e-6))
            for bandwidth, latency in zip(cluster.bandwidth_Bps, cluster.latency_s, strict=True)
        ]

    def send(self, at_ns: int, gpu: int, flows: Flows, delivered_ns: dict[int, int]) -> None:
        """Send the flows of `gpu` at `at_ns`; each one's delivery is written to the dict."""
        self.env.process(self._send(at_ns, gpu, flows, delivered_ns))

    def _send(
        self, at_ns: int, gpu: int, flows: Flows, delivered_ns: dict[int, int]
    ) -> Generator[simpy.Event, int, None]:
        yield self.env.timeout(at_ns)
        for flow, size in self._issue(gpu, flows):
            if not self._dead & {int(flows.src[flow]), int(flows.dst[flow])}:
                self.env.process(self._travel(flow, size, flows, delivered_ns))

    def change(self, at_ns: int, speed: list[float]) -> None:
        """Let links work at these shares of their bandwidth from `at_ns` on."""
        self.env.process(self._change(at_ns, speed))

    def _change(self, at_ns: int, speed: list[float]) -> Generator[simpy.Event, int, None]:
        yield self.env.timeout(at_ns)
        cluster = self.router.cluster
        self.router = self.router.without([link for link, each in enumerate(speed) if each == 0])
        trips = {id(trip.crossing): trip for trip in self._trips}
        for trip in self._trips:
            on = trip.crossing
            if on and on.finish > self.env.now and on.came_from == FROM_A_GPU:
                trip.path = self._path(trip.flows, trip.flow)  # it has not left its source
            if any(speed[link] == 0 for link in trip.path[1:]):
                trip.path[1:] = self._onward(trip, int(cluster.link_dst[trip.path[0]]))
        for link, each in enumerate(self.links):
            for crossing in each.change(float(cluster.bandwidth_Bps[link]) * speed[link]):
                trip = trips[id(crossing)]
                trip.path = [link, *self._onward(trip, int(cluster.link_src[link]))]
                crossing.done.succeed(value=False)

    def cut(self, at_ns: int, gpu: int) -> None:
        """Let a GPU die at `at_ns`: chunks to it or from it that no card has picked never leave.

        A card has picked one chunk of every source, collective and first link.
        """
        self.env.process(self._cut(at_ns, gpu))

    def _cut(self, at_ns: int, gpu: int) -> Generator[simpy.Event, int, None]:
        yield self.env.timeout(at_ns)
        self._dead.add(gpu)
        trips = {id(trip.crossing): trip for trip in self._trips}
        for link in self.links:
            picked, gone = set(), []
            for crossing in link.queue:
                if crossing.finish <= self.env.now or crossing.came_from != FROM_A_GPU:
                    continue
                trip = trips[id(crossing)]
                ends = int(trip.flows.src[trip.flow]), int(trip.flows.dst[trip.flow])
                if (id(trip.flows), ends[0]) in picked and gpu in ends:
                    gone.append(crossing)
                    self._trips.remove(trip)
                picked.add((id(trip.flows), ends[0]))
            if gone:
                link.withdraw(gone)

    def _path(self, flows: Flows, flow: int) -> list[int]:
        part = flows.part(np.array([flow]))
        links: list[int] = self.router.paths(part.src, part.dst).links.tolist()
        return links

    def _onward(self, trip: Trip, node: int) -> list[int]:
        """Links from a node on: the tail of the flow's path, or a new one from a switch."""
        cluster = self.router.cluster
        if node < cluster.first_switch:
            path = self._path(trip.flows, trip.flow)
            return path[[int(cluster.link_src[link]) for link in path].index(node) :]
        pair = trip.flows.src[[trip.flow]], trip.flows.dst[[trip.flow]]
        links: list[int] = self.router.onward([node - cluster.first_switch], *pair).links.tolist()
        return links

    def _travel(
        self, flow: int, size: int, flows: Flows, delivered_ns: dict[int, int]
    ) -> Generator[simpy.Event, bool, None]:
        trip = Trip(flows, flow, self._path(flows, flow))
        self._trips.append(trip)
        came_from = FROM_A_GPU
        while trip.path:
            trip.crossing = self.links[trip.path[0]].cross(size, came_from)
            crossed = yield trip.crossing.done
            came_from = trip.path.pop(0) if crossed else FROM_A_DEAD_LINK
            if not crossed:
                trip.path.pop(0)
        self._trips.remove(trip)
        delivered_ns[flow] = int(self.env.now)

    def _issue(self, gpu: int, flows: Flows) -> Iterator[tuple[int, int]]:
        """Yield (flow, chunk size) in the order in which `gpu` issues them."""
        start = 0 if self.order == "destination" else gpu + 1
        gpus = self.router.cluster.gpus
        own = [flow for flow in range(len(flows)) if flows.src[flow] == gpu]
        own.sort(key=lambda flow: (int(flows.dst[flow]) - start) % gpus)
        queues = [(flow, list(self._chunks(flows, flow))) for flow in own]
        if self.order == "interleaved":
            for turn in range(max((len(chunks) for _, chunks in queues), default=0)):
                for flow, chunks in queues:
                    if turn < len(chunks):
                        yield flow, chunks[turn]
        else:
            for flow, chunks in queues:
                for size in chunks:
                    yield flow, size

    def _chunks(self, flows: Flows, flow: int) -> Iterator[int]:
        for _ in range(int(flows.count[flow])):
            rest = flows.message_bytes
            while rest > 0:
                yield min(rest, self.chunk_bytes)
                rest -= self.chunk_bytes
