"""Micro-batches in turns: every GPU computes in an order written down beforehand, and waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from sim.errors import SimulationError
from sim.processors import Processors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import simpy
    from numpy.typing import NDArray

    from sim.processors import Done

Overlap: TypeAlias = Literal["ready", "turns"]
"""What a GPU of several micro-batches does next.

``ready``: whatever can be done first, messages of one micro-batch beside those of another: what
an ideal engine would do. ``turns``: attention and experts of one micro-batch, then those of the
next, layer by layer; the GPU waits where its messages are late, and dispatches nothing while
results of the micro-batch before are under way to it. So decode SGLang's two batches (0.4.7,
``operations_strategy.py``: stages in turns, the second batch two behind). Its kernels are cut
finer than ours: the projections of the batch's next attention and its shared experts run while
the other's dispatch is under way, here they come with the attention they belong to.
"""


def in_turns(overlap: str, micro_batches: int) -> bool:
    """Whether micro-batches take turns.

    Raises
    ------
    SimulationError
        If there is no such way to overlap.
    """
    if overlap not in get_args(Overlap):
        raise SimulationError(f"overlap is {overlap!r}; expected {' or '.join(get_args(Overlap))}")
    return overlap == "turns" and micro_batches > 1


class Turns(Processors):
    """Processors that take their tasks in the order layer, micro-batch, attention, experts.

    Every message and task that a task waits for lies before it in that order, on whatever GPU:
    so none waits for ever.

    Parameters
    ----------
    env, durations, done, patient
        As for `Processors`.
    there
        bool [micro-batches, tasks, gpus]: the tasks that there will be.
    """

    def __init__(
        self,
        env: simpy.Environment,
        durations: Sequence[NDArray[np.int64]],
        done: Done,
        *,
        there: NDArray[np.bool_],
        patient: bool = False,
    ) -> None:
        super().__init__(env, durations, done, patient=patient)
        self._program = programs(there & (np.stack(durations) > 0))
        self._place = np.zeros(there.shape[2], dtype=np.int64)
        self._is_ready: NDArray[np.bool_] = np.zeros(there.shape, dtype=np.bool_)

    def _decide(self, _: simpy.Event) -> None:
        self._deciding = False
        arrived, freed = self._arrived, self._freed
        self._arrived, self._freed = [], []
        touched = list(freed)
        for task, batch, ready in arrived:
            self._is_ready[batch, task, ready] = True
            touched.append(ready)
        gpus = np.unique(np.concatenate(touched))
        gpus = gpus[~self._busy[gpus]]
        following = self._program[self._place[gpus], gpus]
        tasks = self._is_ready.shape[1]
        for code in np.unique(following[following >= 0]).tolist():
            batch, task = divmod(code, tasks)
            mine = gpus[following == code]
            mine = mine[self._is_ready[batch, task, mine]]
            if len(mine):
                self._start(batch, task, mine)

    def _finish(self, batch: int, task: int, gpus: NDArray[np.int64], _: simpy.Event) -> None:
        self._busy[gpus] = False
        self._place[gpus] += 1
        self._freed.append(gpus)
        self._decide_last()
        self._done(batch, task, gpus)


def programs(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return int64 [places, gpus]: batch x tasks + task of a GPU's tasks in turn, then -1.

    Parameters
    ----------
    there
        bool [micro-batches, tasks, gpus]: tasks as in `Spans`.
    """
    batches, tasks, gpus = there.shape
    batch, task = np.divmod(np.arange(batches * tasks), tasks)
    order = np.lexsort((task, batch, task // 2))
    listed: NDArray[Any] = there.reshape(-1, gpus)[order]
    program = np.full((len(order) + 1, gpus), -1)
    place, gpu = np.nonzero(listed)
    at = (np.cumsum(listed, axis=0) - 1)[place, gpu]
    program[at, gpu] = order[place]
    return program
