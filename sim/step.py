"""One step: micro-batches through all MoE layers, GPUs waiting for their own messages.

SimPy carries causality alone. What happens to several GPUs at one time is one event, however
many tokens and messages there are.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import simpy

from sim.errors import SimulationError
from sim.part import Part
from sim.processors import Processors
from sim.turns import Turns, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sim.batch import Batch
    from sim.faults import FaultSchedule
    from sim.free import FreeSession
    from sim.network.protocol import Network, Session
    from sim.part import Plan
    from sim.turns import Overlap

    Gpus = NDArray[np.int64]


class Cut(NamedTuple):
    """Bytes that a collective under way lost when a GPU died.

    Attributes
    ----------
    at_ns, gpu
        When, and which.
    layer, leg
        Which collective; legs of all micro-batches, one after the other.
    lost_bytes
        int64 [flows] of that collective.
    """

    at_ns: int
    gpu: int
    layer: int
    leg: int
    lost_bytes: NDArray[np.int64]


def run_step(
    network: Network,
    plans: Sequence[Plan],
    faults: FaultSchedule | None = None,
    overlap: Overlap = "ready",
) -> tuple[Step, Session]:
    """Let a step happen on an idle network; return what happened, and the links' books."""
    env = simpy.Environment()
    session = network.open(env)
    step = Step(env, session, plans, overlap=overlap)
    if faults is not None:
        faults.drive(env, session, network.router.cluster.links)
        faults.drive_gpus(env, step.change_gpu)
    step.run()
    return step, session


