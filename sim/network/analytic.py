"""The analytic network: bytes over bandwidth of the busiest link, plus latency."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import SimulationError
from sim.network.condition import Condition
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

CLOCK_LIMIT_NS = 2**62
"""Times beyond (146 years) are refused: they could overflow int64."""


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


@dataclass(slots=True)
class _Stretch:
    """Time in which a collective moves at one pace."""

    owner: AnalyticCollective
    start_ns: int
    stop_ns: int
    busy_ns: NDArray[np.float64]
    over: bool = False


class AnalyticSession:
    """The analytic network during one run: the links' books."""

    def __init__(self, network: AnalyticNetwork, env: simpy.Environment) -> None:
        self.env = env
        self.condition = Condition(network.router)
        links = network.router.cluster.links
        self._busy_ns = np.zeros(links)
        self._free_ns = np.zeros(links, dtype=np.int64)
        self._bins = TimeBins(links, network.bins)
        self._stretches: deque[_Stretch] = deque()
        self._open: dict[AnalyticCollective, None] = {}
        self._sent: NDArray[Any] = np.zeros(links)

    def collective(self, flows: Flows) -> AnalyticCollective:
        """Register flows; nothing moves before `AnalyticCollective.send`."""
        return self._opened(AnalyticCollective(self, flows))

    def foresee(self, leg: Surveyed) -> Callable[[int], AnalyticCollective | None]:
        """Count a leg of all layers at once; returns what registers the collective of a layer.

        It returns None for a layer without messages.
        """
        router, rows = self.condition.router, np.diff(leg.traffic.indptr)
        if self.condition.dead.any():  # later layers may need links that are back by then
            traffic = leg.traffic
            return lambda layer: self.collective(traffic.layer(layer)) if rows[layer] else None
        ends = (leg.sends, leg.receives, leg.from_others)
        link_bytes, latency_s = leg_bytes(router, leg), leg_latency(router, leg)

        def opened(layer: int) -> AnalyticCollective | None:
            if not rows[layer]:
                return None
            who = tuple(np.flatnonzero(each[layer]) for each in ends)
            counted = router, link_bytes[layer], ceil_ns(float(latency_s[layer]))
            flows = partial(leg.traffic.layer, layer)
            return self._opened(
                AnalyticCollective.known(self, flows, counted, (who[0], who[1], who[2]))
            )

        return opened

    def begin(
        self, owner: AnalyticCollective, busy_ns: NDArray[np.float64], transfer_ns: int
    ) -> _Stretch:
        """Write down when a collective moves: now, or when its links are free of those before."""
        needed = busy_ns > 0
        start = max(int(self.env.now), int(self._free_ns[needed].max(initial=0)))
        if start + transfer_ns >= CLOCK_LIMIT_NS:
            raise SimulationError(
                f"analytic clock overflow: a collective that takes {transfer_ns:.3g} ns from "
                f"{start:.3g} ns on; the clock holds {CLOCK_LIMIT_NS:.3g}"
            )
        self._free_ns[needed] = start + transfer_ns
        stretch = _Stretch(owner, start, start + transfer_ns, busy_ns)
        self._stretches.append(stretch)
        return stretch

    def end(self, stretch: _Stretch, sent_bytes: NDArray[Any]) -> None:
        """Write a stretch that is over into the books, in the order in which they began."""
        stretch.over = True
        self._sent += sent_bytes
        while self._stretches and self._stretches[0].over:
            first = self._stretches.popleft()
            self._busy_ns += first.busy_ns
            self._bins.add(first.start_ns, first.stop_ns, first.busy_ns)

    def close(self, collective: AnalyticCollective) -> None:
        """Forget a collective that has ended."""
        del self._open[collective]

    def set_speeds(self, speed: NDArray[np.float64]) -> None:
        """Let links work at these shares of their bandwidth from now on.

        A collective under way has sent the same part of every message, cut to whole bytes; the
        rest moves on as a collective of its own, over the links and at the rates of now. Those
        that wait for links keep their order.

        Raises
        ------
        SimulationError
            If messages under way have no path any more.
        """
        now = int(self.env.now)
        moving = [stretch.owner for stretch in self._stretches if not stretch.over]
        moving = [collective for collective in moving if collective.pause()]
        self.condition.change(now, speed, self._sent)
        self._free_ns[:] = now
        for collective in self._open:
            collective.reroute()
        for collective in moving:
            collective.go()

    def cut(self, gpu: int) -> list[tuple[AnalyticCollective, NDArray[np.int64]]]:
        """Let a GPU die: what has not left its sender, to it or from it, is lost from now on.

        The same part of every message has left, cut to whole bytes, as in `set_speeds`.
        """
        now = int(self.env.now)
        moving = [stretch.owner for stretch in self._stretches if not stretch.over]
        moving = [collective for collective in moving if collective.pause()]
        lost = [(collective, collective.cut(gpu)) for collective in self._open]
        self._free_ns[:] = now
        for collective in self._open:
            collective.reroute()
        for collective in moving:
            collective.go()
        for collective, _ in lost:
            collective.excuse(gpu)
        return [(collective, size) for collective, size in lost if size.any()]

    def usage(self) -> LinkUsage:
        """Return the links' books so far, less collectives that still move."""
        return LinkUsage(
            busy_ns=self._busy_ns.copy(),
            bin_ns=self._bins.width_ns,
            busy_bins_ns=self._bins.busy_ns(),
            phases=self.condition.phases(int(self.env.now), self._sent),
        )

    def _opened(self, collective: AnalyticCollective) -> AnalyticCollective:
        self._open[collective] = None
        return collective


