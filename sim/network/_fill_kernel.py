"""Max-min fair rates by progressive filling, compiled.

All flows rise together; a link that is full stops those that use it (Bertsekas and Gallager,
*Data Networks*, 6.5.2). A flow that uses the fraction f of a link takes ``f * rate`` of it. A
link fills at the level ``left / weight``: its capacity less what stopped flows take, over the
fractions of the others. As flows stop, levels only rise, so a heap of links needs no decrease:
its top is looked at again, and put back if its level has risen since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.network._compiled import compiled, inlined
from sim.network._fluid_state import BUNDLE, NONE

if TYPE_CHECKING:
    from sim.network._fluid_state import State

UNKNOWN = -1.0
"""Rate of a flow that is still rising."""


@compiled
def fill(state: State, begin: int, end: int) -> None:
    """Give the rows begin..end-1 their max-min rates in the capacity that is not used.

    ``links.used`` grows by what they take.
    """
    links, header = state.links, state.header[0]
    header.fills += 1
    _count_users(state, begin, end)
    _list_users(state, begin, end)
    _weigh(state)
    _open_heap(state)
    reached = 0.0
    while header.levels > 0:
        link = links.order[0]
        if links.users[link] == 0:
            _drop_top(state)
            continue
        level = max(links.left[link], 0.0) / links.weight[link]
        if level > links.level[0]:
            _sift(state, 0, level, link)
            continue
        _drop_top(state)
        reached = max(reached, level)
        _stop_flows(state, link, reached)
    for link in range(len(links.used)):
        links.used[link] = links.capacity[link] - links.left[link]


@compiled
def _count_users(state: State, begin: int, end: int) -> None:
    """Count the rows on every own link and in every bundle."""
    links, rows, bundles = state.links, state.rows, state.bundles
    links.users[:] = 0
    for bundle in range(len(bundles)):
        bundles[bundle].flows = 0
        bundles[bundle].frozen = 0
    for row in range(begin, end):
        rows.rate[row] = UNKNOWN
        way = rows.way[row]
        for side in range(2):
            if way[side] != NONE:
                links.users[way[side]] += 1
        if way[BUNDLE] != NONE:
            bundles[way[BUNDLE]].flows += 1


@compiled
def _list_users(state: State, begin: int, end: int) -> None:
    """List the rows of every own link and bundle, by counting sort."""
    links, rows, bundles = state.links, state.rows, state.bundles
    total = 0
    for link in range(len(links.users)):
        links.first_own[link] = total
        total += links.users[link]
    links.first_own[len(links.users)] = total
    total = 0
    for index in range(len(bundles)):
        bundle = bundles[index]
        bundle.first_row = total
        bundle.end_row = total
        total += bundle.flows
    for row in range(begin, end):
        way = rows.way[row]
        for side in range(2):
            if way[side] != NONE:
                rows.own_row[links.first_own[way[side]]] = row
                links.first_own[way[side]] += 1
        if way[BUNDLE] != NONE:
            bundle = bundles[way[BUNDLE]]
            rows.bundle_row[bundle.end_row] = row
            bundle.end_row += 1
    for link in range(len(links.users), 0, -1):
        links.first_own[link] = links.first_own[link - 1]
    links.first_own[0] = 0


@compiled
def _weigh(state: State) -> None:
    """Add the bundles to their links: flows, fractions, and the list of bundles by link."""
    links, bundles, entries = state.links, state.bundles, state.entries
    first = links.first_entry
    first[:] = 0
    for link in range(len(links.users)):
        links.left[link] = links.capacity[link] - links.used[link]
        links.weight[link] = links.users[link]
    for index in range(len(bundles)):
        bundle = bundles[index]
        if bundle.flows > 0:
            for at in range(bundle.begin, bundle.end):
                link = entries[at].link
                first[link] += 1
                links.users[link] += bundle.flows
                links.weight[link] += bundle.flows * entries[at].fraction
    total = 0
    for link in range(len(first)):
        here = first[link]
        first[link] = total
        total += here
    for index in range(len(bundles)):
        bundle = bundles[index]
        if bundle.flows > 0:
            for at in range(bundle.begin, bundle.end):
                link = entries[at].link
                state.crossing[first[link]] = index
                first[link] += 1
    for link in range(len(first) - 1, 0, -1):
        first[link] = first[link - 1]
    first[0] = 0


@inlined
def _stop_flows(state: State, full: int, level: float) -> None:
    """Give all rising flows of a full link its level."""
    links, rows = state.links, state.rows
    state.header[0].touched = 0
    stopped = 0
    for at in range(links.first_own[full], links.first_own[full + 1]):
        stopped += _stop_flow(state, rows.own_row[at], level, full)
    for at in range(links.first_entry[full], links.first_entry[full + 1]):
        bundle = state.bundles[state.crossing[at]]
        if bundle.flows > bundle.frozen:
            for place in range(bundle.first_row, bundle.end_row):
                _stop_flow(state, rows.bundle_row[place], level, full)
    links.left[full] -= level * stopped
    for at in range(state.header[0].touched):
        bundle = state.bundles[state.touched[at]]
        for place in range(bundle.begin, bundle.end):
            entry = state.entries[place]
            part = bundle.frozen * entry.fraction
            links.left[entry.link] -= level * part
            links.weight[entry.link] -= part
            links.users[entry.link] -= bundle.frozen
        bundle.flows -= bundle.frozen
        bundle.frozen = 0
    links.users[full] = 0


@inlined
def _stop_flow(state: State, row: int, level: float, full: int) -> int:
    """Take a rising flow off its own links but the full one, and note it in its bundle.

    Returns how many flows that stopped.
    """
    links, rows = state.links, state.rows
    if rows.rate[row] != UNKNOWN:
        return 0
    rows.rate[row] = level
    way = rows.way[row]
    for end in range(2):
        link = way[end]
        if link not in (NONE, full):
            links.left[link] -= level
            links.weight[link] -= 1.0
            links.users[link] -= 1
    if way[BUNDLE] != NONE:
        bundle = state.bundles[way[BUNDLE]]
        if bundle.frozen == 0:
            state.touched[state.header[0].touched] = way[BUNDLE]
            state.header[0].touched += 1
        bundle.frozen += 1
    return 1


@compiled
def _open_heap(state: State) -> None:
    """Make a heap of the links in use."""
    links, header = state.links, state.header[0]
    size = 0
    for link in range(len(links.users)):
        if links.users[link] > 0:
            links.order[size] = link
            links.level[size] = max(links.left[link], 0.0) / links.weight[link]
            size += 1
    header.levels = size
    for place in range(size // 2 - 1, -1, -1):
        _sift(state, place, links.level[place], links.order[place])


@inlined
def _drop_top(state: State) -> None:
    links, header = state.links, state.header[0]
    header.levels -= 1
    if header.levels > 0:
        _sift(state, 0, links.level[header.levels], links.order[header.levels])


@inlined
def _sift(state: State, place: int, level: float, link: int) -> None:
    """Put a link into the heap at `place` or below."""
    links, size = state.links, state.header[0].levels
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and links.level[child + 1] < links.level[child]:
            child += 1
        if links.level[child] >= level:
            break
        links.level[place] = links.level[child]
        links.order[place] = links.order[child]
        place = child
    links.level[place] = level
    links.order[place] = link
