"""Compiled excess of one layer's links over a target, kept up to date as load moves.

Loads and costs come scaled so that a link at its target reads 1. What is minimised is the
*excess*: the sum over links of ``max(0, reading - 1)^2``, zero where every link keeps its target,
and, weighed `HARD`, the same of the caps on loads. It is kept per server (own links and caps) and
for the fabric as a whole, so that a change costs two servers and the fabric's few rows.

``fabric`` is (own_cost [kinds, 3, gpus], fabric_cost [rows, classes], class_of_gpu,
GPUs of a server, GPU cap, server cap); ``state`` is (gpu_load, server_load, row reading,
server_excess); ``slots`` is (slot_gpu, slot_expert [slots], replicas [experts]).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

HARD = 100.0


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
def open_state(
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
def held_by(slots: tuple[Any, ...], gpus: int) -> NDArray[np.bool_]:
    """bool [experts, gpus]: which GPU holds which expert."""
    held = np.zeros((len(slots[2]), gpus), dtype=np.bool_)
    for slot in range(len(slots[0])):
        held[slots[1][slot], slots[0][slot]] = True
    return held


@njit(cache=True)
def relieve(
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
def reassign(
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
def excess_of(state: tuple[Any, ...]) -> Any:
    """Return the excess of all servers and of the fabric."""
    return _rows_excess(state[2]) + state[3].sum()
