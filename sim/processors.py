"""GPUs as serial resources: each computes one task at a time."""

from __future__ import annotations

from functools import partial
from heapq import heappop, heappush
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
            for gpu in gpus[~self._busy[gpus]].tolist():
                waited, of = heappop(self._queues[gpu])[1:]
                self._waiting[gpu] -= 1
                self._start(of, waited, np.array([gpu]))

    def _queue(self, batch: int, task: int, gpus: NDArray[np.int64]) -> None:
        self._waiting[gpus] += 1
        for gpu in gpus.tolist():
            heappush(self._queues.setdefault(gpu, []), (int(self._env.now), task, batch))

    def _start(self, batch: int, task: int, gpus: NDArray[np.int64]) -> None:
        self._busy[gpus] = True
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
        callbacks.append(partial(self._finish, batch, task, gpus))

    def _finish(self, batch: int, task: int, gpus: NDArray[np.int64], _: simpy.Event) -> None:
        self._busy[gpus] = False
        waited_for = self._waiting[gpus] > 0
        if np.count_nonzero(waited_for):
            self._freed.append(gpus[waited_for])
            self._decide_last()
        self._done(batch, task, gpus)