class AnalyticCollective:
    """A set of flows that moves as one."""

    def __init__(self, session: AnalyticSession, flows: Flows) -> None:
        src, dst = flows.src, flows.dst
        ends = (np.unique(src), np.unique(dst), np.unique(dst[src != dst]))
        self._register(session, lambda: flows, ends)
        self._route()

    @classmethod
    def known(
        cls,
        session: AnalyticSession,
        flows: Callable[[], Flows],
        counted: tuple[Router, NDArray[Any], int],
        ends: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    ) -> AnalyticCollective:
        """Return a collective whose bytes are counted already.

        Parameters
        ----------
        session
            The network.
        flows
            Returns what is sent; called only where it has to be routed anew.
        counted
            The routes, the bytes [links] it puts on every link by them, and the ns of latency of
            its longest path.
        ends
            GPUs that send, that are sent to, and that others send to.
        """
        made = cls.__new__(cls)
        made._register(session, flows, ends)  # noqa: SLF001  its own
        if counted[0] is session.condition.router:
            made._plan(*counted)  # noqa: SLF001  its own
        else:
            made._route()  # noqa: SLF001  its own
        return made

    def _register(
        self,
        session: AnalyticSession,
        flows: Callable[[], Flows],
        ends: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    ) -> None:
        self._session = session
        self._flows = flows
        self._left: NDArray[np.int64] | None = None
        self._router = session.condition.router
        self._routed: NDArray[np.int64] | None = None
        self._behind: NDArray[Any] | None = None
        self._stretch: _Stretch | None = None
        self._turns = 0
        self._not_before_ns = 0
        senders, receivers, over_links = (each.tolist() for each in ends)
        self._unsent = set(senders)
        self._end = session.env.event()
        self._over_links = bool(over_links)
        self._arrivals = dict.fromkeys(over_links, self._end)
        self._own = {gpu: session.env.event() for gpu in receivers if gpu not in self._arrivals}
        self._arrivals |= self._own
        self.started_ns: int | None = None
        self.ended_ns: int | None = None

    @property
    def link_bytes(self) -> NDArray[Any]:
        """int64 or (under ``shares``) float64 [links]: bytes behind and ahead."""
        whole = self._ahead if self._behind is None else self._behind + self._ahead
        whole.setflags(write=False)
        return whole

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
            self.go()

    def pause(self) -> bool:
        """Count what has been sent as behind, for links change now; whether more is to come."""
        stretch, now = self._stretch, int(self._session.env.now)
        if stretch is None or stretch.over:
            return False
        if now >= stretch.stop_ns:
            self._session.end(stretch, self._ahead)  # the last bytes have left
            return False
        begun = min(stretch.start_ns, now)
        part = (now - begun) / (stretch.stop_ns - stretch.start_ns)
        left = self._to_send()
        whole = np.minimum(np.floor(left * part).astype(np.int64), np.maximum(left - 1, 0))
        sent = self._bytes(whole)
        self._behind = sent if self._behind is None else self._behind + sent
        self._left = left - whole
        stretch.busy_ns = stretch.busy_ns * part
        stretch.start_ns, stretch.stop_ns = begun, now
        self._session.end(stretch, sent)
        if part > 0:
            self._not_before_ns = max(self._not_before_ns, now + self._latency_ns)
        self._stretch = None
        return True

    def cut(self, gpu: int) -> NDArray[np.int64]:
        """Give up what has not left, to a GPU or from it; returns int64 [flows] bytes."""
        flows, left = self._flows(), self._to_send()
        if self._stretch is not None:  # all has left
            return np.zeros(len(flows), dtype=np.int64)
        mine = (flows.src == gpu) | (flows.dst == gpu)
        self._left = np.where(mine, 0, left)
        return np.where(mine & (flows.src != flows.dst), left, 0)

    def excuse(self, gpu: int) -> None:
        """Wait no longer for a GPU to send."""
        if gpu in self._unsent:
            self._unsent.remove(gpu)
            if not self._unsent:
                self.go()

    def reroute(self) -> None:
        """Route what is left anew."""
        if self._stretch is None:
            self._route()

    def go(self) -> None:
        """Move what is left, from now on."""
        self._turns += 1
        self._session.env.process(self._move(self._turns))

    def _to_send(self) -> NDArray[np.int64]:
        """int64 [flows]: bytes."""
        return self._flows().size_bytes if self._left is None else self._left

    def _bytes(self, size_bytes: NDArray[np.int64]) -> NDArray[Any]:
        """[links]: bytes that so much of every flow puts there, by the ways chosen when routed."""
        router, flows = self._router, self._flows()
        there = self._weighed() > 0
        src, dst, size, weighed = (
            each[there] for each in (flows.src, flows.dst, size_bytes, self._weighed())
        )
        if router.rule == "shares":
            return np.asarray(router.link_bytes(src, dst, size)[0])
        paths = router.paths(src, dst, size_bytes=weighed)
        carried: NDArray[np.int64] = np.zeros(router.cluster.links, dtype=np.int64)
        np.add.at(carried, paths.links, np.repeat(size, np.diff(paths.indptr)))
        return carried

    def _weighed(self) -> NDArray[np.int64]:
        """int64 [flows]: bytes that were left when the routes in force were taken.

        By these ``ugal`` chose the ways, which stay so while the routes do.
        """
        return self._flows().size_bytes if self._routed is None else self._routed

    def _route(self) -> None:
        """Route what is left over the links of now."""
        condition, flows, left = self._session.condition, self._flows(), self._to_send()
        if self._router is not condition.router:
            self._router, self._routed = condition.router, left
        ahead = left > 0
        condition.check_routes(flows.src[ahead], flows.dst[ahead])
        weighed = self._weighed()
        there = weighed > 0
        src, dst, size = (each[there] for each in (flows.src, flows.dst, weighed))
        latency = self._router.path_latency(src, dst, size_bytes=size)[ahead[there]]
        self._plan(self._router, self._bytes(left), ceil_ns(float(latency.max(initial=0.0))))

    def _plan(self, router: Router, ahead: NDArray[Any], latency_ns: int) -> None:
        """Note the routes, the bytes they put on links, and how long these take now."""
        self._router = router
        self._ahead = ahead
        self._ahead.setflags(write=False)
        self._busy_ns = ahead * 1e9 / self._session.condition.bandwidth_Bps
        self._transfer_ns = ceil(float(self._busy_ns.max(initial=0.0)) - 1e-6)
        self._latency_ns = latency_ns

    def _move(self, turn: int) -> Generator[simpy.Event, None, None]:
        """Move what is left, unless links change before it has arrived."""
        env, session = self._session.env, self._session
        if turn != self._turns:
            return
        if self._over_links:
            stretch = self._stretch = session.begin(self, self._busy_ns, self._transfer_ns)
            arrival = max(stretch.stop_ns + self._latency_ns, self._not_before_ns)
            yield env.timeout(arrival - int(env.now))
            if turn != self._turns:
                return
            if not stretch.over:
                session.end(stretch, self._ahead)
        self.ended_ns = int(env.now)
        session.close(self)
        self._end.succeed()
