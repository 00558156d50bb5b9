"""Compiled search of one layer's slots for links that are no busier than a target.

Loads and costs come scaled so that a link at its target reads 1. What is minimised is the
*excess*: the sum over links of ``max(0, reading - 1)^2``, zero where every link keeps its target,
and, weighed `HARD`, the same of the caps on loads. It is kept per server (own links and caps) and
for the fabric as a whole, so that a proposal costs two servers and the fabric's few rows.

``fabric`` is (own_cost [kinds, 3, gpus], fabric_cost [rows, classes], class_of_gpu,
GPUs of a server, GPU cap, server cap); ``state`` is (gpu_load, server_load, row reading,
server_excess).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

HARD = 100.0
SETTLED = 1e-20
"""Excess that is rounding."""
REASSIGNS, MOVES = 0.05, 0.3
"""Of all proposals, those that reassign a slot, and those that do or move one."""


@njit(cache=True)
def _draw(random: NDArray[np.uint64]) -> Any:
    """Return a uniform float64 in [0, 1) (SplitMix64)."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _over(reading: float) -> Any:
    return (reading - 1.0) ** 2 if reading > 1.0 else 0.0


@njit(cache=True)
def _server_excess(server: int, fabric: tuple[Any, ...], state: tuple[Any, ...]) -> Any:
    own, _, _, size, gpu_cap, server_cap = fabric
    gpu_load, server_load = state[0], state[1]
    total = HARD * _over(server_load[server] / server_cap)
    for gpu in range(server * size, (server + 1) * size):
        total += HARD * _over(gpu_load[gpu] / gpu_cap)
        for kind in range(own.shape[0]):
            total += _over(
                own[kind, 0, gpu] * gpu_load[gpu]
                + own[kind, 1, gpu] * server_load[server]
                + own[kind, 2, gpu]
            )
    return total


@njit(cache=True)
def _rows_excess(rows: NDArray[np.float64]) -> Any:
    total = 0.0
    for reading in rows:
        total += _over(reading)
    return total


