"""What a sweep runs on: processes here, or a Dask cluster."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from experiments.sweeping.driver import Means
from experiments.sweeping.lanes import LanePool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from experiments.sweeping.lane import Limits

MOST_BY_DEFAULT = 4
"""Processes where nobody asks for a number."""


def default_workers() -> int:
    """Return one process per core, a few at most."""
    return min(MOST_BY_DEFAULT, os.cpu_count() or 1)


@contextmanager
def lane_pool(workers: int, limits: Limits | None = None) -> Iterator[LanePool]:
    """Give a pool of processes, ended at once if an error or Ctrl-C comes."""
    pool = LanePool(workers, limits)
    try:
        yield pool
    except BaseException:
        pool.kill()
        raise
    pool.shutdown()


@contextmanager
def processes(workers: int, limits: Limits) -> Iterator[Means]:
    """Give a sweep the processes of this machine."""
    with lane_pool(workers, limits) as pool:
        yield Means(pool, lambda: pool.window, lambda: workers)
