"""Compiled exact transport: items to places with limited room, at most profit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def transport(profit: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give every item a place so that the profits sum to the most.

    Shortest augmenting paths with prices on places (Jonker and Volgenant 1987), a place taking
    several items: O(items^2 * places). Of equal places one with room is taken, then the lowest.

    Parameters
    ----------
    profit
        float64 [items, places].
    room
        int64 [places]: items each place takes, summing to at least the items.

    Returns
    -------
    int64 [items]: the place of every item.
    """
    items, places = profit.shape
    price = np.zeros(places)
    place_of = np.full(items, -1)
    member = np.full((places, max(1, room.max())), -1)
    filled = np.zeros(places, np.int64)
    for item in range(items):
        came_from, end = _shortest_path(item, profit, room, price, member, filled)
        _augment(item, end, came_from, place_of, member, filled)
    return place_of


@njit(cache=True)
def _shortest_path(
    item: int,
    profit: NDArray[np.float64],
    room: NDArray[np.int64],
    price: NDArray[np.float64],
    member: NDArray[np.int64],
    filled: NDArray[np.int64],
) -> tuple[NDArray[np.int64], int]:
    """Find the cheapest chain of displacements from `item` to a place with room (Dijkstra).

    `price` [places] is updated so that every item stays at a cheapest place.

    Returns
    -------
    int64 [places], int
        The item that would move to each place, and the place with room.
    """
    places = len(price)
    distance = -profit[item] - price
    came_from = np.full(places, item)
    done = np.zeros(places, np.bool_)
    while True:
        here = _nearest(distance, done, filled < room)
        if filled[here] < room[here]:
            break
        done[here] = True
        for turn in range(filled[here]):
            mover = member[here, turn]
            base = distance[here] + profit[mover, here] + price[here]
            for place in range(places):
                reached = base - profit[mover, place] - price[place]
                if not done[place] and reached < distance[place]:
                    distance[place] = reached
                    came_from[place] = mover
    for place in range(places):
        if done[place]:
            price[place] += distance[place] - distance[here]
    return came_from, here


@njit(cache=True)
def _nearest(
    distance: NDArray[np.float64], done: NDArray[np.bool_], has_room: NDArray[np.bool_]
) -> int:
    """Return the nearest place not done; of equally near ones one with room ends the search."""
    best = -1
    for place in range(len(distance)):
        key = distance[place], not has_room[place]
        if not done[place] and (best < 0 or key < (distance[best], not has_room[best])):
            best = place
    return best


@njit(cache=True)
def _augment(
    item: int,
    end: int,
    came_from: NDArray[np.int64],
    place_of: NDArray[np.int64],
    member: NDArray[np.int64],
    filled: NDArray[np.int64],
) -> None:
    """Move every item of the chain one place on, the last one to `end`."""
    place, slot = end, filled[end]
    filled[end] += 1
    while True:
        mover = came_from[place]
        left = place_of[mover]
        member[place, slot] = mover
        place_of[mover] = place
        if mover == item:
            return
        slot = 0
        while member[left, slot] != mover:
            slot += 1
        place = left