@njit(cache=True)
def _shift(gpu: int, load: float, fabric: tuple[Any, ...], state: tuple[Any, ...]) -> None:
    """Add load to a GPU, its server and the fabric."""
    cost, class_of_gpu, size = fabric[1], fabric[2], fabric[3]
    state[0][gpu] += load
    state[1][gpu // size] += load
    at = class_of_gpu[gpu]
    for row in range(cost.shape[0]):
        state[2][row] += cost[row, at] * load


@njit(cache=True)
def _open(
    slots: tuple[Any, ...], load: NDArray[np.float64], fabric: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Return the state of an assignment."""
    slot_gpu, slot_expert, replicas = slots
    gpus, size = len(fabric[2]), fabric[3]
    state = (
        np.zeros(gpus),
        np.zeros(gpus // size),
        np.zeros(fabric[1].shape[0]),
        np.zeros(gpus // size),
    )
    for slot in range(len(slot_gpu)):
        expert = slot_expert[slot]
        _shift(slot_gpu[slot], load[expert] / replicas[expert], fabric, state)
    for server in range(gpus // size):
        state[3][server] = _server_excess(server, fabric, state)
    return state


@njit(cache=True)
def _holds(slots: tuple[Any, ...], gpus: int) -> NDArray[np.bool_]:
    """bool [experts, gpus]: which GPU holds which expert."""
    held = np.zeros((len(slots[2]), gpus), dtype=np.bool_)
    for slot in range(len(slots[0])):
        held[slots[1][slot], slots[0][slot]] = True
    return held


@njit(cache=True)
def _relieve(
    gpu: int,
    other: int,
    load: float,
    fabric: tuple[Any, ...],
    state: tuple[Any, ...],
    excess: float,
    limit: float,
) -> Any:
    """Move load from one GPU to another unless the excess would pass the limit; say so."""
    size = fabric[3]
    here, there = gpu // size, other // size
    before = state[3][here] + (state[3][there] if there != here else 0.0)
    same = fabric[2][gpu] == fabric[2][other]
    rows = 0.0 if same else _rows_excess(state[2])
    _shift(gpu, -load, fabric, state)
    _shift(other, load, fabric, state)
    first = _server_excess(here, fabric, state)
    second = _server_excess(there, fabric, state) if there != here else 0.0
    after = excess - before - rows + first + second
    if not same:
        after += _rows_excess(state[2])
    if after > limit:
        _shift(gpu, load, fabric, state)
        _shift(other, -load, fabric, state)
        return False, excess
    state[3][here] = first
    if there != here:
        state[3][there] = second
    return True, max(after, 0.0)


@njit(cache=True)
def _reassign(
    slot: int,
    expert: int,
    slots: tuple[Any, ...],
    load: NDArray[np.float64],
    fabric: tuple[Any, ...],
    state: tuple[Any, ...],
) -> Any:
    """Give a slot to another expert, all replicas sharing anew; return the whole excess."""
    slot_gpu, slot_expert, replicas = slots
    old = slot_expert[slot]
    for which, step in ((old, -1), (expert, 1)):
        change = load[which] / (replicas[which] + step) - load[which] / replicas[which]
        for at in range(len(slot_gpu)):
            if slot_expert[at] == which:
                _shift(slot_gpu[at], change, fabric, state)
    _shift(slot_gpu[slot], -load[old] / (replicas[old] - 1), fabric, state)
    _shift(slot_gpu[slot], load[expert] / (replicas[expert] + 1), fabric, state)
    replicas[old] -= 1
    replicas[expert] += 1
    slot_expert[slot] = expert
    total = _rows_excess(state[2])
    for server in range(len(state[3])):
        state[3][server] = _server_excess(server, fabric, state)
        total += state[3][server]
    return total


@njit(cache=True)
def _try_swap(
    slots: tuple[Any, ...],
    ends: tuple[int, int],
    load: NDArray[np.float64],
    fabric: tuple[Any, ...],
    books: tuple[Any, ...],
    excess: float,
    limit: float,
) -> Any:
    """Let two slots swap GPUs if the excess stays within the limit; return it."""
    slot_gpu, slot_expert, replicas = slots
    state, held = books[0], books[1]
    one, two = ends
    gpu, mine, to, theirs = slot_gpu[one], slot_expert[one], slot_gpu[two], slot_expert[two]
    if to == gpu or held[mine, to] or held[theirs, gpu]:
        return excess
    part = load[mine] / replicas[mine] - load[theirs] / replicas[theirs]
    done, excess = _relieve(gpu, to, part, fabric, state, excess, limit)
    if done:
        slot_gpu[one], slot_gpu[two] = to, gpu
        held[mine, gpu] = held[theirs, to] = False
        held[mine, to] = held[theirs, gpu] = True
    return excess


@njit(cache=True)
def _try_move(
    slots: tuple[Any, ...],
    ends: tuple[int, int],
    load: NDArray[np.float64],
    fabric: tuple[Any, ...],
    books: tuple[Any, ...],
    excess: float,
    limit: float,
) -> Any:
    """Move a slot to a GPU if there is room and the excess stays within the limit; return it."""
    slot_gpu, slot_expert, replicas = slots
    state, held, counts = books
    on_gpu, gpu_least, gpu_most, on_server, server_least, server_most = counts
    slot, to = ends
    gpu, mine, size = slot_gpu[slot], slot_expert[slot], fabric[3]
    here, there = gpu // size, to // size
    if held[mine, to] or on_gpu[gpu] <= gpu_least[gpu] or on_gpu[to] >= gpu_most[to]:
        return excess
    if here != there and (
        on_server[here] <= server_least[here] or on_server[there] >= server_most[there]
    ):
        return excess
    part = load[mine] / replicas[mine]
    done, excess = _relieve(gpu, to, part, fabric, state, excess, limit)
    if done:
        slot_gpu[slot] = to
        held[mine, gpu], held[mine, to] = False, True
        on_gpu[gpu] -= 1
        on_gpu[to] += 1
        on_server[here] -= 1
        on_server[there] += 1
    return excess


@njit(cache=True)
def _try_reassign(
    slots: tuple[Any, ...],
    ends: tuple[int, int],
    load: NDArray[np.float64],
    fabric: tuple[Any, ...],
    books: tuple[Any, ...],
    excess: float,
    limit: float,
) -> Any:
    """Give a slot to another expert if the excess stays within the limit; return it."""
    slot_gpu, slot_expert, _ = slots
    state, held = books[0], books[1]
    slot, other = ends
    gpu, mine = slot_gpu[slot], slot_expert[slot]
    if held[other, gpu]:
        return excess
    after = _reassign(slot, other, slots, load, fabric, state)
    if after > limit:
        return _reassign(slot, mine, slots, load, fabric, state)
    held[mine, gpu], held[other, gpu] = False, True
    return after


@njit(cache=True)
def _partner(
    slot: int, slot_gpu: NDArray[np.int64], fabric: tuple[Any, ...], random: NDArray[np.uint64]
) -> Any:
    """Draw a slot of the same class; after many misses, the slot itself."""
    mine = fabric[2][slot_gpu[slot]]
    for _ in range(256):
        other = int(_draw(random) * len(slot_gpu))
        if fabric[2][slot_gpu[other]] == mine:
            return other
    return slot


@njit(cache=True)
def search(
    slots: tuple[Any, ...],
    load: NDArray[np.float64],
    fabric: tuple[Any, ...],
    counts: tuple[Any, ...],
    random: NDArray[np.uint64],
    schedule: tuple[float, float, int, float],
    inside: bool,
) -> float:
    """Anneal an assignment in place until nothing is in excess; return the excess left.

    Proposals: two slots swap GPUs; a slot moves to a GPU with room; a replica's slot goes to
    another expert. No GPU ever holds an expert twice.

    Parameters
    ----------
    slots
        (slot_gpu, slot_expert [slots], replicas [experts]), changed in place.
    load
        float64 [experts].
    fabric
        As in the module's docstring.
    counts
        (slots on a GPU, least, most; on a server, least, most), int64; equal least and most
        everywhere mean that nothing moves.
    random
        uint64 [1]: state of the generator.
    schedule
        First and last temperature in units of excess, proposals at most, and the load per
        replica above which an expert gives none of its replicas away.
    inside
        Whether slots stay in their class, and replicas as they are.
    """
    slot_gpu, slot_expert, replicas = slots
    state, held = _open(slots, load, fabric), _holds(slots, len(counts[0]))
    books = (state, held, counts)
    excess = _rows_excess(state[2]) + state[3].sum()
    moving = (counts[1] < counts[2]).any() and not inside
    spare = replicas.max() > 1 and not inside
    warmth, last, proposals, most_share = schedule
    cooling = (last / warmth) ** (1.0 / max(proposals, 1))
    for _ in range(proposals):
        if excess <= SETTLED:
            break
        warmth *= cooling
        limit = excess - warmth * np.log(1.0 - _draw(random))
        one, kind = int(_draw(random) * len(slot_gpu)), _draw(random)
        if spare and kind < REASSIGNS:
            mine, ends = slot_expert[one], (one, int(_draw(random) * len(load)))
            if replicas[mine] > 1 and load[mine] <= most_share * (replicas[mine] - 1):
                excess = _try_reassign(slots, ends, load, fabric, books, excess, limit)
        elif moving and kind < MOVES:
            ends = (one, int(_draw(random) * len(counts[0])))
            excess = _try_move(slots, ends, load, fabric, books, excess, limit)
        else:
            two = int(_draw(random) * len(slot_gpu))
            ends = (one, _partner(one, slot_gpu, fabric, random) if inside else two)
            excess = _try_swap(slots, ends, load, fabric, books, excess, limit)
    return float(_rows_excess(state[2]) + state[3].sum())


@njit(cache=True)
def deal_counts(
    slots: int,
    total: tuple[Any, ...],
    most: tuple[Any, ...],
) -> NDArray[np.int64]:
    """Give each slot of a layer to the GPU that has had the fewest so far, servers in turn.

    Parameters
    ----------
    slots
        Slots of the layer.
    total
        (GPU, server) totals of earlier layers, int64; raised in place.
    most
        (of a layer on a GPU, on a server; in all on a GPU, on a server).

    Returns
    -------
    int64 [gpus]: slots of this layer; fewer in sum than asked where the caps leave no room.
    """
    of_gpu, of_server = total
    gpus, servers = len(of_gpu), len(of_server)
    size = gpus // servers
    count = np.zeros(gpus, dtype=np.int64)
    inside = np.zeros(servers, dtype=np.int64)
    for _ in range(slots):
        best = -1
        for gpu in range(gpus):
            server = gpu // size
            if count[gpu] >= most[0] or inside[server] >= most[1]:
                continue
            if of_gpu[gpu] >= most[2] or of_server[server] >= most[3]:
                continue
            if best >= 0:
                mine = (of_gpu[gpu], of_server[server])
                theirs = (of_gpu[best], of_server[best // size])
                if mine >= theirs:
                    continue
            best = gpu
        if best < 0:
            break
        count[best] += 1
        inside[best // size] += 1
        of_gpu[best] += 1
        of_server[best // size] += 1
    return count


@njit(cache=True)
def deal_slots(
    order: NDArray[np.int64],
    share: NDArray[np.float64],
    slot_expert: NDArray[np.int64],
    count: NDArray[np.int64],
    target: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Longest processing time first: each slot to the GPU that lacks most of its target load.

    Ties go to the GPU that takes the fewest slots, so that the hottest sit where little else must.

    Parameters
    ----------
    order
        int64 [slots]: heaviest first.
    share
        float64 [slots]: load of a slot.
    slot_expert
        int64 [slots].
    count
        int64 [gpus]: slots a GPU takes.
    target
        float64 [gpus].

    Returns
    -------
    int64 [slots]: GPU of every slot; -1 where only GPUs that hold the expert had room.
    """
    free, lack = count.copy(), target.copy()
    held = np.zeros((slot_expert.max() + 1, len(count)), dtype=np.bool_)
    slot_gpu = np.full(len(order), -1, dtype=np.int64)
    for slot in order:
        best = -1
        for gpu in range(len(count)):
            if free[gpu] == 0 or held[slot_expert[slot], gpu]:
                continue
            if best < 0 or (lack[gpu], -free[gpu]) > (lack[best], -free[best]):
                best = gpu
        if best >= 0:
            slot_gpu[slot] = best
            held[slot_expert[slot], best] = True
            free[best] -= 1
            lack[best] -= share[slot]
    return slot_gpu
