"""The packet network again, readable and slow: pure SimPy, a process per chunk.

It shares no code with the compiled kernel and is what the kernel is tested against, to the
nanosecond. The rules are the same: a link serves chunks in the order they arrive; of chunks
that arrive in the same nanosecond, those a GPU sends come first, the others by the number of
the link they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

import simpy

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from sim.network.flows import Flows
    from topologies import Router

FROM_A_GPU = -1


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
    busy_ns: int = 0
    wait_ns: int = 0
    wait_max_ns: int = 0
    chunks: int = 0
    arriving: list[tuple[int, int, simpy.Event]] = field(default_factory=list)

    def join(self, size: int, came_from: int) -> simpy.Event:
        """Put a chunk into the queue; the event fires at once with its time of delivery."""
        admitted = self.env.event()
        self.arriving.append((came_from, size, admitted))
        if len(self.arriving) == 1:
            self.env.process(self._admit())
        return admitted

    def _admit(self) -> Generator[simpy.Event, int, None]:
        yield self.env.timeout(0)  # until all that arrives in this nanosecond is here
        arriving, self.arriving = self.arriving, []
        for _, size, admitted in sorted(arriving, key=lambda chunk: chunk[0]):
            admitted.succeed(self._serve(size) + self.latency_ns)

    def _serve(self, size: int) -> int:
        now = int(self.env.now)
        start = max(now, self.free_at)
        if self.free_at <= now:
            self.busy_start, self.busy_bytes = now, 0
        self.busy_bytes += size
        duration = self.busy_bytes * 1e9 / self.bandwidth
        self.free_at = self.busy_start + ceil(duration - 1e-6)
        self.total_bytes += size
        self.busy_ns += self.free_at - start
        self.wait_ns += start - now
        self.wait_max_ns = max(self.wait_max_ns, start - now)
        self.chunks += 1
        return self.free_at


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
            self.env.process(self._travel(flow, size, flows, delivered_ns))

    def _travel(
        self, flow: int, size: int, flows: Flows, delivered_ns: dict[int, int]
    ) -> Generator[simpy.Event, int, None]:
        paths = self.router.paths(flows.src, flows.dst, size_bytes=flows.size_bytes)
        path = paths.links[paths.indptr[flow] : paths.indptr[flow + 1]]
        came_from = FROM_A_GPU
        for link in path.tolist():
            delivery = yield self.links[link].join(size, came_from)
            yield self.env.timeout(delivery - self.env.now)
            came_from = link
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
