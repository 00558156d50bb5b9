"""Slots dealt to places that have room, no expert twice on a place where that can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What places hold and can take; changed by every deal.

    Attributes
    ----------
    room
        int64 [places]: free slots.
    heat
        float64 [places]: load.
    held
        int64 [experts, places]: slots of an expert.
    """

    room: NDArray[np.int64]
    heat: NDArray[np.float64]
    held: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        slots: NDArray[np.integer],
        expert: NDArray[np.integer],
        place: NDArray[np.integer],
        load: NDArray[np.float64],
        experts: int,
    ) -> Table:
        """Sum up items that sit already.

        Parameters
        ----------
        slots
            int [places]: slots of every place.
        expert, place, load
            [items]: of those that sit.
        experts
            Experts of the layer.
        """
        places = len(slots)
        held = np.zeros((experts, places), dtype=np.int64)
        np.add.at(held, (expert, place), 1)
        room = slots.astype(np.int64) - np.bincount(place, minlength=places)
        heat = np.asarray(np.bincount(place, load, places), dtype=np.float64)
        return cls(room, heat, held)

    def put(self, expert: int, place: int, load: float, sign: int = 1) -> None:
        """Add an item to a place, or take it away with sign -1."""
        self.room[place] -= sign
        self.heat[place] += sign * load
        self.held[expert, place] += sign


def deal(table: Table, expert: NDArray[np.integer], load: NDArray[np.float64]) -> NDArray[np.int64]:
    """Deal items, hottest first, each to the coolest place with room and without its expert.

    Where only places that hold the expert have room, an item dealt before makes way if it can;
    else the coolest place with room holds the expert twice.

    Parameters
    ----------
    table
        Places with room for all items.
    expert, load
        [items].

    Returns
    -------
    int64 [items]: the place of every item.
    """
    place = np.full(len(expert), -1, dtype=np.int64)
    for item in np.argsort(-load, kind="stable").tolist():
        wanted, own = int(expert[item]), float(load[item])
        heat = np.where(table.room > 0, table.heat, np.inf)
        apart = np.where(table.held[wanted] == 0, heat, np.inf)
        at = int(np.argmin(apart if np.isfinite(apart).any() else heat))
        if table.held[wanted, at]:
            at = _make_way(table, wanted, at, (expert, load, place))
        place[item] = at
        table.put(wanted, at, own)
    return place


def _make_way(
    table: Table,
    wanted: int,
    free: int,
    dealt: tuple[NDArray[np.integer], NDArray[np.float64], NDArray[np.int64]],
) -> int:
    """Send an item dealt before to `free`, if one can go there and leaves a place for `wanted`."""
    expert, load, place = dealt
    for item in np.flatnonzero(place >= 0).tolist():
        other, at = int(expert[item]), int(place[item])
        if table.held[wanted, at] == 0 and table.held[other, free] == 0:
            table.put(other, at, float(load[item]), -1)
            table.put(other, free, float(load[item]))
            place[item] = free
            return at
    return free
