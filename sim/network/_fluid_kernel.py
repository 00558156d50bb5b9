"""The compiled loop of the fluid network: flows at max-min fair rates, in float64 ns.

Rates hold from one filling to the next. Exact rates are computed anew whenever a flow joins or
ends (those that end within a billionth of the time since the last filling, together). The lazy
rule with K steps waits for 1/K of the time that flows under way still need at their present
rates, on average over the collective that needs least (or needed least alone, so that its tail
does not set the pace of the next), but for the end of a flow at least; what flows that end in
between used stands idle. Flows that join while others flow share what is idle
at once, and wait for the rest no longer than 1/K of what flows of their collective take alone.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING

from sim.network._compiled import compiled, inlined
from sim.network._fill_kernel import fill
from sim.network._fluid_state import ACCOUNT, BUNDLE, NONE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sim.network._fluid_state import State

FINISHED = -1.0
"""`finish` of a flow that has ended."""
TOGETHER = 1e-9
"""Flows that end so close, relative to the time since the last filling, end together."""
FORGIVEN_NS = 1e-6
"""What floating point may leave above a whole nanosecond."""
BACKWARDS = -3
"""`join`: the flows would start before the kernel's clock."""


@compiled
def join(state: State, count: int, now: float) -> int:
    """Let the `count` flows written behind the table join at `now`."""
    header = state.header[0]
    if now < header.now - FORGIVEN_NS:
        return BACKWARDS
    header.now = max(header.now, now)
    for row in range(header.rows, header.rows + count):
        state.rows.since[row] = header.now
        state.rows.rate[row] = 0.0
        state.rows.finish[row] = inf
    header.rows += count
    header.alive += count
    return 0


@compiled
def advance(state: State, until: float, ready: NDArray[np.int64]) -> int:
    """Let time pass up to `until`, or to the first whole ns by which an inbox has everything.

    Parameters
    ----------
    state
        Of the network.
    until
        ns.
    ready
        int64 [inboxes], filled with the inboxes whose last flow has ended.

    Returns
    -------
    int
        How many those are.
    """
    header, rows = state.header[0], state.rows
    found = 0
    while header.alive > 0:
        next_end = rows.finish[rows.heap[0]] if header.events > 0 else inf
        over = next_end <= header.now + FORGIVEN_NS
        if header.now >= until and not over:
            break
        if header.settled < header.rows and not over:
            _admit(state)
        elif header.now >= header.due and not over:
            renew(state)
        elif next_end <= min(until, header.due) or over:
            inbox = _finish(state, _pop(state))
            if inbox != NONE:
                ready[found] = inbox
                found += 1
                until = min(until, ceil(state.inboxes[inbox].ready - FORGIVEN_NS))
        else:
            header.now = min(until, header.due)
    return found


@compiled
def close_books(state: State) -> None:
    """Write all that links have sent into their books."""
    for link in range(len(state.links.used)):
        _book(state, link)


@compiled
def settle(state: State, now: float) -> None:
    """Bring the books and the remaining bytes up to `now`; `renew` must follow."""
    header = state.header[0]
    header.now = max(header.now, now)
    close_books(state)
    _compact(state)


@compiled
def _admit(state: State) -> None:
    """Give the flows that have just joined rates: all anew, or a part of what is idle."""
    header, rows = state.header[0], state.rows
    begin = header.settled
    if header.alive == header.rows - begin or header.steps == inf:
        renew(state)
        return
    close_books(state)
    fill(state, begin, header.rows)
    header.settled = header.rows
    for row in range(begin, header.rows):
        header.due = min(header.due, header.now + state.accounts[rows.way[row, ACCOUNT]].patience)
        _set_finish(state, row)
        _push(state, row)


@compiled
def renew(state: State) -> None:
    """Compute the rates of all flows, and line up those that end before that is due again."""
    header, rows = state.header[0], state.rows
    close_books(state)
    _compact(state)
    state.links.used[:] = 0.0
    fill(state, 0, header.rows)
    header.settled = header.rows
    first = inf
    for row in range(header.rows):
        _set_finish(state, row)
        first = min(first, rows.finish[row])
    header.due = first + TOGETHER * (first - header.now)
    if header.steps != inf:
        header.due = max(header.due, header.now + _least_need(state) / header.steps)
    header.events = 0
    for row in range(header.rows):
        if rows.finish[row] <= header.due:
            _push(state, row)


@compiled
def _least_need(state: State) -> float:
    """ns that a flow still needs, on average over the collective that needs least."""
    header, rows, accounts = state.header[0], state.rows, state.accounts
    for index in range(len(accounts)):
        accounts[index].flows = 0
        accounts[index].need = 0.0
    for row in range(header.rows):
        account = accounts[rows.way[row, ACCOUNT]]
        account.flows += 1
        account.need += rows.finish[row] - header.now
    least = inf
    for index in range(len(accounts)):
        account = accounts[index]
        if account.flows > 0:
            alone = account.patience * header.steps
            least = min(least, max(account.need / account.flows, alone))
    return least


