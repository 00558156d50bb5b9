"""One step: micro-batches through all MoE layers, GPUs waiting for their own messages.

SimPy carries causality alone. What happens to several GPUs at one time is one event, however
many tokens and messages there are.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from sim.errors import LawViolation
from sim.processors import Processors
from sim.turns import Turns, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sim.batch import Batch
    from sim.faults import FaultSchedule
    from sim.free import FreeSession
    from sim.network.protocol import Collective, Network, Session
    from sim.pairs import Surveyed
    from sim.turns import Overlap

    Gpus = NDArray[np.int64]


def run_step(
    network: Network,
    batches: Sequence[Batch],
    faults: FaultSchedule | None = None,
    overlap: Overlap = "ready",
) -> tuple[Step, Session]:
    """Let a step happen on an idle network; return what happened, and the links' books."""
    env = simpy.Environment()
    session = network.open(env)
    if faults is not None:
        faults.drive(env, session, network.router.cluster.links)
    step = Step(env, session, batches, overlap=overlap)
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

    The tail follows the results of the last layer. A GPU computes one task at a time, of all
    micro-batches; see `Processors`, and `Overlap` for micro-batches that take turns.

    Parameters
    ----------
    env
        Counts integer nanoseconds from 0.
    session
        The network.
    batches
        The micro-batches.
    overlap
        Order of the micro-batches.
    patient
        As for `Processors`.
    """

    def __init__(
        self,
        env: simpy.Environment,
        session: Session | FreeSession,
        batches: Sequence[Batch],
        *,
        overlap: Overlap = "ready",
        patient: bool = False,
    ) -> None:
        self._env = env
        self._parts = [_Part(session, batch) for batch in batches]
        self._in_turns = in_turns(overlap, len(batches))
        durations = [part.durations for part in self._parts]
        if self._in_turns:
            there = np.stack([part.tasks for part in self._parts])
            self._processors: Processors = Turns(
                env, durations, self._computed, there=there, patient=patient
            )
        else:
            self._processors = Processors(env, durations, self._computed, patient=patient)
        for number in range(len(batches)):
            self._open(number)

    def run(self) -> None:
        """Let the step happen."""
        for number, part in enumerate(self._parts):
            self._processors.ready(number, 0, np.flatnonzero(part.attends[0]))
        self._env.run()
        for part in self._parts:
            part.check_ended()

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
        """Register the next layer of a micro-batch.

        Layers open one by one, so that a network holds the messages of few at a time.
        """
        part = self._parts[number]
        layer = part.open(self._before(number))
        for leg, collective in enumerate(part.collectives[layer]):
            if collective is None:
                continue
            arrived = partial(self._arrived, number, layer, leg)
            listen: Any = getattr(collective, "listen", None)
            if listen is not None:
                listen(arrived)
                continue
            together: dict[simpy.Event, list[int]] = {}
            for gpu in np.flatnonzero(part.receives[leg][layer]).tolist():
                together.setdefault(collective.arrived(gpu), []).append(gpu)
            for event, gpus in together.items():
                callbacks: Any = event.callbacks
                callbacks.append(partial(_at, partial(arrived, np.array(gpus))))

    def _arrived(self, number: int, layer: int, leg: int, gpus: Gpus) -> None:
        """Count what is in, and let GPUs go on that have all they waited for."""
        part = self._parts[number]
        for later in part.later_legs[leg]:
            self._send(number, layer, later, gpus)
        if leg < part.dispatch_legs:
            complete = _count_down(part.inputs[layer], gpus)
            self._inputs_in(number, layer, complete)
            return
        complete = _count_down(part.results[layer], gpus)
        if self._in_turns and len(complete):
            self._give_turn(number, layer, complete)
        after = part.attends[layer + 1]
        following = complete[after[complete]]
        if len(following):
            self._processors.ready(number, 2 * (layer + 1), following)

    def _before(self, number: int) -> tuple[_Part, int] | None:
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
            for leg in range(part.dispatch_legs):
                self._send(number, layer, leg, gpus)
            return
        self._release(number, layer, gpus)
        for later, waiting in part.experts_done(layer, gpus):
            self._inputs_in(number, later, _count_down(part.inputs[later], waiting))

    def _release(self, number: int, layer: int, gpus: Gpus) -> None:
        """Send results; the next layer opens before the first of them leaves."""
        part = self._parts[number]
        if layer + 1 == len(part.collectives) < part.layers:
            self._open(number)
        for leg in range(part.dispatch_legs, part.legs):
            self._send(number, layer, leg, gpus)

    def _send(self, number: int, layer: int, leg: int, gpus: Gpus) -> None:
        """Count down what GPUs wait for before they send, and send where nothing is left."""
        part = self._parts[number]
        free = _count_down(part.holds[layer][leg], gpus)
        collective = part.collectives[layer][leg]
        if collective is None or not len(free):
            return
        senders = free[part.sends[leg][layer][free]]
        if not len(senders):
            return
        send_all: Any = getattr(collective, "send_all", None)
        if send_all is not None:
            send_all(senders)
            return
        for gpu in senders.tolist():
            collective.send(gpu)


class _Part:
    """One micro-batch of the step: who takes part in what, and what is waited for.

    `holds[layer][leg]`, `inputs[layer]` and `results[layer]` count for every GPU what it still
    waits for before it sends a leg, computes its experts, and goes on to the next layer.
    """

    def __init__(self, session: Session | FreeSession, batch: Batch) -> None:
        self._session, legs = session, batch.legs
        self.layers, gpus = batch.gpu_tokens.shape
        self.legs, self.dispatch_legs = len(legs), batch.dispatch_legs
        self.durations = batch.durations()
        self.sends = [each.sends for each in legs]
        self.receives = [each.receives for each in legs]
        self.computes = batch.gpu_tokens > 0
        last = np.any([self.receives[leg][-1] for leg in range(self.dispatch_legs, self.legs)], 0)
        self.attends = np.vstack((batch.exchange.origin_tokens > 0, last))
        self.later_legs = [
            range(leg + 1, self.dispatch_legs if leg < self.dispatch_legs else self.legs)
            for leg in range(self.legs)
        ]
        self._openers = [_opener(session, each) for each in legs]
        self.collectives: list[list[Collective | None]] = []
        self.holds: list[NDArray[np.int64]] = []
        self.inputs: list[NDArray[np.int64]] = []
        self.results: list[NDArray[np.int64]] = []
        self._done = np.zeros((self.layers, gpus), dtype=np.bool_)
        self._latest = np.full(gpus, -1)
        self._follower = np.full((self.layers, gpus), -1)

    @property
    def tasks(self) -> NDArray[np.bool_]:
        """bool [tasks, gpus]: what GPUs will compute."""
        both = np.stack((self.attends[:-1], self.computes), axis=1)
        rows: NDArray[np.bool_] = both.reshape(-1, both.shape[2])
        return np.vstack((rows, self.attends[-1]))

    def open(self, before: tuple[_Part, int] | None = None) -> int:
        """Register the collectives of the next layer, and count what is waited for in it.

        Parameters
        ----------
        before
            Micro-batch whose results the dispatch waits for, and how many layers earlier.
        """
        layer = len(self.collectives)
        self.collectives.append([each(layer) for each in self._openers])
        received = np.array([each[layer] for each in self.receives], dtype=np.int64)
        out, back = received[: self.dispatch_legs], received[self.dispatch_legs :]
        inputs = out.sum(axis=0)
        holds = np.zeros_like(received)
        holds[: self.dispatch_legs] = _before(out) + self.attends[layer]
        if before is not None:
            other, earlier = before
            holds[0] += other.awaits_results(layer - earlier) & self.attends[layer]
        holds[self.dispatch_legs :] = _before(back) + (inputs > 0)
        self._check(layer, holds, inputs)
        self.holds.append(holds)
        self.inputs.append(inputs + self._follow(layer))
        self.results.append(back.sum(axis=0))
        return layer

    def awaits_results(self, layer: int) -> NDArray[np.bool_]:
        """bool [gpus]: who has yet to receive results of a layer; nobody of a layer before 0."""
        if layer < len(self.results):
            return self.results[layer] > 0 if layer >= 0 else np.zeros_like(self.attends[0])
        legs = range(self.dispatch_legs, self.legs)
        found: NDArray[np.bool_] = np.any([self.receives[leg][layer] for leg in legs], axis=0)
        return found

    def experts_done(self, layer: int, gpus: Gpus) -> list[tuple[int, Gpus]]:
        """Note that experts are done; return later layers of GPUs that waited for that."""
        self._done[layer, gpus] = True
        after = self._follower[layer, gpus]
        if not np.count_nonzero(after != after[0]):
            return [(int(after[0]), gpus)] if after[0] >= 0 else []
        return [(int(each), gpus[after == each]) for each in np.unique(after[after >= 0])]

    def check_ended(self) -> None:
        """Refuse a step that stopped before its end."""
        for number in range(self.layers):
            ended = number < len(self.collectives) and all(
                each is None or each.ended_ns is not None for each in self.collectives[number]
            )
            if not ended:
                raise LawViolation(f"layer {number}: the results were not all delivered")

    def collective_ns(self) -> NDArray[np.int64]:
        """int64 [layers, legs, 2]: start and end; of an empty leg, the end of the one before."""
        times = np.zeros((self.layers, self.legs, 2), dtype=np.int64)
        last = 0
        for layer, legs in enumerate(self.collectives):
            for leg, each in enumerate(legs):
                if each is None or each.started_ns is None or each.ended_ns is None:
                    times[layer, leg] = last
                    continue
                times[layer, leg] = each.started_ns, each.ended_ns
                last = each.ended_ns
        return times

    def link_bytes(self) -> NDArray[Any]:
        """[layers, legs, links]."""
        some = next(each for each in self.collectives[0] if each is not None)
        none = np.zeros_like(some.link_bytes)
        return np.array(
            [
                [none if each is None else each.link_bytes for each in legs]
                for legs in self.collectives
            ]
        )

    def _follow(self, layer: int) -> NDArray[np.bool_]:
        """Let experts wait for those of the GPU's layer before, where these are not done."""
        gpu = np.flatnonzero(self.computes[layer])
        before = self._latest[gpu]
        open_still = (before >= 0) & ~self._done[before, gpu]
        waiting = np.zeros(len(self._latest), dtype=np.bool_)
        waiting[gpu[open_still]] = True
        self._follower[before[open_still], gpu[open_still]] = layer
        self._latest[gpu] = layer
        return waiting

    def _check(self, layer: int, holds: NDArray[np.int64], inputs: NDArray[np.int64]) -> None:
        """Refuse what would never be sent or computed."""
        for leg in range(self.legs):
            lost = self.sends[leg][layer] & (holds[leg] == 0)
            if lost.any():
                raise LawViolation(
                    f"layer {layer}: GPU {lost.argmax()} sends in stage {leg} without a token of "
                    "its own or a message before"
                )
        idle = self.computes[layer] & (inputs == 0)
        if idle.any():
            raise LawViolation(
                f"layer {layer}: GPU {idle.argmax()} has tokens for its experts, but no message"
            )


def _opener(session: Any, leg: Surveyed) -> Callable[[int], Collective | None]:
    """Return what registers the collective of a layer; None where there are no messages."""
    foresee: Any = getattr(session, "foresee", None)
    if foresee is not None:
        return foresee(leg)  # type: ignore[no-any-return]
    traffic, rows = leg.traffic, np.diff(leg.traffic.indptr)
    return lambda layer: session.collective(traffic.layer(layer)) if rows[layer] else None


def _before(received: NDArray[np.int64]) -> NDArray[np.int64]:
    """[stages, gpus]: stages before in which a GPU receives."""
    earlier: NDArray[np.int64] = np.cumsum(received, axis=0) - received
    return earlier


def _count_down(left: NDArray[np.int64], gpus: Gpus) -> Gpus:
    """Count one down for every GPU; return those that come to zero."""
    still = left[gpus] - 1
    left[gpus] = still
    free: Gpus = gpus[still == 0]
    return free


def _at(act: Callable[[], None], _: simpy.Event) -> None:
    """Act when an event happens."""
    act()
