"""Exchanges on an idle network, each computed once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from sim.network.protocol import Collective, Network
    from sim.network.usage import LinkUsage

MAX_RESULTS, MAX_BYTES = 256, 1 << 28
"""Exchanges remembered, and bytes of all their arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Exchanged:
    """One collective on an idle network, all of it sent at time 0.

    Attributes
    ----------
    ended_ns
        When the last GPU had everything.
    receivers, arrived_ns
        int64 [receivers]: GPUs that are sent to, ascending, and when each had everything.
    link_bytes
        int64 or float64 [links].
    delivered_ns
        [flows]: when each flow's last byte arrived; on analytic, which moves all as one, when its
        GPU had everything.
    usage
        The links' books.
    counts
        What else the network counted: ``fillings`` of fluid, ``crossings`` of packet.
    """

    ended_ns: int
    receivers: NDArray[np.int64]
    arrived_ns: NDArray[np.int64]
    link_bytes: NDArray[Any]
    delivered_ns: NDArray[Any]
    usage: LinkUsage
    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        """Freeze the arrays, which all who ask share."""
        for array in (self.receivers, self.arrived_ns, self.link_bytes, self.delivered_ns):
            array.setflags(write=False)

    @property
    def held_bytes(self) -> int:
        """Bytes of the arrays."""
        books = (getattr(self.usage, each.name) for each in fields(self.usage))
        arrays = (self.receivers, self.arrived_ns, self.link_bytes, self.delivered_ns, *books)
        return sum(each.nbytes for each in arrays if isinstance(each, np.ndarray))


class ExchangeMemory:
    """Exchanges by network, links' speeds and messages; the least recently asked forgotten first.

    It serves every network, and nothing that has a past or a rival: the network is idle before an
    exchange, all messages are sent at once, and links keep their speeds till its end. Networks,
    routes and messages are the same when all that they consist of is the same. In a step GPUs
    send when they are ready and collectives overlap, so that steps are not served from here.

    Attributes
    ----------
    computed
        Exchanges that were not remembered.

    Parameters
    ----------
    most, most_bytes
        Exchanges remembered, and bytes of their arrays; with `most` 0 each is computed anew.
    """

    def __init__(self, *, most: int = MAX_RESULTS, most_bytes: int = MAX_BYTES) -> None:
        self.computed = 0
        self._most, self._most_bytes = most, most_bytes
        self._known: OrderedDict[tuple[Any, ...], Exchanged] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        return len(self._known)

    def run(
        self, network: Network, flows: Flows, speed: NDArray[np.float64] | None = None
    ) -> Exchanged:
        """Return what an exchange does, computed now or before.

        Parameters
        ----------
        network
            A network of this package, or any whose parameters are a dataclass.
        flows
            What is sent at time 0.
        speed
            Shares [links] of their bandwidth that links work at; as built by default.

        Raises
        ------
        SimulationError
            If GPUs that talk have no path of living links.
        """
        links = network.router.cluster.links
        share = np.ones(links) if speed is None else np.asarray(speed, dtype=np.float64)
        key = _key(network, flows, share)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        found = _exchange(network, flows, share)
        self.computed += 1
        self._known[key] = found
        self._held += found.held_bytes
        while len(self._known) > self._most or self._held > self._most_bytes:
            self._held -= self._known.popitem(last=False)[1].held_bytes
        return found


def _key(network: Any, flows: Flows, speed: NDArray[np.float64]) -> tuple[Any, ...]:
    """Return all that decides an exchange: parameters as they are, arrays by their digest."""
    router = network.router
    routes = (router.rule, router.seed, router.rail_rule, router.dead_links)
    digest = blake2b(digest_size=16)
    for part in (_parts(router.cluster), routes, _parts(flows), (speed,)):
        for value in part:
            array = isinstance(value, np.ndarray)
            text = f"{value.dtype}{value.shape}" if array else repr(value)
            digest.update(f"{len(text)} {text}".encode())
            if array:
                digest.update(np.ascontiguousarray(value).data)
    own = tuple(getattr(network, each.name) for each in fields(network) if each.name != "router")
    return (type(network), own, digest.digest())


def _parts(whole: Any) -> list[Any]:
    return [getattr(whole, each.name) for each in fields(whole)]


def _exchange(network: Network, flows: Flows, speed: NDArray[np.float64]) -> Exchanged:
    env = simpy.Environment()
    session: Any = network.open(env)
    if (speed != 1).any():
        session.set_speeds(speed)
    collective = session.collective(flows)
    receivers = np.unique(flows.dst).astype(np.int64)
    arrived = np.zeros(len(receivers), dtype=np.int64)
    for place, gpu in enumerate(receivers.tolist()):
        _note(env, collective, gpu, (arrived, place))
    for gpu in np.unique(flows.src).tolist():
        collective.send(gpu)
    env.run()
    own = arrived[np.searchsorted(receivers, flows.dst)]
    names = [each for each in ("fillings", "crossings") if hasattr(session, each)]
    return Exchanged(
        ended_ns=int(collective.ended_ns),
        receivers=receivers,
        arrived_ns=arrived,
        link_bytes=collective.link_bytes,
        delivered_ns=getattr(collective, "delivered_ns", own),
        usage=session.usage(),
        counts={each: getattr(session, each) for each in names},
    )


def _note(
    env: simpy.Environment,
    collective: Collective,
    gpu: int,
    cell: tuple[NDArray[np.int64], int],
) -> None:
    """Write down when a GPU has everything."""

    def arrive(_: simpy.Event) -> None:
        array, place = cell
        array[place] = env.now

    callbacks: Any = collective.arrived(gpu).callbacks
    callbacks.append(arrive)
