"""How many swaps each step of a cooling gets, and what a deadline leaves of them."""

from __future__ import annotations

import time

STEPS = 40
"""Temperatures of a cooling."""


class Pace:
    """Shares proposals out evenly over the steps; fewer where a deadline is near.

    Without a deadline the numbers do not depend on the clock.

    Parameters
    ----------
    proposals
        Swaps to propose over all steps.
    deadline
        ``time.perf_counter`` value to be kept; infinity for none.
    turns
        Coolings, this one included, that share the time until then.

    Attributes
    ----------
    cut
        Whether the deadline cost proposals.
    """

    def __init__(self, proposals: int, deadline: float, *, turns: int) -> None:
        self._each = -(-proposals // STEPS)
        self._given, self.cut = self._each, False
        self._last = now = time.perf_counter()
        self._deadline = deadline if deadline == float("inf") else now + (deadline - now) / turns

    def proposals(self, step: int) -> int:
        """Swaps of the next step, from the time that the one before took; none if it is late."""
        if self._deadline == float("inf"):
            return self._each
        now = time.perf_counter()
        spent, left = now - self._last, self._deadline - now
        self._last = now
        if left <= 0:
            self._given = 0
        elif step and spent > 0:
            affordable = left / (STEPS - step) * max(self._given, 1) / spent
            self._given = max(1, min(self._each, int(affordable)))
        self.cut = self.cut or self._given < self._each
        return self._given
