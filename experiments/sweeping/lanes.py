"""A pool of worker processes in which the death of one harms no call but its own."""

from __future__ import annotations

import pickle
import threading
import time
from collections import deque
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from experiments.sweeping.lane import Lane, Limits, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_AHEAD, _QUICK_S = 2, 1.0
"""Calls a process has at a time, the one it is at included, after one of at most so many seconds:
a long one shall not wait behind another while a process beside is idle."""


_SMALL_BYTES = 16_384
"""Less than any pipe holds."""


class _Item(NamedTuple):
    """A call: its pickled function and arguments, and who waits for it."""

    future: Future[Any]
    request: bytes


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

    @property
    def window(self) -> int:
        """Calls to queue and have under way at a time so that no process ever waits for one."""
        return (_AHEAD + 1) * len(self._lanes)

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
        self._queue.put(_Item(future, pickle.dumps((fn, args))))
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
                item.future.cancel()

    def _serve(self, lane: Lane) -> None:
        """Give a lane one call after another; a quick one is followed without a pause."""
        sent: deque[_Item] = deque()
        quick, open_ = False, True
        while open_ or sent:
            room = _AHEAD if quick else 1
            while open_ and len(sent) < room:
                try:
                    item = self._queue.get(block=not sent)
                except Empty:
                    break
                if item is None:
                    open_ = False
                elif item.future.set_running_or_notify_cancel():
                    _send(lane, item, sent)
            if sent:
                begun = time.monotonic()
                _receive(lane, sent)
                quick = time.monotonic() - begun < _QUICK_S
        lane.close()


def _send(lane: Lane, item: _Item, sent: deque[_Item]) -> None:
    """Hand a call to a lane; it fails by itself where that does not go."""
    while sent and len(item.request) > _SMALL_BYTES:
        # It and an answer might each fill a pipe, and wait for the other.
        _receive(lane, sent)
    if not sent:
        lane.renew()
    try:
        lane.send(item.request)
    except WorkerLostError as error:
        item.future.set_exception(error)
    else:
        sent.append(item)


def _receive(lane: Lane, sent: deque[_Item]) -> None:
    """Take the answer to the oldest call; if the lane is lost, those behind it start anew."""
    item = sent.popleft()
    try:
        result = lane.receive()
    except BaseException as error:  # noqa: BLE001  the caller's, through its future
        behind = [*sent] if isinstance(error, WorkerLostError) else []
        for _ in behind:
            sent.popleft()
        item.future.set_exception(error)
        for each in behind:
            _send(lane, each, sent)
    else:
        item.future.set_result(result)
