"""Compiled search of one layer's slots for links that are no busier than a target.

A proposal is taken or left by the excess it leaves (`_excess_kernel`). ``layer`` is all that one
changes or reads: (slots, load [experts], fabric, (state, held [experts, gpus], counts)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from placement.congestion._excess_kernel import excess_of, held_by, open_state, reassign, relieve

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
def _try_swap(ends: tuple[int, int], layer: tuple[Any, ...], excess: float, limit: float) -> Any:
    """Let two slots swap GPUs if the excess stays within the limit; return it."""
    (slot_gpu, slot_expert, replicas), load, fabric, (state, held, _) = layer
    one, two = ends
    gpu, mine, to, theirs = slot_gpu[one], slot_expert[one], slot_gpu[two], slot_expert[two]
    if to == gpu or held[mine, to] or held[theirs, gpu]:
        return excess
    part = load[mine] / replicas[mine] - load[theirs] / replicas[theirs]
    done, excess = relieve(gpu, to, part, fabric, state, excess, limit)
    if done:
        slot_gpu[one], slot_gpu[two] = to, gpu
        held[mine, gpu] = held[theirs, to] = False
        held[mine, to] = held[theirs, gpu] = True
    return excess


@njit(cache=True)
def _try_move(ends: tuple[int, int], layer: tuple[Any, ...], excess: float, limit: float) -> Any:
    """Move a slot to a GPU if there is room and the excess stays within the limit; return it."""
    (slot_gpu, slot_expert, replicas), load, fabric, (state, held, counts) = layer
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
    done, excess = relieve(gpu, to, part, fabric, state, excess, limit)
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
    ends: tuple[int, int], layer: tuple[Any, ...], excess: float, limit: float
) -> Any:
    """Give a slot to another expert if the excess stays within the limit; return it."""
    slots, load, fabric, (state, held, _) = layer
    slot_gpu, slot_expert, _ = slots
    slot, other = ends
    gpu, mine = slot_gpu[slot], slot_expert[slot]
    if held[other, gpu]:
        return excess
    after = reassign(slot, other, slots, load, fabric, state)
    if after > limit:
        return reassign(slot, mine, slots, load, fabric, state)
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
        As in `_excess_kernel`.
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
    state = open_state(slots, load, fabric)
    layer = (slots, load, fabric, (state, held_by(slots, len(counts[0])), counts))
    excess = excess_of(state)
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
                excess = _try_reassign(ends, layer, excess, limit)
        elif moving and kind < MOVES:
            ends = (one, int(_draw(random) * len(counts[0])))
            excess = _try_move(ends, layer, excess, limit)
        else:
            two = int(_draw(random) * len(slot_gpu))
            ends = (one, _partner(one, slot_gpu, fabric, random) if inside else two)
            excess = _try_swap(ends, layer, excess, limit)
    return float(excess_of(state))
