"""A step whose messages take no time: what remains is computing, and waiting for each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from sim.step import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sim.batch import Batch
    from sim.pairs import Surveyed
    from sim.turns import Overlap


def critical_ns(batches: Sequence[Batch], overlap: Overlap = "ready") -> int:
    """Duration of the step on a network of infinite bandwidth and no latency.

    The same causality as on any network (it is the same `Step`): what remains of the step time
    beyond this is exposed communication. It is no strict bound where a GPU chooses between tasks:
    messages that are late may make it choose better.
    """
    env = simpy.Environment()
    step = Step(env, FreeSession(env), batches, overlap=overlap, patient=True)
    step.run()
    return step.end_ns


class FreeSession:
    """Links that take no time and keep no books."""

    def __init__(self, env: simpy.Environment) -> None:
        # numba takes longer to import than the command line may take to print its help.
        from sim import _step_kernel  # noqa: PLC0415

        self.env = env
        self.release: Any = _step_kernel.release

    def foresee(self, leg: Surveyed) -> Callable[[int], FreeCollective | None]:
        """Return what registers the flows of a layer."""
        traffic = leg.traffic

        def opened(layer: int) -> FreeCollective | None:
            rows = slice(traffic.indptr[layer], traffic.indptr[layer + 1])
            if rows.start == rows.stop:
                return None
            ends = leg.destinations[layer], leg.sources[layer]
            return FreeCollective(self, traffic.dst[rows], *ends)

        return opened


class FreeCollective:
    """Flows that arrive when they are sent.

    Parameters
    ----------
    session
        Time, and the compiled loop.
    dst
        int32 [flows]: where they go; sources ascend.
    destinations, sources
        int64 [gpus]: flows that leave a GPU, and that reach it.
    """

    link_bytes: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def __init__(
        self,
        session: FreeSession,
        dst: NDArray[np.int32],
        destinations: NDArray[np.int64],
        sources: NDArray[np.int64],
    ) -> None:
        self._session, self._dst = session, dst
        self._bounds = np.concatenate(([0], np.cumsum(destinations)))
        self._left = sources.copy()
        self._complete = np.empty(len(sources), dtype=np.int64)
        self._missing = int(np.count_nonzero(sources))
        self._arrived: list[NDArray[np.int64]] = []
        self._callback: Callable[[NDArray[np.int64]], None] = lambda _: None
        self.started_ns: int | None = None
        self.ended_ns: int | None = None

    def listen(self, callback: Callable[[NDArray[np.int64]], None]) -> None:
        """Have `callback` called with all GPUs that have everything since an instant."""
        self._callback = callback

    def send_all(self, gpus: NDArray[np.int64]) -> None:
        """Deliver the messages of `gpus` now."""
        now = int(self._session.env.now)
        if self.started_ns is None:
            self.started_ns = now
        found = self._session.release(self._bounds, self._dst, self._left, gpus, self._complete)
        if found:
            if not self._arrived:
                callbacks: Any = self._session.env.timeout(0).callbacks
                callbacks.append(self._deliver)
            self._arrived.append(self._complete[:found].copy())
        self._missing -= found
        if self._missing == 0:
            self.ended_ns = now

    def _deliver(self, _: simpy.Event) -> None:
        arrived, self._arrived = self._arrived, []
        self._callback(np.concatenate(arrived))
