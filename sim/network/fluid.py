"""Max-min fair rates that change as messages start and end: for congestion and overlap.

A flow is all that one GPU sends to another in a collective: one stream that keeps its way. All
flows under way share the links max-min fairly. A flow's last byte arrives when it has left,
plus the latency of its path.

The compiled kernel and SimPy run side by side, as in the packet network. Inside the kernel time
is a float64 of ns, exact to about 1e-15 of the clock; what GPUs see of it is rounded up to the
whole ns that SimPy counts. So what is simultaneous stays so although floating point differs in
its last bits, and nothing arrives before it can; `FluidCollective.delivered_ns` has the times
that are not rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import LawViolation, SimulationError
from sim.last import Last
from sim.network._arena import Arena
from sim.network._fluid_collective import FluidCollective
from sim.network._fluid_state import (
    ACCOUNT,
    BUNDLE,
    FIRST,
    LAST,
    NONE,
    new_state,
    with_room,
    with_rows,
)
from sim.network.condition import Condition
from sim.network.usage import LinkUsage

if TYPE_CHECKING:
    from collections.abc import Generator

    import simpy
    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from topologies import Router

CLOCK_LIMIT_NS = 2**53
"""Times beyond (104 days) are refused: float64 would not tell one ns from the next."""

ALMOST_WHOLE = 1e-6
"""What floating point may take from a whole byte."""

COLUMNS = ("way", "inbox", "delivery", "size", "latency")
"""What is known of a flow when it joins."""


@dataclass(frozen=True, slots=True)
class FluidNetwork:
    """Parameters of the fluid network; serves every routing rule.

    Attributes
    ----------
    router
        Routes in force.
    steps
        Rates are computed anew after 1/steps of the time that flows under way still need on
        average, when a flow has ended by then; None (exact): whenever a flow joins or ends.
        Where flows end together both give the same. What flows that have ended leave idle makes
        others late: the mean by about 0.8 / steps on a skewed all-to-all of 256 GPUs.
    bins
        Time bins for utilisation, even.
    """

    router: Router
    steps: int | None = 100
    bins: int = 64
    name: str = "fluid"

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be simulated."""
        if self.steps is not None and self.steps < 1:
            raise SimulationError(
                f"steps must be 1 or more, or None for exact rates; got {self.steps}"
            )
        if self.bins < 2 or self.bins % 2:
            raise SimulationError(f"bins must be an even number, got {self.bins}")

    def open(self, env: simpy.Environment) -> FluidSession:
        """Return the idle network of a new run."""
        return FluidSession(self, env)


