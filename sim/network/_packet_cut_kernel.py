"""What happens to the chunks of a GPU that dies, compiled.

Chunks that a card has not picked to send are withdrawn; all others go on. The links whose queues
have become shorter serve what waits behind earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.network._compiled import compiled
from sim.network._packet_fault_kernel import retime_link
from sim.network._packet_kernel import arrival_of, push
from sim.network._packet_state import NONE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sim.network._packet_state import State


@compiled
def withdraw(
    state: State,
    rows: tuple[int, int],
    gone: NDArray[np.int64],
    lost: NDArray[np.int64],
    touched: NDArray[np.bool_],
) -> None:
    """Take the chunks of some flows that no card has picked off the injections.

    Parameters
    ----------
    state
        Of the network, after `flush`.
    rows
        First injection, and the end.
    gone
        int64 [flows] ascending: rows of flows. Those without a chunk left to deliver are
        finished by this, and counted in their inboxes.
    lost
        int64 [flows], filled with bytes.
    touched
        bool [links], set where queues have become shorter.
    """
    withdrawn = 0
    for at in range(len(gone)):
        flow = state.flows[gone[at]]
        if flow.unissued == 0:
            continue
        lost[at] = _unissued_bytes(flow, state.header[0].chunk_bytes)
        withdrawn += 1
    if withdrawn == 0:
        return
    for index in range(rows[0], rows[1]):
        _shorten(state, index, gone, lost, touched)
    for at in range(len(gone)):
        flow = state.flows[gone[at]]
        if flow.unissued == 0:
            continue
        flow.undelivered -= flow.unissued
        flow.unissued = 0
        if flow.undelivered == 0:
            flow.delivered_at = state.header[0].now
            state.inboxes[flow.inbox] -= 1


@compiled
def _unissued_bytes(flow: Any, chunk_bytes: int) -> int:
    """Bytes of the chunks that have not been issued: the rest of a message, and whole ones."""
    of_message = -(-flow.message_bytes // chunk_bytes)
    of_rest = -(-flow.rest // chunk_bytes)
    size: int = flow.rest + (flow.unissued - of_rest) // of_message * flow.message_bytes
    return size


@compiled
def _place(gone: NDArray[np.int64], row: int) -> int:
    """Return where `row` stands in `gone`, or NONE."""
    low, high = 0, len(gone)
    while low < high:
        middle = (low + high) >> 1
        if gone[middle] < row:
            low = middle + 1
        else:
            high = middle
    return low if low < len(gone) and gone[low] == row else NONE


@compiled
def _shorten(
    state: State,
    index: int,
    gone: NDArray[np.int64],
    lost: NDArray[np.int64],
    touched: NDArray[np.bool_],
) -> None:
    """Close the ring of an injection's flows without those that are gone."""
    injection = state.injections[index]
    if injection.unissued == 0:
        return
    first, last, at = NONE, NONE, injection.cursor
    removed = 0
    while True:
        flow = state.flows[at]
        place = _place(gone, at)
        if place != NONE:
            removed += flow.unissued
            injection.total_bytes -= lost[place]
        else:
            if first == NONE:
                first = at
            else:
                state.flows[last].next = at
            last = at
        at = flow.next
        if at == injection.cursor:
            break
    injection.unissued -= removed
    if first != NONE:
        state.flows[last].next = first
        injection.cursor = first
        injection.previous = last
    if removed > 0 and injection.issued > 0:
        touched[injection.link] = True


@compiled
def retime(state: State, now: int, touched: NDArray[np.bool_]) -> None:
    """Serve what waits on shortened queues from `now` on, after all that stands before it."""
    state.header[0].now = max(state.header[0].now, now)
    for at in range(len(touched)):
        if touched[at]:
            retime_link(state, at, now, state.links[at].bandwidth)
    state.header[0].heap_size = 0
    for at in range(len(state.links)):
        if state.links[at].head != NONE:
            push(state, arrival_of(state, state.links[at].head), at)
