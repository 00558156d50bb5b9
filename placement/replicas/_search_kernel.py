"""Compiled search for one layer's replicas: a light busiest GPU, then few hops under a cap.

A layer is a tuple of arrays, ``(slot, count, where, share, has, heat, hops)``:

- slot int64 [GPUs, slots of each]: expert of every slot;
- count int64 [experts]: replicas;
- where int64 [experts, GPUs]: GPUs of the replicas, the first `count` of a row;
- share float64 [experts, GPUs]: load each of them takes under the rule;
- has bool [experts, GPUs]: whether a GPU holds an expert;
- heat float64 [GPUs]: load, in units of the mean;
- hops float64 [experts]: hops of an expert, times its load.

The setting is a tuple ``(nearest, inside, load, origin, distance, trip, cost)``: whether the rule
is nearest (else equal), GPUs a server, float64 [experts] in units of the mean GPU load, P(o),
distances, trips [origins, servers] and their mean over origins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layer: TypeAlias = tuple[Any, ...]
Setting: TypeAlias = tuple[Any, ...]
Shape: TypeAlias = tuple[int, int]

ROUNDING = 1e-11
"""Load above a cap that counts as none: the rounding of the search's running sums."""
HOT, COLD = 0.3, 0.03
"""Temperatures to start from: in mean loads of a slot at first, then in those of a GPU."""
EARLY, CYCLES = 0.4, 4
"""Part of a search that starts hot, so many times, to leave the start; the rest starts cold."""


@njit(cache=True)
def replica_counts(load: NDArray[np.float64], slots: int, gpus: int) -> NDArray[np.int64]:
    """Replicas of every expert so that the largest load / count is least, none above `gpus`."""
    count = np.ones(load.size, np.int64)
    for _ in range(slots - load.size):
        best = -1
        for e in range(load.size):
            if count[e] < gpus and (best < 0 or load[e] * count[best] > load[best] * count[e]):
                best = e
        count[best] += 1
    return count


@njit(cache=True)
def deal(
    share: NDArray[np.float64], count: NDArray[np.int64], order: NDArray[np.int64], shape: Shape
) -> NDArray[np.int64]:
    """Longest processing time first, never an expert twice on a GPU.

    Experts come in `order`, heaviest share first, each replica to the coolest GPU with room and
    without the expert. Where only GPUs that hold it have room, one of them takes a slot off a
    full GPU that does not.

    Parameters
    ----------
    share
        float64 [experts]: load of a replica.
    count, order
        int64 [experts]: replicas, none above the GPUs; turns.
    shape
        GPUs, and slots of each.

    Returns
    -------
    int64 [GPUs, slots of each]
    """
    gpus, room = shape
    slot = np.full((gpus, room), -1, np.int64)
    filled, heat = np.zeros(gpus, np.int64), np.zeros(gpus)
    has = np.zeros((share.size, gpus), np.bool_)
    dealt = slot, filled, heat, has
    for e in order:
        for _ in range(count[e]):
            best, full = -1, -1
            for g in range(gpus):
                if has[e, g]:
                    continue
                if filled[g] < room and (best < 0 or heat[g] < heat[best]):
                    best = g
                if filled[g] == room and (full < 0 or heat[g] < heat[full]):
                    full = g
            if best < 0:
                best = full
                _pass_on(dealt, best, int(np.argmin(filled)), share)
            slot[best, filled[best]] = e
            filled[best] += 1
            heat[best] += share[e]
            has[e, best] = True
    return slot


@njit(cache=True)
def _pass_on(dealt: tuple[Any, ...], giver: int, taker: int, share: NDArray[np.float64]) -> None:
    """Hand the first expert of a full GPU that another lacks to it.

    There is one: the other holds an expert that the full GPU lacks, and has a slot free.
    """
    slot, filled, heat, has = dealt
    for i in range(filled[giver]):
        e = slot[giver, i]
        if not has[e, taker]:
            filled[giver] -= 1
            slot[giver, i] = slot[giver, filled[giver]]
            slot[taker, filled[taker]] = e
            filled[taker] += 1
            has[e, giver], has[e, taker] = False, True
            heat[giver] -= share[e]
            heat[taker] += share[e]
            return


