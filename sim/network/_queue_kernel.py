"""Arrivals at given times, one chunk each: from Python each would cost more than its queueing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.network._compiled import compiled
from sim.network._packet_kernel import IDLE, advance, inject

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.network._packet_state import State


@compiled
def feed(state: State, times: NDArray[Any]) -> int:
    """Send injection i at times[i] and run the network until all is delivered."""
    for index in range(len(times)):
        while advance(state, times[index] - 1) != IDLE:
            pass
        inject(state, index, index + 1, times[index])
    return int(advance(state, 2**62))
