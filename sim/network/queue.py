"""One link of the packet network under Poisson arrivals: queues that theory knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError
from sim.network._packet_state import FLOW, INJECTION, new_state, with_more_chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.network._packet_state import State

SERVICE_NS = 10_000
"""Of a chunk on the link: long against the whole ns in which arrivals are counted."""
_CHUNK_BYTES = 1000


def mean_queue_wait(
    load: float, arrivals: int, rng: np.random.Generator, *, exponential: bool = False
) -> float:
    """Return the mean wait, in service times, of chunks that arrive at random.

    Theory says ``load / (2 (1 - load))`` (M/D/1, Pollaczek-Khinchine), and twice that for
    exponential sizes (M/M/1).

    Parameters
    ----------
    load
        Share of the time that the link is busy.
    arrivals
        Chunks sent, through a link that is much faster.
    rng
        Draws the times between arrivals, and sizes.
    exponential
        Whether the chunks' sizes are exponential, in whole bytes of at least 1; else all equal.

    Raises
    ------
    SimulationError
        If the load is not between 0 and 1, or nothing arrives.
    """
    if not 0 < load < 1:
        raise SimulationError(f"load must be above 0 and below 1, got {load}")
    if arrivals < 1:
        raise SimulationError(f"arrivals must be 1 or more, got {arrivals}")
    from sim.network._queue_kernel import feed  # noqa: PLC0415  loads numba

    times = np.cumsum(rng.exponential(SERVICE_NS / load, arrivals)).astype(np.int64)
    size = np.full(arrivals, _CHUNK_BYTES)
    if exponential:
        size = np.maximum(1, np.rint(rng.exponential(_CHUNK_BYTES, arrivals))).astype(np.int64)
    state = _two_links(size)
    feed(state, times)
    assert state.links["chunks"][1] == arrivals  # noqa: S101  else the mean is of something else
    return float(state.links["wait"][1] / arrivals / SERVICE_NS)


def _two_links(size: NDArray[np.int64]) -> State:
    """Return a fast link into a slow one, and one flow of one chunk for every size."""
    arrivals = len(size)
    state = new_state(
        np.array([1e13, _CHUNK_BYTES * 1e9 / SERVICE_NS]),
        np.zeros(2, dtype=np.int64),
        chunk_bytes=int(size.max()),
        interleaved=False,
        bins=64,
    )
    flows, injections = np.zeros(arrivals, dtype=FLOW), np.zeros(arrivals, dtype=INJECTION)
    flows["end_hop"], flows["message_bytes"], flows["rest"] = 2, size, size
    flows["unissued"] = flows["undelivered"] = 1
    flows["next"] = injections["cursor"] = injections["previous"] = np.arange(arrivals)
    injections["total_bytes"], injections["unissued"] = size, 1
    state = state._replace(
        flows=flows,
        injections=injections,
        hops=np.array([0, 1], dtype=np.int32),
        inboxes=np.array([arrivals + 1]),
        link_bytes=np.zeros((1, 2), dtype=np.int64),
    )
    for _ in range(8):  # room for the longest queue
        state = with_more_chunks(state)
    return state
