"""The analytic network: bytes over bandwidth of the busiest link, plus latency."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import SimulationError
from sim.network.protocol import ceil_ns
from sim.network.usage import LinkUsage, TimeBins

if TYPE_CHECKING:
    from collections.abc import Generator

    import simpy
    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from topologies import Router


@dataclass(frozen=True, slots=True)
class AnalyticNetwork:
    """A collective takes as long as its busiest link, plus its longest path's latency.

    It begins when its last sender has started, and all GPUs that other GPUs sent to have
    everything when it ends. Instant, for sweeps; serves every routing rule.

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
        self._bins = TimeBins(network.router.cluster.links, network.bins)

    def collective(self, flows: Flows) -> AnalyticCollective:
        """Register flows; nothing moves before `AnalyticCollective.send`."""
        return AnalyticCollective(self, flows)

    def record(self, busy_ns: NDArray[np.float64], transfer_ns: int) -> None:
        """Write a collective that starts now into the books, spread over its transfer."""
        now = int(self.env.now)
        self._busy_ns += busy_ns
        self._bins.add(now, now + transfer_ns, busy_ns)

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
        self._session = session
        router, env = session.router, session.env
        src, dst = flows.src, flows.dst
        self.link_bytes: NDArray[Any] = router.link_bytes(src, dst, flows.size_bytes)[0]
        self.link_bytes.setflags(write=False)
        self._busy_ns = self.link_bytes * 1e9 / router.cluster.bandwidth_Bps
        self._transfer_ns = ceil(float(self._busy_ns.max(initial=0.0)) - 1e-6)
        latency = router.path_latency(src, dst, size_bytes=flows.size_bytes)
        self._latency_ns = ceil_ns(float(latency.max(initial=0.0)))
        self._unsent = set(np.unique(src).tolist())
        remote = src != dst
        self._over_links = set(np.unique(dst[remote]).tolist())
        self._arrivals = {gpu: env.event() for gpu in np.unique(dst).tolist()}
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
        if gpu in self._arrivals and gpu not in self._over_links:
            self._arrivals[gpu].succeed()
        if not self._unsent:
            self._session.env.process(self._move())

    def _move(self) -> Generator[simpy.Event, None, None]:
        env = self._session.env
        if self._over_links:
            self._session.record(self._busy_ns, self._transfer_ns)
            yield env.timeout(self._transfer_ns + self._latency_ns)
        self.ended_ns = int(env.now)
        for gpu in sorted(self._over_links):
            self._arrivals[gpu].succeed()
