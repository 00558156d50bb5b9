"""Store-and-forward chunks through FIFO links: the network that makespans are verified on.

There is no loss and no congestion control, and buffers are unlimited: the network makes no
claim on tails under back-pressure.

The compiled kernel and SimPy run side by side. SimPy carries causality: who sends when. The
kernel carries volume: it advances through all chunk events before SimPy's next event (so that
whatever SimPy sends then is never in its past), or to the first GPU that has all its messages
(which SimPy then announces at that time). SimPy sees one event per receiving GPU and
collective and one wake-up per event of its own, however many tokens, messages or chunks there
are. What SimPy does in a nanosecond comes before what the kernel does in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import LawViolation, SimulationError
from sim.last import Last
from sim.network._arena import Arena, enlarged
from sim.network._packet_collective import PacketCollective, ordered_routes
from sim.network._packet_state import new_state, with_more_chunks
from sim.network.condition import Condition
from sim.network.issue import IssueOrder
from sim.network.usage import LinkUsage

if TYPE_CHECKING:
    from collections.abc import Generator

    import simpy
    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from topologies import Router

CLOCK_LIMIT_NS = 2**62
"""Times beyond (146 years) are refused: they could overflow int64."""

BANDWIDTH_LIMIT_BPS = 1e14
"""Faster links are refused: a byte would cross them in no time at all."""


@dataclass(frozen=True, slots=True)
class PacketNetwork:
    """Parameters of the packet network.

    Attributes
    ----------
    router
        Routes in force; single-path rules only.
    chunk_bytes
        Messages are cut into chunks of this size, the last one shorter.
    order
        Order in which a source issues its messages: an `IssueOrder` or its name.
    seed
        Of the order ``random``.
    bins
        Time bins for utilisation, even.
    """

    router: Router
    chunk_bytes: int = 4096
    order: IssueOrder | str = IssueOrder.INTERLEAVED
    seed: int = 0
    bins: int = 64
    name: str = "packet"

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be simulated."""
        if self.router.rule == "shares":
            raise SimulationError(
                "packet needs a single path per message and the routing rule is 'shares'; "
                "use 'hash', or the network 'analytic'"
            )
        if self.chunk_bytes < 1:
            raise SimulationError(f"chunk_bytes must be 1 or more, got {self.chunk_bytes}")
        if self.bins < 2 or self.bins % 2:
            raise SimulationError(f"bins must be an even number, got {self.bins}")
        fastest = float(self.router.cluster.bandwidth_Bps.max(initial=0.0))
        if fastest >= BANDWIDTH_LIMIT_BPS:
            raise SimulationError(
                f"packet counts whole nanoseconds and a link has {fastest:.3g} B/s; expected "
                f"below {BANDWIDTH_LIMIT_BPS:.0g}"
            )
        allowed = [str(order) for order in IssueOrder]
        if self.order not in allowed:
            raise SimulationError(f"order {self.order!r} is not one of {', '.join(allowed)}")
        object.__setattr__(self, "order", IssueOrder(self.order))

    def open(self, env: simpy.Environment) -> PacketSession:
        """Return the idle network of a new run."""
        return PacketSession(self, env)


