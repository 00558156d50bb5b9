"""The compiled loop of the packet network: chunks through FIFO links, in integer ns.

A FIFO link needs no queue of waiting events: when a chunk arrives, its finish is known. A link
keeps the start and the bytes of its busy period, and a chunk that brings the period to B bytes
finishes at ``start + ceil(B * 1e9 / bandwidth - 1e-6)``: rounded up to whole ns, so that no
link is ever above capacity, and from the sum, so that rounding does not add up. (The 1e-6 ns
forgive what floating point leaves above a whole number.) Every crossing takes 1 ns or more.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from sim.network._compiled import compiled
from sim.network._packet_state import FIRST_INJECTION, NONE

if TYPE_CHECKING:
    from sim.network._packet_state import State

IDLE = -1
"""`advance`: nothing is left to happen up to the horizon."""
NEED_CHUNKS = -2
"""`advance`: the chunk records are used up; call again with more."""
BACKWARDS = -3
"""`advance`, `inject`: an event lies before the kernel's clock."""


@compiled
def inject(state: State, first: int, end: int, now: int) -> int:
    """Send the injections first..end-1 at `now`: they join the queues of their first links.

    A link's bytes are reserved for the whole injection at once, while its chunks are made one
    by one as they leave: a FIFO queue of any length costs one heap entry.
    """
    if now < state.header[0].now:
        return BACKWARDS
    state.header[0].now = now
    for index in range(first, end):
        injection = state.injections[index]
        if injection.unissued == 0:
            continue  # all of it was withdrawn
        link = state.links[injection.link]
        injection.sent_at = now
        injection.finish = _reserve(link, injection.total_bytes, now)
        injection.busy_start = link.busy_start
        injection.bytes = link.busy_bytes - injection.total_bytes
        injection.issued = 0
        issue(state, injection)
        _append(state, injection.link, FIRST_INJECTION - index, injection.arrival)
    return IDLE


@compiled
def advance(state: State, until: int) -> int:
    """Let time pass up to `until` (inclusive), or to the first inbox that completes.

    Returns the completed inbox (the clock then shows when), or IDLE, NEED_CHUNKS, BACKWARDS.
    """
    header = state.header[0]
    while header.heap_size > 0 and state.heap_time[0] <= until:
        link = state.heap_link[0]
        node = state.links[link].head
        if node <= FIRST_INJECTION and header.free_chunk == NONE:
            return NEED_CHUNKS
        if state.heap_time[0] < header.now:
            return BACKWARDS
        header.now = state.heap_time[0]
        inbox = _move(state, _take_chunk(state, link, node))
        if inbox != NONE:
            return inbox
    return IDLE


@compiled
def _take_chunk(state: State, link: int, node: int) -> int:
    """Take the chunk that has crossed `link` from the head of its queue."""
    if node <= FIRST_INJECTION:
        injection = state.injections[FIRST_INJECTION - node]
        chunk = make_chunk(state, injection)
        following = injection.next
        if injection.unissued > 0:
            issue(state, injection)
            following = node
    else:
        chunk = node
        following = state.chunks[node].next
    state.links[link].head = following
    if following == NONE:
        _pop(state)
    else:
        _sift_down(state, arrival_of(state, following), link)
    _record(state, link, chunk)
    return chunk


@compiled
def make_chunk(state: State, injection: Any) -> int:
    """Give the injection's current chunk a record of its own."""
    chunk: int = state.header[0].free_chunk
    record = state.chunks[chunk]
    flow = state.flows[injection.flow]
    state.header[0].free_chunk = record.next
    record.flow = injection.flow
    record.size = injection.size
    record.hop = flow.first_hop
    record.end_hop = flow.end_hop
    record.joined = injection.sent_at
    record.start = injection.start
    record.arrival = injection.arrival
    return chunk


@compiled
def _move(state: State, chunk: int) -> int:
    """Put a chunk on its next link, or deliver it; returns an inbox that this completes."""
    record = state.chunks[chunk]
    flow = state.flows[record.flow]
    now = state.header[0].now
    record.hop += 1
    if record.hop < record.end_hop:
        queue(state, chunk, now)
        return NONE
    record.next = state.header[0].free_chunk
    state.header[0].free_chunk = chunk
    flow.undelivered -= 1
    if flow.undelivered > 0:
        return NONE
    flow.delivered_at = now
    inbox: int = flow.inbox
    state.inboxes[inbox] -= 1
    return inbox if state.inboxes[inbox] == 0 else NONE


@compiled
def queue(state: State, chunk: int, now: int) -> None:
    """Let a chunk join the queue of the link it has come to."""
    record = state.chunks[chunk]
    at = state.hops[record.hop]
    link = state.links[at]
    record.joined = now
    record.start = _reserve(link, record.size, now)
    record.arrival = link.free_at + link.latency
    _append(state, at, chunk, record.arrival)


@compiled
def finish_of(busy_start: int, busy_bytes: int, bandwidth: float) -> int:
    """ns at which the last of a busy period's bytes has left."""
    return busy_start + ceil(busy_bytes * 1e9 / bandwidth - 1e-6)


