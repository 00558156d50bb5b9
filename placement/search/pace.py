"""How many swaps each step of a cooling gets, and what a deadline leaves of them."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 40
"""Temperatures of a cooling."""
_PIECE = 2000
"""Swaps between two looks at the clock: some milliseconds."""
_TICK_S = 1e-6


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
        self._done, self.cut = 0, False
        self._begun = now = time.perf_counter()
        self._deadline = deadline if deadline == inf else now + (deadline - now) / turns

    def pieces(self, step: int) -> Iterator[int]:
        """Yield the swaps of a step, in pieces where there is a deadline; none if it is late."""
        if self._deadline == inf:
            yield self._each
            return
        done = 0
        while done < self._each:
            now = time.perf_counter()
            left, quota = self._deadline - now, float(_PIECE)
            if self._done:
                affordable = done + self._done / max(now - self._begun, _TICK_S) * left
                quota = affordable / (STEPS - step)
            piece = min(_PIECE, self._each - done, int(quota) - done)
            if left <= 0 or piece <= 0:
                self.cut = True
                return
            yield piece
            done += piece
            self._done += piece
