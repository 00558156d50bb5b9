"""GPUs as serial resources: each computes one task at a time."""

from __future__ import annotations

from functools import partial
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.last import Last

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import simpy
    from numpy.typing import NDArray

    Done = Callable[[int, int, NDArray[np.int64]], None]


class Processors:
    """All GPUs of a cluster; tasks of equal duration that begin together are one event.

    A GPU takes its tasks in the order in which they become ready, those of one instant by
    (task, micro-batch). A task without duration takes no turn.

    Parameters
    ----------
    env
        Counts integer nanoseconds from 0.
    durations
        int64 [tasks, gpus] of every micro-batch.
    done
        Called with micro-batch, task and int64 [GPUs] that have just finished it.
    patient
        Whether a decision waits for all else that happens in its instant, and not only for what
        is under way. Not with networks that run up to SimPy's next event: they would wait too.
    """

    def __init__(
        self,
        env: simpy.Environment,
        durations: Sequence[NDArray[np.int64]],
        done: Done,
        *,
        patient: bool = False,
    ) -> None:
        self._env, self._durations, self._done, self._patient = env, durations, done, patient
        tasks, gpus = durations[0].shape
        self._busy = np.zeros(gpus, dtype=np.bool_)
        self._waiting = np.zeros(gpus, dtype=np.int64)
        self._queues: dict[int, list[tuple[int, int, int]]] = {}
        self._arrived: list[tuple[int, int, NDArray[np.int64]]] = []
        self._freed: list[NDArray[np.int64]] = []
        self._deciding = False
        self._batch_of, self._task_of = np.full((2, gpus), -1)
        self._stops = np.zeros(gpus, dtype=np.int64)
        self.start_ns = np.zeros((len(durations), tasks, gpus), dtype=np.int64)
        self.active = np.zeros((len(durations), tasks, gpus), dtype=np.bool_)

    def ready(self, batch: int, task: int, gpus: NDArray[np.int64]) -> None:
        """Let GPUs compute a task as soon as they are free."""
        self.active[batch, task, gpus] = True
        instant = self._durations[batch][task, gpus] == 0
        if instant.any():
            self.start_ns[batch, task, gpus[instant]] = self._env.now
            self._done(batch, task, gpus[instant])
            gpus = gpus[~instant]
        if len(gpus):
            self._arrived.append((task, batch, gpus))
            self._decide_last()

    def stop(self, batch: int, gpu: int) -> None:
        """Let a GPU compute nothing more of a micro-batch that it is to compute now or next.

        What it computes ends now, and what waits is no task any more.
        """
        current = int(self._task_of[gpu])
        if self._busy[gpu] and self._batch_of[gpu] == batch:
            started = self.start_ns[batch, current, gpu]
            self._durations[batch][current, gpu] = self._env.now - started
            self._busy[gpu] = False
            self._stops[gpu] += 1
        dropped = [task for _, task, of in self._queues.get(gpu, []) if of == batch]
        dropped += [task for task, of, gpus in self._arrived if of == batch and gpu in gpus]
        self.active[batch, dropped, gpu] = False
        self._forget(batch, gpu)
        if self._waiting[gpu] and not self._busy[gpu]:
            self._freed.append(np.array([gpu]))
            self._decide_last()

    def finished(self, batch: int, task: int, gpu: int) -> bool:
        """Whether a GPU has computed a task."""
        computing = self._busy[gpu] and (self._batch_of[gpu], self._task_of[gpu]) == (batch, task)
        waits = any(each[1:] == (task, batch) for each in self._queues.get(gpu, []))
        comes = any(each[:2] == (task, batch) and gpu in each[2] for each in self._arrived)
        return bool(self.active[batch, task, gpu]) and not (computing or waits or comes)

    def _forget(self, batch: int, gpu: int) -> None:
        """Take tasks of a micro-batch that a GPU has not begun off its queue."""
        if gpu in self._queues:
            self._queues[gpu] = [each for each in self._queues[gpu] if each[2] != batch]
            heapify(self._queues[gpu])
            self._waiting[gpu] = len(self._queues[gpu])
        arrived = [
            (task, of, gpus[gpus != gpu] if of == batch else gpus)
            for task, of, gpus in self._arrived
        ]
        self._arrived = [each for each in arrived if len(each[2])]

    def _decide_last(self) -> None:
        """Decide who goes on after the events of this instant that are under way."""
        if not self._deciding:
            self._deciding = True
            event = Last(self._env) if self._patient else self._env.timeout(0)
            callbacks: Any = event.callbacks
            callbacks.append(self._decide)

    def _decide(self, _: simpy.Event) -> None:
        self._deciding = False
        arrived, freed = self._arrived, self._freed
        self._arrived, self._freed = [], []
        for task, batch, gpus in sorted(arrived, key=lambda each: each[:2]):
            late = self._busy[gpus] | (self._waiting[gpus] > 0)
            if late.any():
                self._queue(batch, task, gpus[late])
            if not late.all():
                self._start(batch, task, gpus[~late])
        for gpus in freed:
            for gpu in gpus[~self._busy[gpus] & (self._waiting[gpus] > 0)].tolist():
                waited, of = heappop(self._queues[gpu])[1:]
                self._waiting[gpu] -= 1
                self._start(of, waited, np.array([gpu]))

    def _queue(self, batch: int, task: int, gpus: NDArray[np.int64]) -> None:
        self._waiting[gpus] += 1
        for gpu in gpus.tolist():
            heappush(self._queues.setdefault(gpu, []), (int(self._env.now), task, batch))

    def _start(self, batch: int, task: int, gpus: NDArray[np.int64]) -> None:
        self._busy[gpus] = True
        self._batch_of[gpus], self._task_of[gpus] = batch, task
        self.start_ns[batch, task, gpus] = self._env.now
        duration = self._durations[batch][task, gpus]
        if (duration == duration[0]).all():
            self._end_after(int(duration[0]), batch, task, gpus)
            return
        order = np.argsort(duration, kind="stable")
        cuts = np.flatnonzero(np.diff(duration[order])) + 1
        for cohort in np.split(order, cuts):
            self._end_after(int(duration[cohort[0]]), batch, task, gpus[cohort])

    def _end_after(self, duration: int, batch: int, task: int, gpus: NDArray[np.int64]) -> None:
        callbacks: Any = self._env.timeout(duration).callbacks
        callbacks.append(partial(self._end, batch, task, gpus, self._stops[gpus]))

    def _end(
        self,
        batch: int,
        task: int,
        gpus: NDArray[np.int64],
        stops: NDArray[np.int64],
        event: simpy.Event,
    ) -> None:
        """Finish a task where nothing has stopped it."""
        went_on = self._stops[gpus] == stops
        if not went_on.all():
            gpus = gpus[went_on]
        if len(gpus):
            self._finish(batch, task, gpus, event)

    def _finish(self, batch: int, task: int, gpus: NDArray[np.int64], _: simpy.Event) -> None:
        self._busy[gpus] = False
        waited_for = self._waiting[gpus] > 0
        if np.count_nonzero(waited_for):
            self._freed.append(gpus[waited_for])
            self._decide_last()
        self._done(batch, task, gpus)