@njit(cache=True)
def split(
    setting: Setting, expert: int, where: NDArray[np.int64], n: int, share: NDArray[np.float64]
) -> float:
    """Fill `share` with the load of an expert's `n` replicas at `where`; return its hops."""
    nearest, inside, load, origin, distance, trip, cost = setting
    hops = 0.0
    if not nearest:
        for i in range(n):
            share[i] = load[expert] / n
            hops += share[i] * cost[where[i] // inside]
        return hops
    share[:n] = 0.0
    for o in range(origin.size):
        if origin[o] == 0.0:
            continue
        least, ties = distance[o, where[0] // inside], 1
        for i in range(1, n):
            far = distance[o, where[i] // inside]
            if far < least:
                least, ties = far, 1
            elif far == least:
                ties += 1
        part = origin[o] * load[expert] / ties
        for i in range(n):
            s = where[i] // inside
            if distance[o, s] == least:
                share[i] += part
                hops += part * trip[o, s]
    return hops


@njit(cache=True)
def open_layer(setting: Setting, slot: NDArray[np.int64]) -> Layer:
    """Make the tuple of a layer from its slots."""
    experts, gpus = setting[2].size, slot.shape[0]
    count, hops = np.zeros(experts, np.int64), np.zeros(experts)
    where = np.zeros((experts, gpus), np.int64)
    share, heat = np.zeros((experts, gpus)), np.zeros(gpus)
    has = np.zeros((experts, gpus), np.bool_)
    for g in range(gpus):
        for e in slot[g]:
            where[e, count[e]] = g
            has[e, g] = True
            count[e] += 1
    for e in range(experts):
        hops[e] = split(setting, e, where[e], count[e], share[e])
        for i in range(count[e]):
            heat[where[e, i]] += share[e, i]
    return slot, count, where, share, has, heat, hops


@njit(cache=True)
def excess(heat: NDArray[np.float64], cap: float) -> float:
    """Load above the cap, summed over GPUs."""
    total = 0.0
    for h in heat:
        total += max(0.0, h - cap)
    return total


@njit(cache=True)
def _shift(
    heat: NDArray[np.float64],
    where: NDArray[np.int64],
    share: NDArray[np.float64],
    n: int,
    sign: float,
    cap: float,
) -> float:
    """Add (or take away) an expert's shares; return the change of the excess."""
    change = 0.0
    for i in range(n):
        g = where[i]
        before = heat[g]
        heat[g] = before + sign * share[i]
        change += max(0.0, heat[g] - cap) - max(0.0, before - cap)
    return change


@njit(cache=True)
def _moved(where: NDArray[np.int64], n: int, leave: int, enter: int, new: NDArray[np.int64]) -> int:
    """Write an expert's GPUs after a move to `new`; -1 leaves or enters none. Return how many."""
    m = 0
    for i in range(n):
        if where[i] != leave:
            new[m] = where[i]
            m += 1
    if enter >= 0:
        new[m] = enter
        m += 1
    return m


@njit(cache=True)
def _try(
    rng: np.random.Generator,
    setting: Setting,
    layer: Layer,
    move: tuple[int, int, int, int],
    prices: tuple[float, float, float, float],
    scratch: tuple[Any, ...],
) -> tuple[bool, float]:
    """Make a move if it is good or lucky; return whether, and the change of the excess.

    Parameters
    ----------
    move
        GPU and position whose expert gives way, and GPU and position of the expert that comes;
        a second GPU of -1 - e means that expert e comes as a new replica (no swap).
    prices
        Of a hop, of load above the cap, the cap, and the temperature.
    scratch
        Rows to work in.
    """
    slot, count, where, share, has, heat, hops = layer
    g, i, h, j = move
    per_hop, per_load, cap, temperature = prices
    new_e, share_e, new_f, share_f = scratch
    e = slot[g, i]
    swap = h >= 0
    f = slot[h, j] if swap else -1 - h
    n_e = _moved(where[e], count[e], g, h if swap else -1, new_e)
    n_f = _moved(where[f], count[f], h if swap else -1, g, new_f)
    hops_e = split(setting, e, new_e, n_e, share_e)
    hops_f = split(setting, f, new_f, n_f, share_f)
    change = _shift(heat, where[e], share[e], count[e], -1.0, cap)
    change += _shift(heat, where[f], share[f], count[f], -1.0, cap)
    change += _shift(heat, new_e, share_e, n_e, 1.0, cap)
    change += _shift(heat, new_f, share_f, n_f, 1.0, cap)
    worse = per_load * change + per_hop * (hops_e + hops_f - hops[e] - hops[f])
    if worse > 0.0 and rng.random() >= np.exp(-worse / temperature):
        _shift(heat, new_f, share_f, n_f, -1.0, cap)
        _shift(heat, new_e, share_e, n_e, -1.0, cap)
        _shift(heat, where[f], share[f], count[f], 1.0, cap)
        _shift(heat, where[e], share[e], count[e], 1.0, cap)
        return False, 0.0
    count[e], count[f], hops[e], hops[f] = n_e, n_f, hops_e, hops_f
    where[e, :n_e], share[e, :n_e] = new_e[:n_e], share_e[:n_e]
    where[f, :n_f], share[f, :n_f] = new_f[:n_f], share_f[:n_f]
    slot[g, i] = f
    has[e, g], has[f, g] = False, True
    if swap:
        slot[h, j] = e
        has[e, h], has[f, h] = True, False
    return True, change


@njit(cache=True)
def _propose(
    rng: np.random.Generator, layer: Layer, hot: int
) -> tuple[bool, tuple[int, int, int, int]]:
    """Draw a move: a swap of two slots, or a replica of one expert replaced by one of another.

    Parameters
    ----------
    hot
        A GPU that the move should cool, or -1 for any: one of its slots is swapped or replaced,
        or one of its experts gets a replica elsewhere.

    Returns
    -------
    Whether the move is possible, and the move.
    """
    slot, count, _, _, has, _, _ = layer
    gpus, room = slot.shape
    g = hot if hot >= 0 else rng.integers(0, gpus)
    i, h, j = rng.integers(0, room), rng.integers(0, gpus), rng.integers(0, room)
    e, f = slot[g, i], slot[h, j]
    kind = rng.random()
    if kind < 0.6:
        return e != f and not has[e, h] and not has[f, g], (g, i, h, j)
    if kind < 0.8:
        # Expert f gets a further replica on g in place of e, or e one on h in place of f.
        return count[e] > 1 and not has[f, g], (g, i, -1 - f, 0)
    return count[f] > 1 and not has[e, h], (h, j, -1 - e, 0)


@njit(cache=True)
def _temperature(done: float, room: int) -> float:
    """Temperature when a part of the search is done: it falls a thousandfold, in cycles."""
    if done < EARLY:
        return float(HOT / room * 1e-3 ** (done / EARLY * CYCLES % 1.0))
    return float(COLD * 1e-3 ** ((done - EARLY) / (1 - EARLY)))


@njit(cache=True)
def _rows(gpus: int) -> tuple[Any, ...]:
    """Rows for the GPUs and shares of two experts; a move may pass one GPU beyond all."""
    size = gpus + 1
    return np.empty(size, np.int64), np.empty(size), np.empty(size, np.int64), np.empty(size)


@njit(cache=True)
def least_maximum(
    rng: np.random.Generator,
    setting: Setting,
    slot: NDArray[np.int64],
    bound: float,
    steps: int,
) -> NDArray[np.int64]:
    """Search for a light busiest GPU from `slot`, which stays the answer if none is lighter.

    Annealing of the load above a target that is lowered, towards `bound`, whenever it is met;
    the temperature falls in cycles.
    """
    layer = open_layer(setting, slot.copy())
    heat, gpus = layer[5], slot.shape[0]
    scratch = _rows(gpus)
    best, least = slot.copy(), heat.max()
    cap = bound + 0.9 * (least - bound)
    over, hot = excess(heat, cap), np.argmax(heat)
    for step in range(steps):
        if least <= bound * (1 + 1e-6):
            break
        temperature = _temperature(step / steps, slot.shape[1])
        possible, move = _propose(rng, layer, int(hot) if rng.random() < 0.5 else -1)
        if not possible:
            continue
        made, change = _try(rng, setting, layer, move, (0.0, 1.0, cap, temperature), scratch)
        if not made:
            continue
        over += change
        hot = np.argmax(heat)
        if heat[hot] < least - ROUNDING:
            least = heat[hot]
            best[:] = layer[0]
        if over <= ROUNDING:
            cap = bound + 0.9 * (least - bound)
            over = excess(heat, cap)
    return best


@njit(cache=True)
def fewest_hops(
    rng: np.random.Generator,
    setting: Setting,
    slot: NDArray[np.int64],
    cap: float,
    steps: int,
) -> NDArray[np.int64]:
    """Search for few hops with no GPU above `cap`, from `slot`, which must keep it.

    Annealing of hops plus a price on load above the cap that no saving of hops outweighs.
    """
    layer = open_layer(setting, slot.copy())
    heat, hops, gpus = layer[5], layer[6], slot.shape[0]
    scratch = _rows(gpus)
    best, fewest = slot.copy(), hops.sum()
    span = max(setting[5].max() - setting[5].min(), 1e-9)
    total, over = fewest, excess(heat, cap)
    for step in range(steps):
        temperature = span * _temperature(step / steps, slot.shape[1])
        hot = int(np.argmax(heat)) if over > ROUNDING and rng.random() < 0.3 else -1
        possible, move = _propose(rng, layer, hot)
        if not possible:
            continue
        made, change = _try(rng, setting, layer, move, (1.0, 1.5 * span, cap, temperature), scratch)
        if not made:
            continue
        over += change
        if over > ROUNDING:
            continue
        total = hops.sum()
        if total < fewest - 1e-9:
            fewest = total
            best[:] = layer[0]
    return best
