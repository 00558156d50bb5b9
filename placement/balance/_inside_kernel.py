"""Compiled dealing of each server's experts to its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from placement.balance._pack_kernel import exact_maximum, least_maximum, maximum_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

KICKS = 20


@njit(cache=True)
def part_bound(load: NDArray[np.float64], gpus: int, cap: int) -> float:
    """Lower bound on the busiest of `gpus` GPUs of `cap` slots each; `load` hottest first.

    The largest of: the mean; the hottest expert with the coldest that must sit beside it when
    all other GPUs are full; the coolest two of the hottest ``gpus + 1``, of which two share.
    """
    n = load.size
    if n == 0:
        return 0.0
    beside = max(1, n - (gpus - 1) * cap) - 1
    in_all, hot = 0.0, load[0]
    for i in range(n):
        in_all += load[i]
        hot += load[i] if i >= n - beside else 0.0
    bound = max(in_all / gpus, hot)
    if n > gpus:
        bound = max(bound, load[gpus - 1] + load[gpus])
    return float(bound)


@njit(cache=True)
def _on_server(home: NDArray[np.int64], server: int) -> NDArray[np.int64]:
    """Positions of the experts on a server, in order."""
    size = 0
    for s in home:
        size += s == server
    mine = np.empty(size, np.int64)
    size = 0
    for i in range(home.size):
        if home[i] == server:
            mine[size] = i
            size += 1
    return mine


@njit(cache=True)
def _items(load: NDArray[np.float64], mine: NDArray[np.int64]) -> NDArray[np.float64]:
    """Loads of the experts at positions `mine`."""
    items = np.empty(mine.size)
    for i in range(mine.size):
        items[i] = load[mine[i]]
    return items


@njit(cache=True)
def pack_servers(
    rng: np.random.Generator,
    load: NDArray[np.float64],
    home: NDArray[np.int64],
    shape: tuple[int, int],
    cap: int,
    nodes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pack every layer and server into parts, one for a GPU.

    All are packed by longest processing time, swaps and moves; branch and bound follows where a
    server is hotter than its layer must be.

    Parameters
    ----------
    rng
        Source of the kicks.
    load
        float64 [layers, experts], every layer hottest first.
    home
        int64 [layers, experts]: server of every expert, in the same order.
    shape
        Servers, and GPUs of each.
    cap
        Most experts of a layer on a GPU.
    nodes
        Limit of each branch and bound.

    Returns
    -------
    int64 [layers, experts], the part of every expert, and float64 [layers], a lower bound on
    the busiest GPU.
    """
    servers, gpus = shape
    one_group, no_limit = np.zeros(gpus, np.int64), load.shape[1]
    part = np.zeros(load.shape, np.int64)
    bound = np.zeros(load.shape[0])
    for at in range(load.shape[0]):
        for server in range(servers):
            mine = _on_server(home[at], server)
            bound[at] = max(bound[at], part_bound(_items(load[at], mine), gpus, cap))
        proven = bound[at]
        target = bound[at] * (1 + 1e-12)
        for server in range(servers):
            mine = _on_server(home[at], server)
            if mine.size == 0:
                continue
            items, place = _items(load[at], mine), np.empty(mine.size, np.int64)
            caps = (one_group, cap, no_limit)
            busiest = least_maximum(rng, items, caps, target, KICKS, place)
            if busiest > target and exact_maximum(items, gpus, cap, target, nodes, place):
                busiest = maximum_of(items, place, gpus)
                proven = max(proven, busiest)
            for i in range(mine.size):
                part[at, mine[i]] = place[i]
        bound[at] = proven
    return part, bound
