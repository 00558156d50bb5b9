"""How well every link works: what networks share of faults.

A link works at a share of its bandwidth, its *speed*: 1 as built, 0 when it is dead. When that
changes, messages under way and those to come are routed anew over the links that are not dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import LawViolation, SimulationError
from sim.network.usage import Phase

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from topologies import Router

NAMED = 8
"""GPUs that a message lists."""


class Condition:
    """The links during one run: their speeds, the routes in force, and what was sent when.

    Attributes
    ----------
    router
        Routes in force.
    speed
        float64 [links].
    bandwidth_Bps
        float64 [links]: of now; of a dead link, which nothing crosses, as built.

    Parameters
    ----------
    router
        Routes over the intact cluster.
    """

    def __init__(self, router: Router) -> None:
        self._intact = router
        self.router = router
        self.speed = np.ones(router.cluster.links)
        self.bandwidth_Bps = router.cluster.bandwidth_Bps
        self._phases: list[Phase] = []
        self._since_ns = 0
        self._sent: NDArray[Any] = np.zeros(router.cluster.links)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """bool [links]."""
        dead: NDArray[np.bool_] = self.speed == 0
        return dead

    def change(self, now_ns: int, speed: ArrayLike, sent_bytes: NDArray[Any]) -> bool:
        """Let links work at other speeds from now on; returns whether routes differ.

        Parameters
        ----------
        now_ns
            The time.
        speed
            [links], 0 to 1.
        sent_bytes
            [links]: all that links have sent so far.

        Raises
        ------
        SimulationError
            If a speed is not from 0 to 1, or there is not one for every link.
        """
        given = np.array(speed, dtype=np.float64)
        if given.shape != self.speed.shape or not ((given >= 0) & (given <= 1)).all():
            raise SimulationError(
                f"speeds of links have the shape {given.shape} and values {given.min()} to "
                f"{given.max()}; expected {self.speed.shape} from 0 (dead) to 1 (as built)"
            )
        self._phases.append(self._phase(now_ns, sent_bytes))
        self._since_ns, self._sent = now_ns, sent_bytes.copy()
        self.speed = given
        self.bandwidth_Bps = self._intact.cluster.bandwidth_Bps * np.where(given > 0, given, 1.0)
        before, self.router = self.router, self._intact.without(np.flatnonzero(given == 0))
        return self.router is not before

    def phases(self, now_ns: int, sent_bytes: NDArray[Any]) -> tuple[Phase, ...]:
        """Return the stretches of the run between changes; none where nothing changed."""
        if not self._phases:
            return ()
        return (*self._phases, self._phase(now_ns, sent_bytes))

    def check_routes(self, src: NDArray[Any], dst: NDArray[Any]) -> None:
        """Refuse messages between GPUs that the links that are left do not join.

        Raises
        ------
        SimulationError
            If there are any.
        """
        if self.dead.any():
            there = self.router.has_route(src, dst)
            if not there.all():
                raise SimulationError(_partition(np.stack([src[~there], dst[~there]])))

    def _phase(self, end_ns: int, sent_bytes: NDArray[Any]) -> Phase:
        return Phase(self._since_ns, end_ns, self.speed, sent_bytes - self._sent)


def _partition(ends: NDArray[Any]) -> str:
    """Name a pair [2, pairs], and the GPUs (few, found greedily) that all pairs have in common."""
    pair = ends[:, 0].tolist()
    cut: list[int] = []
    while ends.size:
        cut.append(int(np.bincount(ends.ravel()).argmax()))
        ends = ends[:, (ends != cut[-1]).all(axis=0)]
    cut.sort()
    more = f" and {len(cut) - NAMED} more" if len(cut) > NAMED else ""
    return (
        f"partition: no path of living links for the message from GPU {pair[0]} to GPU {pair[1]}; "
        f"cut off: GPU {', '.join(map(str, cut[:NAMED]))}{more}; expected a fault schedule that "
        "leaves a path between GPUs that talk"
    )


def check_phases(phases: tuple[Phase, ...], bandwidth_Bps: NDArray[Any], slack: float) -> None:  # noqa: N803  bytes per second
    """No link sends more than it can at the speed of the moment, and a dead one nothing.

    Parameters
    ----------
    phases
        Of a run.
    bandwidth_Bps
        [links], as built.
    slack
        Bytes that may count in the phase in which their last one left: one chunk, on packet.

    Raises
    ------
    LawViolation
        With the first link above its capacity.
    """
    for phase in phases:
        room = bandwidth_Bps * phase.speed * (phase.end_ns - phase.start_ns) * 1e-9
        most = np.where(phase.speed > 0, room * (1 + 1e-9) + 1e-3 + slack, 1e-3)
        above = phase.sent_bytes > most
        if above.any():
            link = int(above.argmax())
            raise LawViolation(
                f"link {link} sent {phase.sent_bytes[link]} bytes from {phase.start_ns} to "
                f"{phase.end_ns} ns at {phase.speed[link]:g} of its bandwidth: {room[link]} fit"
            )
