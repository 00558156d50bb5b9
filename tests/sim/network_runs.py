"""Runs of collectives on every network, and what they showed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from hypothesis import strategies as st

from sim import AnalyticNetwork, FluidNetwork, PacketNetwork
from sim.network import Flows

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.faults import FaultSchedule
    from sim.network import LinkUsage, Network
    from topologies import Router

NETWORKS: dict[str, Callable[[Router], Network]] = {
    "analytic": AnalyticNetwork,
    "fluid": FluidNetwork,
    "fluid-exact": partial(FluidNetwork, steps=None),
    "packet": PacketNetwork,
    "packet-shifted": partial(PacketNetwork, order="shifted", chunk_bytes=1000),
}
Part = tuple[Flows, dict[int, int]]
"""A collective, and when each of its sources sends."""


class Seen:
    """What a run of some collectives showed, under faults if there is a schedule."""

    def __init__(
        self, network: Network, given_parts: list[Part], schedule: FaultSchedule | None = None
    ) -> None:
        self.env = simpy.Environment()
        self.session = network.open(self.env)
        if schedule is not None:
            schedule.check(network.router.cluster)
            schedule.drive(self.env, self.session, network.router.cluster.links)
        self.collectives = [self.session.collective(flows) for flows, _ in given_parts]
        self.arrivals: list[dict[int, int]] = [{} for _ in given_parts]
        for number, (flows, starts) in enumerate(given_parts):
            for gpu in np.unique(flows.dst).tolist():
                self.env.process(self._watch(number, gpu))
            for gpu, at in starts.items():
                self.env.process(self._send(number, gpu, at))
        self.env.run()
        self.usage: LinkUsage = self.session.usage()

    def _watch(self, number: int, gpu: int) -> Any:
        yield self.collectives[number].arrived(gpu)
        self.arrivals[number][gpu] = self.env.now

    def _send(self, number: int, gpu: int, at: int) -> Any:
        yield self.env.timeout(at)
        self.collectives[number].send(gpu)

    def books(self) -> tuple[Any, ...]:
        """Everything that must not differ from run to run."""
        return (
            self.arrivals,
            [(each.started_ns, each.ended_ns) for each in self.collectives],
            [each.link_bytes.tolist() for each in self.collectives],
            self.usage.busy_ns.tolist(),
            self.usage.busy_bins_ns.tolist(),
        )


@st.composite
def parts(draw: st.DrawFn, *, most: int = 3) -> list[Part]:
    """Some collectives between the ring's 10 GPUs, to themselves too."""
    found = []
    for _ in range(draw(st.integers(1, most))):
        pair = st.tuples(st.integers(0, 9), st.integers(0, 9))
        pairs = draw(st.lists(pair, min_size=1, max_size=20, unique=True))
        src, dst = zip(*pairs, strict=True)
        count = draw(st.lists(st.integers(1, 5), min_size=len(pairs), max_size=len(pairs)))
        starts = {gpu: draw(st.integers(0, 20_000)) for gpu in sorted(set(src))}
        found.append((Flows(src, dst, count, draw(st.integers(1, 20_000))), starts))
    return found
