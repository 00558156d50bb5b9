"""Compiled annealing of GPUs' experts: the busiest GPU of every layer, and all traffic."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, NamedTuple

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Caps(NamedTuple):
    """Most experts of one layer and in all, on a GPU and on a server of `inside` GPUs."""

    inside: int
    gpu_layer: int
    gpu_total: int
    server_layer: int
    server_total: int


class State(NamedTuple):
    """An assignment and the sums that a step changes; all arrays are changed in place.

    Attributes
    ----------
    gpu
        int64 [layers, experts].
    busy, pull
        float64 [layers, GPUs]: sums of `Prices.work` and `Prices.pull` over a GPU's experts.
    top
        float64 [layers]: largest of `busy`.
    slots, server_slots
        int64 [layers, GPUs], [layers, servers]: experts.
    total, server_total
        int64 [GPUs], [servers]: experts over all layers.
    """

    gpu: NDArray[np.int64]
    busy: NDArray[np.float64]
    pull: NDArray[np.float64]
    top: NDArray[np.float64]
    slots: NDArray[np.int64]
    server_slots: NDArray[np.int64]
    total: NDArray[np.int64]
    server_total: NDArray[np.int64]


class Prices(NamedTuple):
    """What the search minimises: ``top + sum pull * cost + guide * sum of busy above aim``.

    Attributes
    ----------
    work, pull
        float64 [layers, experts]: how long an expert keeps its GPU busy; what a unit of `cost`
        costs it.
    by_work
        int64 [layers, experts]: experts sorted by work.
    cost
        float64 [layers, servers].
    aim
        float64 [layers]: where `top` should end.
    guide
        Price of work above, which says the way where the busiest GPU alone does not.
    """

    work: NDArray[np.float64]
    pull: NDArray[np.float64]
    by_work: NDArray[np.int64]
    cost: NDArray[np.float64]
    aim: NDArray[np.float64]
    guide: float


@njit(cache=True)
def _top_after(state: State, at: int, a: int, b: int, moved: float) -> float:
    """Largest busy time of a layer once `moved` work went from GPU a to GPU b."""
    top = state.top[at]
    most = max(state.busy[at, a] - moved, state.busy[at, b] + moved)
    if most >= top or (state.busy[at, a] < top and state.busy[at, b] < top):
        return float(max(most, top))
    for gpu in range(state.busy.shape[1]):
        if gpu not in (a, b):
            most = max(most, state.busy[at, gpu])
    return float(most)


@njit(cache=True)
def _above(busy: float, aim: float) -> float:
    return busy - aim if busy > aim else 0.0


@njit(cache=True)
def _price(
    state: State, prices: Prices, caps: Caps, at: int, a: int, b: int, moved: tuple[float, float]
) -> float:
    """Price of taking (work, pull) from GPU a to GPU b of layer `at`."""
    work, pull = moved
    aim = prices.aim[at]
    had_a, had_b = state.busy[at, a], state.busy[at, b]
    over = _above(had_a - work, aim) + _above(had_b + work, aim)
    over -= _above(had_a, aim) + _above(had_b, aim)
    cost = prices.cost[at, b // caps.inside] - prices.cost[at, a // caps.inside]
    rise = _top_after(state, at, a, b, work) - state.top[at]
    return float(rise + pull * cost + prices.guide * over)


@njit(cache=True)
def _taken(rng: np.random.Generator, price: float, temperature: float) -> bool:
    """Whether Metropolis' rule takes a step of this price."""
    if price <= 0.0:
        return True
    return price < 30.0 * temperature and rng.random() < exp(-price / temperature)


@njit(cache=True)
def _shift(state: State, at: int, a: int, b: int, moved: tuple[float, float]) -> None:
    work, pull = moved
    top = _top_after(state, at, a, b, work)
    state.busy[at, a] -= work
    state.busy[at, b] += work
    state.pull[at, a] -= pull
    state.pull[at, b] += pull
    state.top[at] = top


@njit(cache=True)
def _has_room(state: State, caps: Caps, at: int, a: int, b: int) -> bool:
    """Whether the layer's caps let GPU b take one more expert from GPU a."""
    sa, sb = a // caps.inside, b // caps.inside
    open_: bool = sa == sb or state.server_slots[at, sb] < caps.server_layer
    return open_ and bool(state.slots[at, b] < caps.gpu_layer)


@njit(cache=True)
def _total_has_room(state: State, caps: Caps, a: int, b: int) -> bool:
    sa, sb = a // caps.inside, b // caps.inside
    open_: bool = sa == sb or state.server_total[sb] < caps.server_total
    return open_ and bool(state.total[b] < caps.gpu_total)


@njit(cache=True)
def _count(state: State, caps: Caps, at: int, a: int, b: int, experts: int) -> None:
    for gpu, step in ((a, -experts), (b, experts)):
        server = gpu // caps.inside
        state.slots[at, gpu] += step
        state.server_slots[at, server] += step
        state.total[gpu] += step
        state.server_total[server] += step


