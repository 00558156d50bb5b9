"""A pool of worker processes in which the death of one harms no call but its own."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from experiments.sweeping.lane import Lane, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_Item = tuple[Future[Any], "Callable[..., Any]", tuple[object, ...]]

PRELOAD = ("experiments.run", "experiments.programs", "pyarrow.parquet", "sim")
"""Modules that a run needs."""


class LanePool(Executor):
    """Processes that calls are spread over, each with one call at a time.

    Unlike the pool of the standard library, which breaks as a whole, it knows which call a dead
    process was at: that one raises `WorkerLostError`, and a new process takes the next.

    Parameters
    ----------
    workers
        Processes.
    limits
        Of a call.
    preload
        Modules that processes import before their first call.
    """

    def __init__(
        self, workers: int, limits: Limits | None = None, preload: tuple[str, ...] = PRELOAD
    ) -> None:
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._closed = False
        self._lanes = [Lane(limits, preload) for _ in range(workers)]
        for lane in self._lanes:
            lane.start()
        self._threads = [
            threading.Thread(target=self._serve, args=(lane,), daemon=True) for lane in self._lanes
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Queue a call; function and arguments travel to the process pickled.

        Raises
        ------
        RuntimeError
            If the pool is shut down.
        TypeError
            If there are keyword arguments.
        """
        if kwargs:
            raise TypeError("a lane takes positional arguments only")
        if self._closed:
            raise RuntimeError("the pool of workers is shut down")
        future: Future[R] = Future()
        self._queue.put((future, fn, args))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the processes once those queued are done."""
        if not self._closed:
            self._closed = True
            if cancel_futures:
                self._cancel()
            for _ in self._threads:
                self._queue.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def kill(self) -> None:
        """End everything at once, calls under way included."""
        self._closed = True
        self._cancel()
        for lane in self._lanes:
            lane.stop()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _cancel(self) -> None:
        while not self._queue.empty():
            item = self._queue.get()
            if item is not None:
                item[0].cancel()

    def _serve(self, lane: Lane) -> None:
        """Give a lane one call after another."""
        while (item := self._queue.get()) is not None:
            future, function, arguments = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = lane.call(function, *arguments)
            except BaseException as error:  # noqa: BLE001  the caller's, through its future
                future.set_exception(error)
            else:
                future.set_result(result)
        lane.close()