@compiled
def _reserve(link: Any, size: int, now: int) -> int:
    """Append `size` bytes to the link's busy period; returns when their service starts."""
    start: int = link.free_at
    if start <= now:
        start = now
        link.busy_start = now
        link.busy_bytes = 0
    link.busy_bytes += size
    link.free_at = finish_of(link.busy_start, link.busy_bytes, link.bandwidth)
    return start


@compiled
def issue(state: State, injection: Any) -> None:
    """Make the injection's next chunk its current one."""
    at = injection.cursor
    flow = state.flows[at]
    size = min(state.header[0].chunk_bytes, flow.rest)
    flow.rest -= size
    if flow.rest == 0:
        flow.rest = flow.message_bytes
    flow.unissued -= 1
    if flow.unissued == 0:
        state.flows[injection.previous].next = flow.next
        injection.cursor = flow.next
    elif state.header[0].interleaved:
        injection.previous = at
        injection.cursor = flow.next
    link = state.links[injection.link]
    injection.start = injection.finish
    injection.flow = at
    injection.size = size
    injection.unissued -= 1
    injection.bytes += size
    injection.issued += size
    injection.finish = finish_of(injection.busy_start, injection.bytes, link.bandwidth)
    injection.arrival = injection.finish + link.latency


@compiled
def _record(state: State, at: int, chunk: int) -> None:
    """Write the passage of a chunk that has crossed a link into the books."""
    link, record = state.links[at], state.chunks[chunk]
    finish = record.arrival - link.latency
    link.chunks += 1
    link.bytes += record.size
    state.link_bytes[state.flows[record.flow].account, at] += record.size
    state.header[0].crossings += 1
    book(state, at, (record.joined, record.start, finish))


@compiled
def book(state: State, at: int, times: tuple[int, int, int]) -> None:
    """Write down that a chunk joined, was served from a time and to a time."""
    joined, start, finish = times
    link = state.links[at]
    wait = start - joined
    link.wait += wait
    link.wait_max = max(link.wait_max, wait)
    link.busy += finish - start
    while finish > state.busy.shape[1] << state.header[0].bin_shift:
        _double_bins(state)
    shift = state.header[0].bin_shift
    while start < finish:
        index = start >> shift
        end = min(finish, (index + 1) << shift)
        state.busy[at, index] += end - start
        start = end


@compiled
def _double_bins(state: State) -> None:
    """Make the bins twice as wide: a run of any length fits into the same memory."""
    half = state.busy.shape[1] // 2
    for link in range(state.busy.shape[0]):
        for index in range(half):
            pair = state.busy[link, 2 * index] + state.busy[link, 2 * index + 1]
            state.busy[link, index] = pair
        state.busy[link, half:] = 0
    state.header[0].bin_shift += 1


@compiled
def arrival_of(state: State, node: int) -> int:
    time: int
    if node <= FIRST_INJECTION:
        time = state.injections[FIRST_INJECTION - node].arrival
    else:
        time = state.chunks[node].arrival
    return time


@compiled
def _append(state: State, at: int, node: int, arrival: int) -> None:
    """Queue a node at the end of a link; an idle link joins the heap."""
    if node <= FIRST_INJECTION:
        state.injections[FIRST_INJECTION - node].next = NONE
    else:
        state.chunks[node].next = NONE
    link = state.links[at]
    if link.head == NONE:
        link.head = node
        push(state, arrival, at)
    elif link.tail <= FIRST_INJECTION:
        state.injections[FIRST_INJECTION - link.tail].next = node
    else:
        state.chunks[link.tail].next = node
    link.tail = node


@compiled
def push(state: State, time: int, link: int) -> None:
    place = state.header[0].heap_size
    state.header[0].heap_size += 1
    while place > 0:
        parent = (place - 1) >> 1
        if not _before(time, link, state.heap_time[parent], state.heap_link[parent]):
            break
        state.heap_time[place] = state.heap_time[parent]
        state.heap_link[place] = state.heap_link[parent]
        place = parent
    state.heap_time[place] = time
    state.heap_link[place] = link


@compiled
def _pop(state: State) -> None:
    last = state.header[0].heap_size - 1
    state.header[0].heap_size = last
    if last > 0:
        _sift_down(state, state.heap_time[last], state.heap_link[last])


@compiled
def _sift_down(state: State, time: int, link: int) -> None:
    """Replace the top of the heap."""
    size = state.header[0].heap_size
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(
            state.heap_time[child + 1],
            state.heap_link[child + 1],
            state.heap_time[child],
            state.heap_link[child],
        ):
            child += 1
        if not _before(state.heap_time[child], state.heap_link[child], time, link):
            break
        state.heap_time[place] = state.heap_time[child]
        state.heap_link[place] = state.heap_link[child]
        place = child
    state.heap_time[place] = time
    state.heap_link[place] = link


@compiled
def _before(time: int, link: int, other_time: int, other_link: int) -> bool:
    return time < other_time or (time == other_time and link < other_link)
