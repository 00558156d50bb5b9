"""Wall and processor seconds of a call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Clocks(NamedTuple):
    """Seconds a call took.

    On a machine that is shared the processor's are what the call needs; on a quiet one they are
    the wall's, for a call of one thread.
    """

    seconds: float
    cpu_s: float


def timed(work: Callable[[], T], repeats: int) -> tuple[T, Clocks]:
    """Return the last result, and of `repeats` calls the least of each clock."""
    taken = []
    for _ in range(repeats):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        result = work()
        taken.append((time.perf_counter() - begun, time.process_time() - begun_cpu))
    wall, cpu = zip(*taken, strict=True)
    return result, Clocks(min(wall), min(cpu))
