"""An event that comes after all others of its instant."""

from __future__ import annotations

import simpy

LAST = 2
"""Its priority; SimPy's own are 0 and 1."""


class Last(simpy.Event):
    """An event that comes after all others of its instant, those included that they bring about.

    Parameters
    ----------
    env
        Counts integer nanoseconds.
    delay
        Nanoseconds from now.
    """

    def __init__(self, env: simpy.Environment, delay: int = 0) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=LAST, delay=delay)  # type: ignore[arg-type]