class Step:
    """The causality of one step.

    Of every micro-batch and layer a GPU

    - computes attention when all results of the layer before are in (layer 0 at once);
    - sends a stage of the dispatch when its attention is done and all it receives in earlier
      stages is in;
    - computes its experts when all it receives in the dispatch is in, and its experts of the
      layer before are done;
    - sends a stage of the combine when that is done (where it receives nothing in the dispatch:
      at once) and all it receives in earlier stages is in.

    A layer is planned when the first GPU is to send its dispatch. When a GPU dies, layers under
    way go on without it: what has not left its sender, to it or from it, is lost, and nobody
    waits for it.

    The tail follows the results of the last layer. A GPU computes one task at a time, of all
    micro-batches; see `Processors`, and `Overlap` for micro-batches that take turns.

    Parameters
    ----------
    env
        Counts integer nanoseconds from 0.
    session
        The network.
    plans
        The micro-batches: a `Batch` each, or what plans it layer by layer.
    overlap
        Order of the micro-batches.
    patient
        As for `Processors`.
    """

    def __init__(
        self,
        env: simpy.Environment,
        session: Session | FreeSession,
        plans: Sequence[Plan],
        *,
        overlap: Overlap = "ready",
        patient: bool = False,
    ) -> None:
        self._env = env
        self._session: Any = session
        self._parts = [Part(session, plan) for plan in plans]
        self._in_turns = in_turns(overlap, len(plans))
        durations = [part.durations for part in self._parts]
        if self._in_turns:
            there = np.stack([part.tasks for part in self._parts])
            self._processors: Processors = Turns(
                env, durations, self._computed, there=there, patient=patient
            )
        else:
            self._processors = Processors(env, durations, self._computed, patient=patient)
        self._dead: set[int] = set()
        self.cuts: list[Cut] = []

    def run(self) -> None:
        """Let the step happen."""
        for number, part in enumerate(self._parts):
            self._processors.ready(number, 0, np.flatnonzero(part.attends[0]))
        self._env.run()
        for part in self._parts:
            part.check_ended()

    def change_gpu(self, gpu: int, *, alive: bool) -> None:
        """Let a GPU die or come back now.

        Raises
        ------
        SimulationError
            If micro-batches take turns, which are written down before the step.
        """
        if self._in_turns:
            raise SimulationError(
                f"GPU {gpu} {'comes back' if alive else 'dies'} during a step whose micro-batches "
                "take turns; expected overlap 'ready', or at_s = 0"
            )
        (self._dead.discard if alive else self._dead.add)(gpu)
        for number, part in enumerate(self._parts):
            part.plan.change(gpu, alive=alive)
            if part.issued and not alive:
                tail = self._processors.finished(number, 2 * part.layers, gpu)
                part.fall(gpu, delivered=tail)
                self._processors.stop(number, gpu)
        if alive:
            return
        lost = {id(each): size for each, size in self._session.cut(gpu)}
        first = 0
        for part in self._parts:
            for layer, legs in enumerate(part.collectives):
                for leg, each in enumerate(legs, start=first):
                    if id(each) in lost:
                        self.cuts.append(Cut(int(self._env.now), gpu, layer, leg, lost[id(each)]))
            first += part.legs

    def issued(self) -> list[list[Batch]]:
        """Return the plan of every layer, for every micro-batch."""
        return [part.issued for part in self._parts]

    def happened(self) -> list[Batch]:
        """Return what every micro-batch sent and computed."""
        return [part.happened() for part in self._parts]

    @property
    def end_ns(self) -> int:
        """When everything was in and computed."""
        _, end, active = self.spans()
        return max(int(end[active].max(initial=0)), int(self.collective_ns().max(initial=0)))

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """[micro-batches, tasks, gpus]: start and end of every task, and whether there was one."""
        processors = self._processors
        duration = np.stack([part.durations for part in self._parts])
        return processors.start_ns, processors.start_ns + duration, processors.active

    def collective_ns(self) -> NDArray[np.int64]:
        """int64 [layers, legs of all micro-batches, 2]: start and end."""
        return np.concatenate([part.collective_ns() for part in self._parts], axis=1)

    def link_bytes(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """[layers, legs of all micro-batches, links]: bytes."""
        return np.concatenate([part.link_bytes() for part in self._parts], axis=1)

    def _open(self, number: int) -> None:
        """Plan and register the next layer of a micro-batch.

        Layers open one by one, so that a network holds the messages of few at a time.
        """
        part = self._parts[number]
        layer = part.open(self._before(number))
        for gpu in sorted(self._dead) if layer == 0 else ():
            self._processors.stop(number, gpu)
        for leg, collective in enumerate(part.collectives[layer]):
            if collective is None:
                continue
            arrived = partial(self._arrived, number, layer, leg)
            listen: Any = getattr(collective, "listen", None)
            if listen is not None:
                listen(arrived)
                continue
            together: dict[simpy.Event, list[int]] = {}
            for gpu in np.flatnonzero(part.receives[leg, layer]).tolist():
                together.setdefault(collective.arrived(gpu), []).append(gpu)
            for event, gpus in together.items():
                callbacks: Any = event.callbacks
                callbacks.append(partial(_at, partial(arrived, np.array(gpus))))
        stranded = part.stranded[layer]
        if len(stranded):
            self._results_in(number, layer, stranded[~part.attends[layer, stranded]])

    def _arrived(self, number: int, layer: int, leg: int, gpus: Gpus) -> None:
        """Count what is in, and let GPUs go on that have all they waited for."""
        part = self._parts[number]
        for later in part.later_legs[leg]:
            self._send(number, layer, later, gpus)
        if leg < part.dispatch_legs:
            complete = _count_down(part.inputs[layer], gpus)
            self._inputs_in(number, layer, complete)
            return
        self._results_in(number, layer, gpus)

    def _results_in(self, number: int, layer: int, gpus: Gpus) -> None:
        """Count results, and let GPUs go on to the next layer that have them all."""
        part = self._parts[number]
        complete = _count_down(part.results[layer], gpus)
        if self._in_turns and len(complete):
            self._give_turn(number, layer, complete)
        after = part.attends[layer + 1]
        following = complete[after[complete]]
        if len(following):
            self._processors.ready(number, 2 * (layer + 1), following)

    def _before(self, number: int) -> tuple[Part, int] | None:
        """Return whose results a dispatch waits for, and how many layers these lie before it."""
        if not self._in_turns:
            return None
        return (self._parts[number - 1], 0) if number else (self._parts[-1], 1)

    def _give_turn(self, number: int, layer: int, gpus: Gpus) -> None:
        """Let the next micro-batch dispatch where the results of this one are in."""
        following = (number + 1) % len(self._parts)
        layer += following == 0
        part = self._parts[following]
        if layer < len(part.collectives):
            self._send(following, layer, 0, gpus[part.attends[layer][gpus]])

    def _inputs_in(self, number: int, layer: int, gpus: Gpus) -> None:
        if not len(gpus):
            return
        part = self._parts[number]
        computes = part.computes[layer][gpus]
        some = np.count_nonzero(computes)
        if some < len(gpus):
            self._release(number, layer, gpus[~computes])
        if some:
            self._processors.ready(number, 2 * layer + 1, gpus[computes])

    def _computed(self, number: int, task: int, gpus: Gpus) -> None:
        """Go on after a task."""
        part = self._parts[number]
        layer, experts = divmod(task, 2)
        if layer == part.layers:
            return
        if not experts:
            if layer == len(part.collectives):
                self._open(number)
            for leg in range(part.dispatch_legs):
                self._send(number, layer, leg, gpus)
            if len(part.stranded[layer]):
                self._results_in(number, layer, np.intersect1d(gpus, part.stranded[layer]))
            return
        self._release(number, layer, gpus)
        for later, waiting in part.experts_done(layer, gpus):
            self._inputs_in(number, later, _count_down(part.inputs[later], waiting))

    def _release(self, number: int, layer: int, gpus: Gpus) -> None:
        """Send results."""
        part = self._parts[number]
        for leg in range(part.dispatch_legs, part.legs):
            self._send(number, layer, leg, gpus)

    def _send(self, number: int, layer: int, leg: int, gpus: Gpus) -> None:
        """Count down what GPUs wait for before they send, and send where nothing is left."""
        part = self._parts[number]
        free = _count_down(part.holds[layer][leg], gpus)
        collective = part.collectives[layer][leg]
        if collective is None or not len(free):
            return
        senders = free[part.sends[leg, layer, free]]
        if not len(senders):
            return
        send_all: Any = getattr(collective, "send_all", None)
        if send_all is not None:
            send_all(senders)
            return
        for gpu in senders.tolist():
            collective.send(gpu)


def _count_down(left: NDArray[np.int64], gpus: Gpus) -> Gpus:
    """Count one down for every GPU; return those that come to zero."""
    still = left[gpus] - 1
    left[gpus] = still
    free: Gpus = gpus[still == 0]
    return free


def _at(act: Callable[[], None], _: simpy.Event) -> None:
    """Act when an event happens."""
    act()
