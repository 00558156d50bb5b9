"""Links and GPUs that slow down, die and come back: a schedule, and what is left after it.

What happens to bytes under way when a link changes is the network's matter (see `set_speeds` of
each): none is lost, and each counts once on every link that it crossed.

GPUs die and come back for a layer at the instant at which the first GPU of a micro-batch is to
send the layer's dispatch: then the layer is planned, and its messages and replicas stay so.

- Where a GPU is dead at that instant, replicas answer for its experts by the rule in force.
  Experts without a living replica are lost: the run is refused, or (``drop``) goes on without what
  they would have said, and counts these choices.
- In layers that are under way when a GPU dies, bytes to or from it that have not left their
  sender are lost (see `cut` of each network); those that have left it arrive. It computes and
  sends nothing more. The other GPUs compute and answer what they were planned to.
- Tokens that are on it then, or start or end a layer on it while it is dead, are lost: they send
  nothing in layers planned later, also when it comes back.
- A micro-batch that has planned no layer yet does not notice what happened before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import simpy

from sim.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray

    from sim.network.protocol import Session
    from topologies import Cluster

LATEST_S = 1e6
"""Later faults are refused: no step lasts so long."""

FIRST = -1
"""Priority of an event that comes before all others of its instant."""

LostExperts = Literal["refuse", "drop"]
"""What becomes of a step in which experts have no living replica."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of a link or a GPU; it stays so until the next one.

    Attributes
    ----------
    at_s
        Seconds from the start of the step, to the nanosecond.
    what
        ``link`` or ``gpu``.
    number
        Of the directed link, or the GPU.
    speed
        0 for a dead link or GPU, 1 for one that is back; a slow link works at this share of its
        bandwidth.

    Raises
    ------
    SimulationError
        If the time is negative or no number, or the speed is out of range.
    """

    at_s: float
    what: Literal["link", "gpu"]
    number: int
    speed: float

    def __post_init__(self) -> None:
        """Refuse what cannot happen."""
        if not (isfinite(self.at_s) and 0 <= self.at_s <= LATEST_S):
            raise SimulationError(
                f"fault at {self.at_s} s; expected a time from 0 to {LATEST_S:g} s of the step"
            )
        if self.what not in ("link", "gpu"):
            raise SimulationError(f"fault of a {self.what!r}; expected link or gpu")
        if not 0 <= self.speed <= 1:
            raise SimulationError(
                f"fault at {self.at_s} s: speed {self.speed}; expected 0 (dead) to 1 (back)"
            )
        if self.what == "gpu" and self.speed not in (0, 1):
            raise SimulationError(
                f"fault at {self.at_s} s: GPU {self.number} at speed {self.speed}; expected a GPU "
                "to be dead or back (only links slow down)"
            )

    @property
    def at_ns(self) -> int:
        """Whole ns from the start of the step."""
        return round(self.at_s * 1e9)


@dataclass(frozen=True, slots=True)
class FaultSchedule:
    """Faults of a step, in the order in which they happen.

    Attributes
    ----------
    faults
        The faults.
    lost_experts
        What becomes of a step in which experts have no living replica: ``refuse``, or ``drop``
        their tokens' choices and go on.

    Raises
    ------
    SimulationError
        If the times do not ascend, a GPU dies twice or comes back without having died, or
        `lost_experts` is none of the two.
    """

    faults: tuple[Fault, ...] = ()
    lost_experts: LostExperts = "refuse"

    def __post_init__(self) -> None:
        """Refuse a schedule that goes back in time, or that no GPU can follow."""
        if self.lost_experts not in get_args(LostExperts):
            raise SimulationError(
                f"lost_experts {self.lost_experts!r}; expected {' or '.join(get_args(LostExperts))}"
            )
        for number, (one, other) in enumerate(zip(self.faults, self.faults[1:], strict=False)):
            if other.at_s < one.at_s:
                raise SimulationError(
                    f"fault {number + 1} at {other.at_s} s follows one at {one.at_s} s; expected "
                    "times that ascend"
                )
        dead: set[int] = set()
        for fault in self._of("gpu"):
            if (fault.number in dead) == (fault.speed == 0):
                state = "is dead already" if fault.number in dead else "comes back, but is not dead"
                raise SimulationError(
                    f"fault at {fault.at_s} s: GPU {fault.number} {state}; expected every GPU to "
                    "die and come back in turn"
                )
            (dead.discard if fault.speed else dead.add)(fault.number)

    @property
    def of_gpus(self) -> bool:
        """Whether a GPU dies in it."""
        return bool(self._of("gpu"))

    @property
    def dead_at_start(self) -> frozenset[int]:
        """GPUs that are dead when the step begins."""
        speed = {fault.number: fault.speed for fault in self._of("gpu") if fault.at_ns == 0}
        return frozenset(gpu for gpu, each in speed.items() if each == 0)

    def check(self, cluster: Cluster) -> None:
        """Refuse faults of links and GPUs that the cluster does not have.

        Raises
        ------
        SimulationError
            Naming the first.
        """
        for fault in self.faults:
            there = cluster.links if fault.what == "link" else cluster.gpus
            if not 0 <= fault.number < there:
                raise SimulationError(
                    f"fault at {fault.at_s} s: {fault.what} {fault.number} does not exist; "
                    f"expected 0 to {there - 1} of {cluster.name!r}"
                )

    def drive(self, env: simpy.Environment, session: Session, links: int) -> None:
        """Let the faults of links happen to a network during a run."""
        if self._of("link"):
            env.process(self._happen(env, session, np.ones(links)))

    def drive_gpus(self, env: simpy.Environment, change: Callable[..., None]) -> None:
        """Have ``change(gpu, alive=...)`` called when GPUs die and come back after the start.

        Before all else of that instant.
        """
        for fault in self._of("gpu"):
            if fault.at_ns > 0:
                event = _First(env, fault.at_ns)
                callbacks: Any = event.callbacks
                act = partial(change, fault.number, alive=fault.speed > 0)
                callbacks.append(partial(_at, act))

    def _of(self, what: str) -> list[Fault]:
        return [fault for fault in self.faults if fault.what == what]

    def _happen(
        self, env: simpy.Environment, session: Session, speed: NDArray[np.float64]
    ) -> Generator[simpy.Event, None, None]:
        pending = self._of("link")
        while pending:
            now = pending[0].at_ns
            yield env.timeout(now - env.now)
            while pending and pending[0].at_ns == now:
                fault = pending.pop(0)
                speed[fault.number] = fault.speed
            session.set_speeds(speed.copy())


class _First(simpy.Event):
    """An event that comes before all others of its instant but those of its kind set before."""

    def __init__(self, env: simpy.Environment, at_ns: int) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=FIRST, delay=at_ns)  # type: ignore[arg-type]


def _at(act: Callable[[], None], _: simpy.Event) -> None:
    """Act when an event happens."""
    act()
