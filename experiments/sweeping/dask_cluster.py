"""Runs on a Dask cluster; `distributed` comes with the extra ``cluster``."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.manifest import versions
from experiments.sweeping.driver import MOST_DEATHS, Means, judge
from experiments.sweeping.lane import Lane, Limits, WorkerLostError
from experiments.sweeping.lanes import PRELOAD
from experiments.sweeping.work import Done, Failed, Job, perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START_S = 30
"""Seconds to reach a scheduler, and to meet a first worker."""
_AHEAD = 4
"""Runs handed out per thread of the cluster: enough that none waits, and that one that grows with
its queue does."""

_LOOK_S = 1.0
"""Seconds between two looks at the size of the cluster."""

_lanes: dict[Limits, Lane] = {}
_one_lane = threading.Lock()


@contextmanager
def dask_cluster(scheduler: str | None, workers: int, limits: Limits) -> Iterator[Means]:
    """Give a Dask cluster.

    Parameters
    ----------
    scheduler
        Address of an existing one; None for one of our own on this machine.
    workers
        Processes of our own one.
    limits
        Of a run: each is then done by a process of its worker, which can be killed.

    Raises
    ------
    ExperimentError
        If `distributed` is not installed, the scheduler does not answer, or its workers have
        other versions than we.
    """
    client = _client(scheduler, workers)
    executor = client.get_executor()
    try:
        _check_versions(client)
        threads = _Threads(client)
        yield Means(
            executor,
            lambda: max(_AHEAD * threads(), 2 * _AHEAD),
            threads,
            perform if limits == Limits() else Limited(limits),
            lambda: client.status == "running",
            _judge,
        )
    finally:
        executor.shutdown(wait=False)
        client.close()


class Limited:
    """Does a job in a process beside the Dask worker, within limits.

    Parameters
    ----------
    limits
        Of a run.
    work
        What is done with a job.
    """

    def __init__(self, limits: Limits, work: Callable[[Job], Done | Failed] = perform) -> None:
        self.limits, self.work = limits, work

    def __call__(self, job: Job) -> Done | Failed:
        """Run the job; what goes wrong is returned, not raised."""
        with _one_lane:
            lane = _lanes.setdefault(self.limits, Lane(self.limits, PRELOAD))
            try:
                return lane.call(self.work, job)
            except WorkerLostError as error:
                return judge(error)


class _Threads:
    """Threads of a cluster, looked up now and then: it may grow."""

    def __init__(self, client: Any) -> None:
        self._client, self._found, self._next = client, 0, 0.0

    def __call__(self) -> int:
        """Return how many there are."""
        now = time.monotonic()
        if now >= self._next and self._client.status == "running":
            self._found, self._next = sum(self._client.nthreads().values()), now + _LOOK_S
        return self._found


def _client(scheduler: str | None, workers: int) -> Any:
    try:
        from distributed import Client  # noqa: PLC0415  an extra
    except ImportError:
        raise ExperimentError(
            "--executor dask needs the package distributed; pip install 'topomoe[cluster]'"
        ) from None
    try:
        if scheduler is not None:
            return Client(scheduler, timeout=_START_S, set_as_default=False)
        return Client(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, set_as_default=False
        )
    except (OSError, ValueError, TypeError) as error:
        raise ExperimentError(
            f"--scheduler {scheduler}: no Dask scheduler answers within {_START_S} s: {error}; "
            "expected an address as tcp://host:8786"
        ) from error


def _check_versions(client: Any) -> None:
    """See that the workers there are have what we have: the same bytes need the same versions."""
    try:
        found = client.run(versions)
    except Exception as error:
        raise ExperimentError(
            f"the workers of the cluster cannot run topomoe: {type(error).__name__}: {error}; "
            "expected it installed there as it is here"
        ) from error
    for worker, theirs in sorted(found.items()):
        for name, ours in versions().items():
            if theirs.get(name) != ours:
                raise ExperimentError(
                    f"{worker} has {name} {theirs.get(name)}, here it is {ours}; expected the same "
                    "versions everywhere"
                )


def _judge(error: Exception) -> Failed:
    """Say why a run gave nothing."""
    from distributed.scheduler import KilledWorker  # noqa: PLC0415  an extra

    if isinstance(error, KilledWorker):
        # Dask has tried it on other workers itself.
        return Failed("died", "every worker that took it died", str(error), deaths=MOST_DEATHS)
    return judge(error)
