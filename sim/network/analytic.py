"""The analytic network: bytes over bandwidth of the busiest link, plus latency."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import SimulationError
from sim.network.protocol import ceil_ns
from sim.network.usage import LinkUsage, TimeBins
from sim.pairs import leg_bytes, leg_latency

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import simpy
    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from sim.pairs import Surveyed
    from topologies import Router


@dataclass(frozen=True, slots=True)
class AnalyticNetwork:
    """A collective takes as long as its busiest link, plus its longest path's latency.

    It begins when its last sender has started, and all GPUs that other GPUs sent to have
    everything when it ends. Collectives that need the same links, as those of two micro-batches,
    move one after the other. Instant, for sweeps; serves every routing rule.

    Attributes
    ----------
    router
        Routes in force.
    bins
        Time bins for utilisation, even.
    """

    router: Router
    bins: int = 64
    name: str = "analytic"

    def __post_init__(self) -> None:
        """Refuse an odd number of bins."""
        if self.bins < 2 or self.bins % 2:
            raise SimulationError(f"bins must be an even number, got {self.bins}")

    def open(self, env: simpy.Environment) -> AnalyticSession:
        """Return the idle network of a new run."""
        return AnalyticSession(self, env)


class AnalyticSession:
    """The analytic network during one run: the links' books."""

    def __init__(self, network: AnalyticNetwork, env: simpy.Environment) -> None:
        self.env = env
        self.router = network.router
        self._busy_ns = np.zeros(network.router.cluster.links)
        self._free_ns = np.zeros(network.router.cluster.links, dtype=np.int64)
        self._bins = TimeBins(network.router.cluster.links, network.bins)

    def collective(self, flows: Flows) -> AnalyticCollective:
        """Register flows; nothing moves before `AnalyticCollective.send`."""
        return AnalyticCollective(self, flows)

    def foresee(self, leg: Surveyed) -> Callable[[int], AnalyticCollective | None]:
        """Count a leg of all layers at once; returns what registers the collective of a layer.

        It returns None for a layer without messages.
        """
        ends = (leg.sends, leg.receives, leg.from_others)
        link_bytes, latency_s = leg_bytes(self.router, leg), leg_latency(self.router, leg)
        rows = np.diff(leg.traffic.indptr)

        def opened(layer: int) -> AnalyticCollective | None:
            if not rows[layer]:
                return None
            who = tuple(np.flatnonzero(each[layer]) for each in ends)
            latency_ns = ceil_ns(float(latency_s[layer]))
            return AnalyticCollective.known(
                self, link_bytes[layer], latency_ns, (who[0], who[1], who[2])
            )

        return opened

    def record(self, busy_ns: NDArray[np.float64], transfer_ns: int) -> int:
        """Write a collective into the books, spread over its transfer; return when that ends.

        It begins now, or when all links it needs are free of collectives before it.
        """
        needed = busy_ns > 0
        start = max(int(self.env.now), int(self._free_ns[needed].max(initial=0)))
        self._free_ns[needed] = start + transfer_ns
        self._busy_ns += busy_ns
        self._bins.add(start, start + transfer_ns, busy_ns)
        return start + transfer_ns

    def usage(self) -> LinkUsage:
        """Return the links' books so far."""
        return LinkUsage(
            busy_ns=self._busy_ns.copy(),
            bin_ns=self._bins.width_ns,
            busy_bins_ns=self._bins.busy_ns(),
        )


class AnalyticCollective:
    """A set of flows that moves as one."""

    def __init__(self, session: AnalyticSession, flows: Flows) -> None:
        router, src, dst, size = session.router, flows.src, flows.dst, flows.size_bytes
        latency = router.path_latency(src, dst, size_bytes=size)
        self._move_later(
            session,
            router.link_bytes(src, dst, size)[0],
            ceil_ns(float(latency.max(initial=0.0))),
            (np.unique(src), np.unique(dst), np.unique(dst[src != dst])),
        )

    @classmethod
    def known(
        cls,
        session: AnalyticSession,
        link_bytes: NDArray[Any],
        latency_ns: int,
        ends: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    ) -> AnalyticCollective:
        """Return a collective whose bytes are counted already.

        Parameters
        ----------
        session
            The network.
        link_bytes
            [links]: bytes it puts on every link.
        latency_ns
            Of its longest path.
        ends
            GPUs that send, that are sent to, and that others send to.
        """
        made = cls.__new__(cls)
        made._move_later(session, link_bytes, latency_ns, ends)  # noqa: SLF001  its own
        return made

    def _move_later(
        self,
        session: AnalyticSession,
        link_bytes: NDArray[Any],
        latency_ns: int,
        ends: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    ) -> None:
        self._session = session
        self.link_bytes = link_bytes
        self.link_bytes.setflags(write=False)
        self._busy_ns = link_bytes * 1e9 / session.router.cluster.bandwidth_Bps
        self._transfer_ns = ceil(float(self._busy_ns.max(initial=0.0)) - 1e-6)
        self._latency_ns = latency_ns
        senders, receivers, over_links = (each.tolist() for each in ends)
        self._unsent = set(senders)
        self._end = session.env.event()
        self._over_links = bool(over_links)
        self._arrivals = dict.fromkeys(over_links, self._end)
        self._own = {gpu: session.env.event() for gpu in receivers if gpu not in self._arrivals}
        self._arrivals |= self._own
        self.started_ns: int | None = None
        self.ended_ns: int | None = None

    def arrived(self, gpu: int) -> simpy.Event:
        """Event that fires when everything addressed to `gpu` is in."""
        if gpu not in self._arrivals:
            raise SimulationError(f"nothing is addressed to GPU {gpu} in this collective")
        return self._arrivals[gpu]

    def send(self, gpu: int) -> None:
        """Start the messages of `gpu` now; the last sender sets the collective going."""
        if gpu not in self._unsent:
            raise SimulationError(f"GPU {gpu} has nothing to send, or has sent, in this collective")
        self._unsent.remove(gpu)
        if self.started_ns is None:
            self.started_ns = int(self._session.env.now)
        if gpu in self._own:
            self._own[gpu].succeed()
        if not self._unsent:
            self._session.env.process(self._move())

    def _move(self) -> Generator[simpy.Event, None, None]:
        env = self._session.env
        if self._over_links:
            end = self._session.record(self._busy_ns, self._transfer_ns)
            yield env.timeout(end + self._latency_ns - int(env.now))
        self.ended_ns = int(env.now)
        self._end.succeed()
