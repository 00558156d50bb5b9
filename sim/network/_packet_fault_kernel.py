"""What happens to chunks when links change their speed, compiled.

A chunk whose last byte has left a link arrives, whatever becomes of the link. A chunk in service
on a link that changes its speed goes on with the bytes that are left, what has been served cut
to whole bytes; those that wait follow at the new speed. On a link that dies, the chunk in
service is sent again from its first byte, by the switch that holds it, and before those that
wait: all of them join the queues of other links at once, in the order of the dead links' numbers
and of their queues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.network._compiled import compiled
from sim.network._packet_kernel import (
    NEED_CHUNKS,
    arrival_of,
    book,
    finish_of,
    issue,
    make_chunk,
    push,
    queue,
)
from sim.network._packet_state import FIRST_INJECTION, NONE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sim.network._packet_state import State

DONE = 0


@compiled
def flush(state: State, now: int) -> int:
    """Give a record to every injected chunk whose last byte has left by `now`.

    Returns DONE, or NEED_CHUNKS: call again with more.
    """
    for at in range(len(state.links)):
        link = state.links[at]
        before = NONE
        node = link.head
        while node != NONE:
            if node > FIRST_INJECTION:
                before = node
                node = state.chunks[node].next
                continue
            injection = state.injections[FIRST_INJECTION - node]
            following = injection.next
            left = False
            while injection.finish <= now and not left:
                if state.header[0].free_chunk == NONE:
                    return NEED_CHUNKS
                chunk = make_chunk(state, injection)
                state.chunks[chunk].next = node
                _link_up(state, at, before, chunk)
                before = chunk
                if injection.unissued > 0:
                    issue(state, injection)
                else:
                    left = True
            if left:
                _link_up(state, at, before, following)
                if following == NONE:
                    link.tail = before
            else:
                before = node
            node = following
    return DONE


@compiled
def _link_up(state: State, at: int, before: int, node: int) -> None:
    """Let a node follow another in a link's queue; NONE is the queue's head."""
    if before == NONE:
        state.links[at].head = node
    elif before <= FIRST_INJECTION:
        state.injections[FIRST_INJECTION - before].next = node
    else:
        state.chunks[before].next = node


@compiled
def count_sent(state: State, now: int, sent: NDArray[np.int64]) -> None:
    """Fill sent [links] with the bytes of chunks whose last byte has left, after `flush`."""
    for at in range(len(state.links)):
        link = state.links[at]
        sent[at] = link.bytes
        node = link.head
        while node > FIRST_INJECTION and node != NONE:
            record = state.chunks[node]
            if record.arrival - link.latency > now:
                break
            sent[at] += record.size
            node = record.next


@compiled
def change_speeds(
    state: State,
    now: int,
    bandwidth: NDArray[np.float64],
    dead: NDArray[np.bool_],
    pulled: NDArray[np.int64],
) -> int:
    """Let links work at other rates from `now` on, after `flush`.

    Parameters
    ----------
    state
        Of the network.
    now
        ns.
    bandwidth, dead
        [links]: bytes per second, those of dead links not looked at.
    pulled
        int64 [chunks]: filled with the chunks that dead links have not sent, in order; they
        stand on no link.

    Returns
    -------
    int
        How many those are.
    """
    found = 0
    state.header[0].now = max(state.header[0].now, now)
    for at in range(len(state.links)):
        link = state.links[at]
        if dead[at]:
            found = _pull(state, at, now, pulled, found)
            link.busy_start = now
            link.busy_bytes = 0
            link.free_at = now
        elif bandwidth[at] != link.bandwidth:
            retime_link(state, at, now, bandwidth[at])
        link.bandwidth = bandwidth[at]
    state.header[0].heap_size = 0
    for at in range(len(state.links)):
        if state.links[at].head != NONE:
            push(state, arrival_of(state, state.links[at].head), at)
    return found


@compiled
def _served(state: State, at: int, now: int, start: int, size: int) -> tuple[int, int]:
    """Bytes of the chunk in service sent at the present speed by `now`, and those left then."""
    link = state.links[at]
    if start < link.busy_start:
        size = link.carry
        start = link.busy_start
    sent = min(int((now - start) * link.bandwidth / 1e9 + 1e-9), size - 1)
    return sent, size - sent


@compiled
def _pull(state: State, at: int, now: int, pulled: NDArray[np.int64], found: int) -> int:
    """Take the chunks that have not left off the queue of a link that dies."""
    link = state.links[at]
    before = NONE
    node = link.head
    while node != NONE and state.chunks[node].arrival - link.latency <= now:
        before = node
        node = state.chunks[node].next
    _link_up(state, at, before, NONE)
    link.tail = before
    while node != NONE:
        record = state.chunks[node]
        if record.start < now:
            left = _served(state, at, now, record.start, record.size)[1]
            link.resent += record.size - left
        start = min(record.start, now)
        book(state, at, (record.joined, start, now))
        pulled[found] = node
        found += 1
        node = record.next
    return found


@compiled
def retime_link(state: State, at: int, now: int, bandwidth: float) -> None:
    """Serve what has not left a link at another speed from `now` on."""
    link = state.links[at]
    if link.free_at <= now:
        return
    node = link.head
    while node > FIRST_INJECTION and state.chunks[node].arrival - link.latency <= now:
        node = state.chunks[node].next
    first = True
    total = 0
    finish = now
    while node != NONE:
        if node > FIRST_INJECTION:
            record = state.chunks[node]
            size, start = record.size, record.start
        else:
            injection = state.injections[FIRST_INJECTION - node]
            size, start = injection.size, injection.start
        if first:
            size = _served(state, at, now, start, size)[1]
            link.carry = size
        else:
            start = finish
        first = False
        total += size
        finish = finish_of(now, total, bandwidth)
        if node > FIRST_INJECTION:
            record = state.chunks[node]
            record.start = start
            record.arrival = finish + link.latency
            node = record.next
        else:
            injection = state.injections[FIRST_INJECTION - node]
            injection.start = start
            injection.busy_start = now
            injection.bytes = total
            injection.finish = finish
            injection.arrival = finish + link.latency
            total += injection.total_bytes - injection.issued
            finish = finish_of(now, total, bandwidth)
            node = injection.next
    link.busy_start = now
    link.busy_bytes = total
    link.free_at = finish


@compiled
def find_broken(
    state: State, dead: NDArray[np.bool_], broken: NDArray[np.int64], on: NDArray[np.int64]
) -> int:
    """List the chunks on living links with a dead one ahead, and the links that they are on.

    Returns how many those are.
    """
    found = 0
    for at in range(len(state.links)):
        node = state.links[at].head
        while node != NONE:
            if node <= FIRST_INJECTION:
                node = state.injections[FIRST_INJECTION - node].next
                continue
            record = state.chunks[node]
            for hop in range(record.hop + 1, record.end_hop):
                if dead[state.hops[hop]]:
                    broken[found] = node
                    on[found] = at
                    found += 1
                    break
            node = record.next
    return found


@compiled
def rejoin(state: State, chunks: NDArray[np.int64], now: int) -> None:
    """Let pulled chunks join the first links of their new paths."""
    for at in range(len(chunks)):
        state.chunks[chunks[at]].hop += 1
        queue(state, chunks[at], now)


@compiled
def follow(
    state: State, chunks: NDArray[np.int64], node: NDArray[np.int64], link_src: NDArray[np.int32]
) -> None:
    """Let chunks go on along their flows' paths from the nodes that they come to."""
    for at in range(len(chunks)):
        record = state.chunks[chunks[at]]
        flow = state.flows[record.flow]
        record.hop = flow.first_hop
        while link_src[state.hops[record.hop]] != node[at]:
            record.hop += 1
        record.hop -= 1
        record.end_hop = flow.end_hop