class PacketSession:
    """The packet network during one run: the kernel's state and the process that drives it."""

    def __init__(self, network: PacketNetwork, env: simpy.Environment) -> None:
        # numba takes longer to import than the command line may take to print its help.
        from sim.network import _packet_kernel  # noqa: PLC0415

        self.env = env
        self.network = network
        self._kernel: Any = _packet_kernel
        self._rng = np.random.default_rng(network.seed)
        self.condition = Condition(network.router)
        cluster = network.router.cluster
        self._latency_ns = np.ceil(cluster.latency_s * 1e9 - 1e-6).astype(np.int64)
        self._slowest = float(cluster.bandwidth_Bps.min(initial=np.inf))
        self._work_ns = 0.0
        self._state = with_more_chunks(
            new_state(
                cluster.bandwidth_Bps,
                self._latency_ns,
                chunk_bytes=network.chunk_bytes,
                interleaved=network.order is IssueOrder.INTERLEAVED,
                bins=network.bins,
            )
        )
        self._arenas = {name: Arena() for name in _ARENAS}
        self._owner: dict[int, PacketCollective] = {}
        self._wake = env.event()
        env.process(self._drive())

    @property
    def crossings(self) -> int:
        """Links crossed so far, summed over chunks."""
        return int(self._state.header["crossings"][0])

    def collective(self, flows: Flows) -> PacketCollective:
        """Register flows with the kernel; nothing moves before `PacketCollective.send`."""
        self.condition.check_routes(flows.src, flows.dst)
        routes = ordered_routes(self.network, self.condition.router, flows, self._rng)
        self._refuse_overflow(flows, routes.hops)
        collective = PacketCollective(self, flows, routes)
        for inbox in collective.inboxes:
            self._owner[inbox] = collective
        return collective

    def usage(self) -> LinkUsage:
        """Return the links' books so far."""
        links, shift = self._state.links, int(self._state.header["bin_shift"][0])
        return LinkUsage(
            busy_ns=links["busy"].copy(),
            bin_ns=1 << shift,
            busy_bins_ns=self._state.busy.copy(),
            wait_ns=links["wait"].copy(),
            wait_max_ns=links["wait_max"].copy(),
            chunks=links["chunks"].copy(),
            phases=self.condition.phases(int(self.env.now), links["bytes"].copy()),
            resent_bytes=links["resent"].copy(),
        )

    def set_speeds(self, speed: NDArray[np.float64]) -> None:
        """Let links work at these shares of their bandwidth from now on.

        Chunks that sources have yet to issue take the paths of now. Chunks on their way keep
        theirs while it is alive and else go on from the next switch by a new one; those on a
        link that dies, see `sim.network._packet_fault_kernel`.

        Raises
        ------
        SimulationError
            If messages under way have no path any more.
        """
        from sim.network import _packet_fault_kernel as kernel  # noqa: PLC0415  loads numba

        now, condition = int(self.env.now), self.condition
        self._flush(now)
        sent = np.zeros(len(condition.speed), dtype=np.int64)
        kernel.count_sent(self._state, now, sent)
        moved = condition.change(now, speed, sent)
        rate, dead = condition.bandwidth_Bps, condition.dead
        self._work_ns *= max(1.0, self._slowest / float(rate.min(initial=np.inf)))
        self._slowest = min(self._slowest, float(rate.min(initial=np.inf)))
        self._refuse_clock(now + self._work_ns)
        if moved:
            for collective in dict.fromkeys(self._owner.values()):
                collective.reroute()
        pulled = np.empty(len(self._state.chunks), dtype=np.int64)
        pulled = pulled[: kernel.change_speeds(self._state, now, rate, dead, pulled)]
        if moved:
            self._redirect(pulled)
        kernel.rejoin(self._state, pulled, now)

    def cut(self, gpu: int) -> list[tuple[PacketCollective, NDArray[np.int64]]]:
        """Let a GPU die: what has not left its sender, to it or from it, is lost from now on.

        The chunk that a card sends, or has picked to send next, leaves whole.
        """
        from sim.network import _packet_cut_kernel as kernel  # noqa: PLC0415  loads numba

        now = int(self.env.now)
        self._flush(now)
        self._state.header["now"] = np.maximum(self._state.header["now"], now)
        touched = np.zeros(len(self._state.links), dtype=np.bool_)
        collectives = list(dict.fromkeys(self._owner.values()))
        lost = [(each, each.cut(gpu, partial(self._withdraw, touched))) for each in collectives]
        kernel.retime(self._state, now, touched)
        for collective, _ in lost:
            collective.excuse()
        return [(collective, size) for collective, size in lost if size.any()]

    def _withdraw(
        self, touched: NDArray[np.bool_], rows: tuple[int, int], gone: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Take flows off some injections (first, end); returns int64 [flows] bytes not issued."""
        from sim.network import _packet_cut_kernel as kernel  # noqa: PLC0415  loads numba

        lost: NDArray[np.int64] = np.zeros(len(gone), dtype=np.int64)
        kernel.withdraw(self._state, rows, gone, lost, touched)
        return lost

    def _flush(self, now: int) -> None:
        """Give a record to every injected chunk that has left by `now`."""
        from sim.network import _packet_fault_kernel as kernel  # noqa: PLC0415  loads numba

        while kernel.flush(self._state, now) != kernel.DONE:
            self._state = with_more_chunks(self._state)

    def _redirect(self, pulled: NDArray[np.int64]) -> None:
        """Give pulled chunks, and those with a dead link ahead, new paths."""
        from sim.network import _packet_fault_kernel as kernel  # noqa: PLC0415  loads numba

        cluster, state = self.network.router.cluster, self._state
        broken, on = np.empty((2, len(state.chunks)), dtype=np.int64)
        found = kernel.find_broken(state, self.condition.dead, broken, on)
        here = state.hops[state.chunks["hop"][pulled]]
        chunks = np.concatenate([pulled, broken[:found]])
        link = np.concatenate([here, on[:found]])
        node = np.concatenate([cluster.link_src[here], cluster.link_dst[on[:found]]])
        switch = node.astype(np.int64) - cluster.first_switch
        for collective in dict.fromkeys(self._owner.values()):
            own = collective.owns(state.chunks["flow"][chunks]) & (switch >= 0)
            if own.any():
                records = state.chunks[chunks[own]]
                collective.redirect(records, switch[own], link[own])
                state = self._state
                state.chunks[chunks[own]] = records
        inside = switch < 0
        kernel.follow(state, chunks[inside], node[inside].astype(np.int64), cluster.link_src)

    def reserve(self, what: str, length: int) -> tuple[int, NDArray[Any]]:
        """Reserve places in one of the state's arrays; returns the first and a view of them."""
        start = self._arenas[what].take(length)
        array = getattr(self._state, what)
        if start + length > len(array):
            array = enlarged(array, max(start + length, 2 * len(array)))
            self._state = self._state._replace(**{what: array})
        array[start : start + length] = 0
        return start, array[start : start + length]

    def view(self, what: str, start: int, length: int) -> NDArray[Any]:
        """Return places reserved before, where they are now."""
        places: NDArray[Any] = getattr(self._state, what)[start : start + length]
        return places

    def release(self, what: str, start: int, length: int) -> None:
        """Give reserved places back."""
        self._arenas[what].free(start, length)

    def inject(self, first: int, end: int) -> None:
        """Send the injections first..end-1 now."""
        now = int(self.env.now)
        if now + self._work_ns >= CLOCK_LIMIT_NS:
            raise SimulationError(f"packet clock overflow: {now + self._work_ns:.3g} ns")
        self._check(self._kernel.inject(self._state, first, end, now))
        if not self._wake.triggered:
            self._wake.succeed()

    def announce(self, inbox: int) -> None:
        """Tell the collective that owns an inbox that it is complete, now."""
        self._owner.pop(inbox).complete(inbox)

    def _drive(self) -> Generator[simpy.Event, None, None]:
        """Advance the kernel up to SimPy's next event, announcing what completes on the way."""
        while True:
            if self._state.header["heap_size"][0] == 0:
                self._wake = self.env.event()
                yield self._wake
            horizon = int(min(self.env.peek(), CLOCK_LIMIT_NS))
            inbox = self._advance(horizon - 1)
            if inbox is not None:
                completed_at = int(self._state.header["now"][0])
                if completed_at > self.env.now:
                    yield self.env.timeout(completed_at - self.env.now)
                self.announce(inbox)
            elif self._state.header["heap_size"][0]:
                yield Last(self.env, horizon - int(self.env.now))

    def _advance(self, until: int) -> int | None:
        while True:
            outcome = int(self._kernel.advance(self._state, until))
            if outcome == self._kernel.NEED_CHUNKS:
                self._state = with_more_chunks(self._state)
                continue
            self._check(outcome)
            return outcome if outcome >= 0 else None

    def _check(self, outcome: int) -> None:
        if outcome == self._kernel.BACKWARDS:
            raise LawViolation(
                f"time goes backwards: an event lies before {self._state.header['now'][0]} ns"
            )

    def _refuse_overflow(self, flows: Flows, hops: NDArray[np.int64]) -> None:
        """Bound the end of the run by making every crossing wait for all others."""
        chunks = -(-flows.message_bytes // self.network.chunk_bytes)
        crossings = float((flows.count * float(chunks)) @ hops)
        service = float(flows.size_bytes.astype(float) @ hops) * 1e9 / self._slowest
        self._work_ns += service + crossings * (1.0 + float(self._latency_ns.max(initial=0)))
        self._refuse_clock(self._work_ns)

    @staticmethod
    def _refuse_clock(until_ns: float) -> None:
        if until_ns >= CLOCK_LIMIT_NS:
            raise SimulationError(
                f"packet clock overflow: up to {until_ns:.3g} ns of work, the clock holds "
                f"{CLOCK_LIMIT_NS:.3g}"
            )


_ARENAS = ("flows", "hops", "injections", "inboxes", "link_bytes")