@inlined
def _set_finish(state: State, row: int) -> None:
    rows = state.rows
    if rows.rate[row] > 0.0:
        rows.finish[row] = state.header[0].now + rows.rest[row] / rows.rate[row]
    else:
        rows.finish[row] = inf


@compiled
def _compact(state: State) -> None:
    """Bring the remaining bytes up to date and drop the rows of flows that have ended."""
    header, rows = state.header[0], state.rows
    to = 0
    for row in range(header.rows):
        if rows.finish[row] == FINISHED:
            continue
        sent = rows.rate[row] * (header.now - rows.since[row])
        for each in range(rows.way.shape[1]):
            rows.way[to, each] = rows.way[row, each]
        rows.inbox[to] = rows.inbox[row]
        rows.delivery[to] = rows.delivery[row]
        rows.size[to] = rows.size[row]
        rows.latency[to] = rows.latency[row]
        rows.rest[to] = max(rows.rest[row] - sent, 0.0)
        rows.since[to] = header.now
        rows.rate[to] = rows.rate[row]
        rows.finish[to] = rows.finish[row]
        to += 1
    header.rows = to


@inlined
def _finish(state: State, row: int) -> int:
    """End a flow; returns its inbox if that now has everything."""
    header, rows, links = state.header[0], state.rows, state.links
    header.now = max(header.now, rows.finish[row])
    # Where a flow has changed its path, what went before may be on the longer one.
    delivered = max(state.delivered[rows.delivery[row]], header.now + rows.latency[row])
    rows.finish[row] = FINISHED
    header.alive -= 1
    state.delivered[rows.delivery[row]] = delivered
    for end in range(2):
        link = rows.way[row, end]
        if link != NONE:
            _book(state, link)
            links.used[link] -= rows.rate[row]
            state.carried[rows.way[row, ACCOUNT], link] += rows.size[row]
    if rows.way[row, BUNDLE] != NONE:
        bundle = state.bundles[rows.way[row, BUNDLE]]
        bundle.carried += rows.size[row]
        for at in range(bundle.begin, bundle.end):
            entry = state.entries[at]
            _book(state, entry.link)
            links.used[entry.link] -= rows.rate[row] * entry.fraction
    inbox = state.inboxes[rows.inbox[row]]
    inbox.left -= 1
    inbox.ready = max(inbox.ready, delivered)
    return rows.inbox[row] if inbox.left == 0 else NONE


@inlined
def _book(state: State, link: int) -> None:
    """Write what a link has sent since it was last booked into its books."""
    links, now = state.links, state.header[0].now
    start = links.since[link]
    if start >= now:
        return
    links.since[link] = now
    share = links.used[link] / links.capacity[link]
    if share <= 0.0:
        return
    links.busy[link] += share * (now - start)
    while now > links.bins.shape[1] << state.header[0].bin_shift:
        _double_bins(state)
    width = float(1 << state.header[0].bin_shift)
    index = int(start / width)
    while start < now:
        end = min(now, (index + 1) * width)
        links.bins[link, index] += share * (end - start)
        start = end
        index += 1


@compiled
def _double_bins(state: State) -> None:
    """Make the bins twice as wide: a run of any length fits into the same memory."""
    bins = state.links.bins
    half = bins.shape[1] // 2
    for link in range(bins.shape[0]):
        for index in range(half):
            bins[link, index] = bins[link, 2 * index] + bins[link, 2 * index + 1]
        bins[link, half:] = 0.0
    state.header[0].bin_shift += 1


@inlined
def _push(state: State, row: int) -> None:
    """Put a flow into the heap of ends, if it ends before the rates are computed anew."""
    header, heap = state.header[0], state.rows.heap
    if state.rows.finish[row] > header.due:
        return
    place = header.events
    header.events += 1
    while place > 0:
        parent = (place - 1) >> 1
        if not _before(state, row, heap[parent]):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = row


@inlined
def _pop(state: State) -> int:
    """Take the flow that ends first from the heap."""
    header, heap = state.header[0], state.rows.heap
    top: int = heap[0]
    header.events -= 1
    size = header.events
    row = heap[size]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(state, heap[child + 1], heap[child]):
            child += 1
        if not _before(state, heap[child], row):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = row
    return top


@inlined
def _before(state: State, row: int, other: int) -> bool:
    ends, others = state.rows.finish[row], state.rows.finish[other]
    return ends < others or (ends == others and row < other)