class FluidSession:
    """The fluid network during one run: the kernel's state and the process that drives it."""

    def __init__(self, network: FluidNetwork, env: simpy.Environment) -> None:
        # numba takes longer to import than the command line may take to print its help.
        from sim.network import _fluid_kernel  # noqa: PLC0415

        self.env = env
        self.network = network
        self.condition = Condition(network.router)
        self.capacity = network.router.cluster.bandwidth_Bps * 1e-9
        self._kernel: Any = _fluid_kernel
        steps = np.inf if network.steps is None else float(network.steps)
        self._state = new_state(self.capacity, steps=steps, bins=network.bins)
        self._arenas = {
            name: Arena() for name in ("bundles", "entries", "inboxes", "delivered", "carried")
        }
        self._owner: dict[int, FluidCollective] = {}
        self._work_ns = 0.0
        self._sent = np.zeros(len(self.capacity))
        self._busy_before = np.zeros(len(self.capacity))
        self._wake = env.event()
        env.process(self._drive())

    @property
    def fillings(self) -> int:
        """How often rates were computed so far."""
        return int(self._state.header["fills"][0])

    def collective(self, flows: Flows) -> FluidCollective:
        """Register flows with the kernel; nothing moves before `FluidCollective.send`."""
        collective = FluidCollective(self, flows)
        for inbox in collective.inboxes:
            self._owner[inbox] = collective
        return collective

    def set_speeds(self, speed: NDArray[np.float64]) -> None:
        """Let links work at these shares of their bandwidth from now on.

        Where links have died or returned, flows move on over the paths of now. Whole bytes that
        they have sent count on the links that they used; the one on its way is sent again.

        Raises
        ------
        SimulationError
            If messages under way have no path any more.
        """
        now = int(self.env.now)
        self._kernel.settle(self._state, float(now))
        moved = self.condition.change(now, speed, self._sent_bytes())
        self.capacity = self.condition.bandwidth_Bps * 1e-9
        self._state.links.capacity[:] = self.capacity
        self._refuse_overflow(
            now + self._work_ns / float(self.condition.speed[~self.condition.dead].min(initial=1.0))
        )
        if moved:
            for collective in dict.fromkeys(self._owner.values()):
                collective.reroute()
        self._kernel.renew(self._state)

    def cut(self, gpu: int) -> list[tuple[FluidCollective, NDArray[np.int64]]]:
        """Let a GPU die: what has not left its sender, to it or from it, is lost from now on."""
        self._kernel.settle(self._state, float(self.env.now))
        collectives = list(dict.fromkeys(self._owner.values()))
        lost = [(collective, collective.cut(gpu)) for collective in collectives]
        self._kernel.renew(self._state)
        for collective, _ in lost:
            collective.excuse()
        return [(collective, size) for collective, size in lost if size.any()]

    def end_early(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """End flows under way with what they have sent; returns int64 [rows] bytes that are lost.

        The byte on its way is lost, unless floating point alone keeps it from being whole.
        """
        table, state, now = self._state.rows, self._state, float(self.env.now)
        whole = np.floor(table.size[rows] - table.rest[rows] + ALMOST_WHOLE)
        lost = (table.size[rows] - whole).astype(np.int64)
        self._count_sent(rows, whole)
        place = table.delivery[rows]
        last = np.where(whole > 0, now + table.latency[rows], now)
        state.delivered[place] = np.maximum(state.delivered[place], last)
        table.finish[rows] = self._kernel.FINISHED
        state.header["alive"] -= len(rows)
        self.miss(table.inbox[rows], state.delivered[place])
        return lost

    def miss(self, inbox: NDArray[Any], ready_ns: NDArray[np.float64]) -> None:
        """Let inboxes wait for a flow less each, known at some time."""
        np.subtract.at(self._state.inboxes["left"], inbox, 1)
        np.maximum.at(self._state.inboxes["ready"], inbox, ready_ns)

    def _sent_bytes(self) -> NDArray[np.float64]:
        """float64 [links]: sent so far, from the time that links were busy at the rates of then."""
        self._kernel.close_books(self._state)
        busy = self._state.links.busy
        self._sent += (busy - self._busy_before) * self.capacity
        self._busy_before = busy.copy()
        return self._sent

    def under_way(self, account: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of a collective's flows under way, and the places of their delivery."""
        table, rows = self._state.rows, int(self._state.header["rows"][0])
        own = np.flatnonzero(table.way[:rows, ACCOUNT] == account)
        return own, table.delivery[own].astype(np.int64)

    def move(self, rows: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> None:
        """Give flows under way other paths, and count what they have sent on the old ones."""
        table, state = self._state.rows, self._state
        whole = np.floor(table.size[rows] - table.rest[rows])
        self._count_sent(rows, whole)
        table.size[rows] -= whole
        table.rest[rows] = table.size[rows]
        begun = rows[whole > 0]
        last = float(self.env.now) + table.latency[begun]
        place = table.delivery[begun]
        state.delivered[place] = np.maximum(state.delivered[place], last)
        table.way[rows], table.latency[rows] = columns["way"], columns["latency"]

    def _count_sent(self, rows: NDArray[np.int64], whole: NDArray[np.float64]) -> None:
        """Count bytes [rows] on the links of their flows' paths."""
        state, way = self._state, self._state.rows.way[rows]
        for end in (FIRST, LAST):
            there = way[:, end] != NONE
            np.add.at(state.carried, (way[there, ACCOUNT], way[there, end]), whole[there])
        there = way[:, BUNDLE] != NONE
        np.add.at(state.bundles["carried"], way[there, BUNDLE], whole[there])

    def usage(self) -> LinkUsage:
        """Return the links' books so far."""
        sent = self._sent_bytes()
        links = self._state.links
        return LinkUsage(
            busy_ns=links.busy.copy(),
            bin_ns=1 << int(self._state.header["bin_shift"][0]),
            busy_bins_ns=links.bins.copy(),
            phases=self.condition.phases(int(self.env.now), sent.copy()),
        )

    def reserve(self, what: str, length: int) -> tuple[int, NDArray[Any]]:
        """Reserve places in one of the state's arrays; returns the first and a view of them."""
        start = self._arenas[what].take(length)
        self._state = with_room(self._state, what, start + length)
        places = self.view(what, start, length)
        places[:] = 0
        return start, places

    def view(self, what: str, start: int, length: int) -> NDArray[Any]:
        """Return places reserved before, where they are now."""
        places: NDArray[Any] = getattr(self._state, what)[start : start + length]
        return places

    def release(self, what: str, start: int, length: int) -> None:
        """Give reserved places back."""
        self.view(what, start, length)[:] = 0
        self._arenas[what].free(start, length)

    def expect(self, account: int, work_ns: float, need_ns: float) -> None:
        """Register what a collective takes: at most in all, and a flow of it on average.

        Raises
        ------
        SimulationError
            If the clock might not hold the end of the run.
        """
        self._work_ns += work_ns
        self._refuse_overflow(self._work_ns)
        patience = 0.0 if self.network.steps is None else need_ns / self.network.steps
        self._state.accounts["patience"][account] = patience

    def inject(self, columns: dict[str, NDArray[Any]], rows: slice) -> None:
        """Let flows join now."""
        count, now = rows.stop - rows.start, int(self.env.now)
        self._refuse_overflow(now + self._work_ns)
        self._state = with_rows(self._state, count)
        first = int(self._state.header["rows"][0])
        table = self._state.rows
        for name in COLUMNS:
            getattr(table, name)[first : first + count] = columns[name][rows]
        table.rest[first : first + count] = columns["size"][rows]
        if self._kernel.join(self._state, count, float(now)) != 0:
            was = self._state.header["now"][0]
            raise LawViolation(f"time goes backwards: flows join at {now} ns, before {was} ns")
        if not self._wake.triggered:
            self._wake.succeed()

    def announce(self, inbox: int) -> None:
        """Tell the collective that owns an inbox that it is complete, when all has arrived."""
        ready = float(self._state.inboxes["ready"][inbox])
        delay = ceil(ready - self._kernel.FORGIVEN_NS) - int(self.env.now)
        if delay <= 0:
            self._owner.pop(inbox).complete(inbox)
            return
        arrival = self.env.timeout(delay)
        arrival.callbacks.append(lambda _: self._owner.pop(inbox).complete(inbox))

    def _drive(self) -> Generator[simpy.Event, None, None]:
        """Advance the kernel up to SimPy's next event, announcing what completes on the way."""
        while True:
            if self._state.header["alive"][0] == 0:
                self._wake = self.env.event()
                yield self._wake
            horizon = int(min(self.env.peek(), CLOCK_LIMIT_NS))
            ready = np.empty(len(self._state.inboxes), dtype=np.int64)
            found = int(self._kernel.advance(self._state, float(horizon), ready))
            for inbox in ready[:found].tolist():
                self.announce(inbox)
            if not found and self._state.header["alive"][0]:
                yield Last(self.env, horizon - int(self.env.now))

    def _refuse_overflow(self, until_ns: float) -> None:
        if until_ns >= CLOCK_LIMIT_NS:
            raise SimulationError(
                f"fluid clock overflow: up to {until_ns:.3g} ns of work, the clock holds "
                f"{CLOCK_LIMIT_NS:.3g}"
            )
