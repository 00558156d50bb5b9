"""Fluid against packets, on the study's clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.clusters import study_clusters
from experiments.validation.jobs import messages, switch
from experiments.validation.line import Got
from sim import AnalyticNetwork, FluidNetwork, PacketNetwork
from sim.network import ExchangeMemory, IssueOrder
from topologies import Router

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sim.network import Flows

RANKS = 64
"""Every 4th of 256 GPUs."""
TOKENS = 128
CHOICES = 8
MESSAGE = 7408
"""DeepSeek-R1's dispatch."""
KINDS = ("uniform", "skewed")
_RUNS = ExchangeMemory()
"""Exact rates, which take long, are asked for beside every order."""


@dataclass(frozen=True, slots=True)
class Makespans:
    """One collective on every fidelity; times in ns, fluid's not rounded.

    Attributes
    ----------
    bound
        What its busiest link needs.
    sent
        When fluid's last byte left; `fluid` is when it arrived.
    packet
        In the order asked.
    differing_links
        Links whose bytes are not the same on all three networks.
    """

    bound: float
    sent: float
    fluid: float
    packet: float
    differing_links: int

    @property
    def meets_bound(self) -> bool:
        """Whether exact fluid takes no longer than the busiest link."""
        return self.sent <= self.bound * (1 + 1e-9)


def traffic(kind: str) -> Flows:
    """R1 dispatch between the ranks: 128 tokens each, 8 choices a token.

    ``uniform`` or ``skewed``: then some ranks are lognormally more popular (sigma 0.7).
    """
    rng = np.random.default_rng(7)
    share: NDArray[np.float64] = np.ones(RANKS)
    if kind == "skewed":
        share = rng.lognormal(0.0, 0.7, RANKS)
    count = rng.multinomial(TOKENS * CHOICES, share / share.sum(), RANKS)
    src, dst = np.nonzero(count)
    return messages(4 * src, 4 * dst, count[src, dst], MESSAGE)


def compare(router: Router, flows: Flows, order: str = "interleaved") -> Makespans:
    """Run a collective on every fidelity."""
    analytic = _RUNS.run(AnalyticNetwork(router), flows)
    fluid = _RUNS.run(FluidNetwork(router, steps=None), flows)
    packet = _RUNS.run(PacketNetwork(router, chunk_bytes=4096, order=order), flows)
    same = (fluid.link_bytes == packet.link_bytes) & (fluid.link_bytes == analytic.link_bytes)
    sent = fluid.delivered_ns - router.path_latency(flows.src, flows.dst) * 1e9
    return Makespans(
        bound=float((fluid.link_bytes / router.cluster.bandwidth_Bps).max()) * 1e9,
        sent=float(sent.max()),
        fluid=float(fluid.delivered_ns.max()),
        packet=float(packet.ended_ns),
        differing_links=int((~same).sum()),
    )


def makespans() -> Iterator[Got]:
    """Chunks in turn: as fluid says, on every cluster of the study."""
    for case, router, flows in _cases():
        found = compare(router, flows)
        yield Got("fidelity.bytes", found.differing_links, case)
        line = "bound" if found.meets_bound else "free"
        yield Got(f"fidelity.makespan.{line}", found.packet / found.fluid, case)
        yield Got("fidelity.never-below", found.bound / min(found.sent, found.packet), case)


def orders() -> Iterator[Got]:
    """Other orders of issue, which take their own time."""
    for case, router, flows in _cases():
        fluid = _RUNS.run(FluidNetwork(router, steps=None), flows)
        for order in IssueOrder:
            if order is not IssueOrder.INTERLEAVED:
                packet = _RUNS.run(PacketNetwork(router, order=order), flows)
                ratio = packet.ended_ns / float(fluid.delivered_ns.max())
                yield Got("fidelity.order", ratio, f"{case}, {order}")


def victim() -> Iterator[Got]:
    """Where the two must differ: FIFO serves a sender's flows in turn, max-min by need."""
    # Capacities of 4 B/ns; four flows into GPU 4, and the victim from GPU 0 to GPU 5.
    size = 1_200_000
    router = switch(6, 4e9)
    flows = messages([0, 1, 2, 3, 0], [4, 4, 4, 4, 5], [1, 1, 1, 1, 1], size)
    fluid = _RUNS.run(FluidNetwork(router, steps=None), flows)
    packet = _RUNS.run(PacketNetwork(router, chunk_bytes=1000), flows)
    yield Got("fidelity.victim.fluid", size / fluid.delivered_ns[4])
    yield Got("fidelity.victim.packet", size / packet.delivered_ns[4])


def _cases() -> Iterator[tuple[str, Router, Flows]]:
    for name, spec in study_clusters().items():
        router = Router(spec.build(), "hash")
        for kind in KINDS:
            yield f"{name}, {kind}", router, traffic(kind)
