"""When GPUs computed what in a step, and what they waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Start and end of everything that GPUs computed.

    Tasks are attention and experts of every layer in turn, then the tail: the attention of
    layer l is task 2l, its experts are task 2l + 1, the tail is task 2L.

    Attributes
    ----------
    start_ns, end_ns
        int64 [micro-batches, tasks, gpus]; of no meaning where there was no task.
    active
        bool [micro-batches, tasks, gpus]: whether there was one.
    """

    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    active: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.start_ns, self.end_ns, self.active):
            array.setflags(write=False)

    @property
    def layers(self) -> int:
        """MoE layers."""
        return int(self.active.shape[1] // 2)

    def busy_ns(self) -> NDArray[np.int64]:
        """int64 [tasks, gpus]: duration, micro-batches added up."""
        duration = np.where(self.active, self.end_ns - self.start_ns, 0)
        return np.asarray(duration.sum(axis=0), dtype=np.int64)

    def idle_ns(self, step_ns: int) -> NDArray[np.int64]:
        """int64 [layers, 2, gpus]: time a GPU computed nothing, by what it waited for.

        A gap before experts is waiting for the dispatch of their layer; one before attention or
        the tail for the combine of the layer before; what remains to the end of the step is put
        down to the combine of the last layer. With `busy_ns`, every GPU's times add up to the
        step.
        """
        _, tasks, gpus = self.active.shape
        never = np.iinfo(np.int64).max
        start = np.where(self.active, self.start_ns, never).reshape(-1, gpus)
        order = np.argsort(start, axis=0, kind="stable")
        start = np.take_along_axis(start, order, axis=0)
        end = np.where(self.active, self.end_ns, 0).reshape(-1, gpus)
        done = np.maximum.accumulate(np.take_along_axis(end, order, axis=0), axis=0)
        before = np.vstack((np.zeros((1, gpus), dtype=np.int64), done[:-1]))
        gap = np.where(start == never, 0, np.maximum(start - before, 0))
        # Task 2l + 1 waits for leg 2l, the dispatch of layer l; task 2l for leg 2l - 1.
        awaited = np.maximum(order % tasks - 1, 0)
        cell = awaited * gpus + np.arange(gpus)
        idle = np.zeros((tasks - 1) * gpus, dtype=np.int64)
        np.add.at(idle, cell.ravel(), gap.ravel())
        idle = idle.reshape(tasks - 1, gpus)
        idle[-1] += step_ns - done[-1]
        return idle.reshape(-1, 2, gpus)

    def stragglers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """int64 [layers] twice: the GPU whose experts ended last, and ns behind the median GPU.

        Of several the first; the median is of the GPUs that computed experts of the layer. Where
        none did, GPU 0, not behind.
        """
        active: NDArray[np.bool_] = np.asarray(self.active[:, 1::2].any(axis=0))
        end = np.where(self.active, self.end_ns, -1)[:, 1::2].max(axis=0)
        late = [
            int(each.max() - np.median(each[there])) if there.any() else 0
            for each, there in zip(end, active, strict=True)
        ]
        return end.argmax(axis=1), np.array(late, dtype=np.int64)