@njit(cache=True)
def _move(state: State, prices: Prices, caps: Caps, at: int, expert: int, b: int) -> None:
    a = state.gpu[at, expert]
    state.gpu[at, expert] = b
    _shift(state, at, a, b, (prices.work[at, expert], prices.pull[at, expert]))
    _count(state, caps, at, a, b, 1)


@njit(cache=True)
def _try_swap(
    rng: np.random.Generator,
    state: State,
    prices: Prices,
    caps: Caps,
    at: int,
    temperature: float,
    reach: int,
) -> None:
    """Let two experts of layer `at`, at most `reach` ranks of work apart, change GPUs."""
    experts = state.gpu.shape[1]
    rank = int(rng.random() * experts)
    other = rank + int(rng.random() * (2 * reach + 1)) - reach
    if other < 0 or other >= experts:
        return
    e, f = prices.by_work[at, rank], prices.by_work[at, other]
    a, b = state.gpu[at, e], state.gpu[at, f]
    if a == b:
        return
    work = prices.work[at, e] - prices.work[at, f]
    moved = (work, prices.pull[at, e] - prices.pull[at, f])
    if _taken(rng, _price(state, prices, caps, at, a, b, moved), temperature):
        state.gpu[at, e], state.gpu[at, f] = b, a
        _shift(state, at, a, b, moved)


@njit(cache=True)
def _try_move(
    rng: np.random.Generator, state: State, prices: Prices, caps: Caps, temperature: float
) -> None:
    """Move an expert; where the total of its new GPU is full, another layer's goes back."""
    layers, experts = state.gpu.shape
    at, e = int(rng.random() * layers), int(rng.random() * experts)
    a, b = state.gpu[at, e], int(rng.random() * state.total.size)
    if a == b or not _has_room(state, caps, at, a, b):
        return
    moved = (prices.work[at, e], prices.pull[at, e])
    price = _price(state, prices, caps, at, a, b, moved)
    if _total_has_room(state, caps, a, b):
        if _taken(rng, price, temperature):
            _move(state, prices, caps, at, e, b)
        return
    to, f = int(rng.random() * layers), int(rng.random() * experts)
    # From a random expert on, the first one of the other layer that sits on b.
    for _ in range(experts):
        if state.gpu[to, f] == b:
            break
        f = f + 1 if f + 1 < experts else 0
    if to == at or state.gpu[to, f] != b or not _has_room(state, caps, to, b, a):
        return
    back = (prices.work[to, f], prices.pull[to, f])
    price += _price(state, prices, caps, to, b, a, back)
    if _taken(rng, price, temperature):
        _move(state, prices, caps, at, e, b)
        _move(state, prices, caps, to, f, a)


@njit(cache=True)
def _try_exchange(
    rng: np.random.Generator,
    state: State,
    prices: Prices,
    caps: Caps,
    at: int,
    temperature: float,
) -> None:
    """Let two GPUs of layer `at` exchange all their experts: only traffic changes."""
    gpus = state.total.size
    a, b = int(rng.random() * gpus), int(rng.random() * gpus)
    more = state.slots[at, a] - state.slots[at, b]
    if more < 0:
        a, b, more = b, a, -more
    sa, sb = a // caps.inside, b // caps.inside
    if a == b or state.total[b] + more > caps.gpu_total:
        return
    if sa != sb and (
        state.server_total[sb] + more > caps.server_total
        or state.server_slots[at, sb] + more > caps.server_layer
    ):
        return
    pull = state.pull[at, a] - state.pull[at, b]
    if not _taken(rng, pull * (prices.cost[at, sb] - prices.cost[at, sa]), temperature):
        return
    for e in range(state.gpu.shape[1]):
        if state.gpu[at, e] == a:
            state.gpu[at, e] = b
        elif state.gpu[at, e] == b:
            state.gpu[at, e] = a
    for sums in (state.busy, state.pull):
        sums[at, a], sums[at, b] = sums[at, b], sums[at, a]
    _count(state, caps, at, a, b, more)


@njit(cache=True)
def anneal(
    rng: np.random.Generator,
    state: State,
    prices: Prices,
    caps: Caps,
    temperature: float,
    proposals: int,
) -> None:
    """Make `proposals` Metropolis steps at one temperature: moves, swaps and exchanges."""
    layers, experts = state.gpu.shape
    near = max(1, experts // 16)
    for block in range(proposals // experts + 1):
        # Layer after layer: what a block of steps reads stays in the cache.
        at = block % layers
        for _ in range(experts // 32 + 1):
            _try_exchange(rng, state, prices, caps, at, temperature)
        for _ in range(experts):
            kind = rng.random()
            if kind < 0.3:
                _try_move(rng, state, prices, caps, temperature)
            elif kind < 0.65:
                _try_swap(rng, state, prices, caps, at, temperature, near)
            else:
                _try_swap(rng, state, prices, caps, at, temperature, experts - 1)
