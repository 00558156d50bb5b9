"""Keep or move, at a price per move: items, the cells they may go to, and what proves the best.

Every item either stays in its *home* cell, or moves: through one of the *hubs* open to it, at the
price of a move, into any cell the hub leads to. Cells have a capacity and belong to *bins*, which
have one too. With experts as items, the tiers of a layer as hubs, (layer, server) as cells and
servers as bins this is hop-optimal re-placement; with (layer, server) as hubs, (layer, GPU) as
cells and GPUs as bins it is the keeping of GPUs inside the servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class KeepNetwork:
    """Items, what they may do, and the room there is.

    Attributes
    ----------
    weight
        float64 [items]: which items are dealt to the least loaded cell first.
    home, home_cost
        int64, float64 [items]: cell an item comes from, -1 for a newcomer, which moves free of
        price; its cost there.
    choice_item, choice_hub, choice_cost
        [choices], ascending by item, every item at least once: the hubs open to an item.
    route_hub, route_cell
        int64 [routes], ascending by hub: the cells a hub leads to.
    cell_bin
        int64 [cells].
    cell_capacity, bin_capacity
        int64 [cells], [bins].
    """

    weight: NDArray[np.float64]
    home: NDArray[np.int64]
    home_cost: NDArray[np.float64]
    choice_item: NDArray[np.int64]
    choice_hub: NDArray[np.int64]
    choice_cost: NDArray[np.float64]
    route_hub: NDArray[np.int64]
    route_cell: NDArray[np.int64]
    cell_bin: NDArray[np.int64]
    cell_capacity: NDArray[np.int64]
    bin_capacity: NDArray[np.int64]

    @property
    def items(self) -> int:
        """Items to be placed."""
        return len(self.home)

    @property
    def hubs(self) -> int:
        """Hubs."""
        return int(self.route_hub.max(initial=-1)) + 1

    def bound(
        self, price: float, cell_price: NDArray[np.float64], bin_price: NDArray[np.float64]
    ) -> float:
        """Lower bound on cost + price x moves, from any prices (>= 0) of room in cells and bins.

        Lagrangian relaxation: with the caps priced instead of kept every item takes its
        cheapest choice by itself.
        """
        room = cell_price + bin_price[self.cell_bin]
        hub_room = np.full(self.hubs, np.inf)
        np.minimum.at(hub_room, self.route_hub, room[self.route_cell])
        has_home = self.home >= 0
        moved = self.choice_cost + hub_room[self.choice_hub] + price * has_home[self.choice_item]
        first = np.searchsorted(self.choice_item, np.arange(self.items))
        stays = np.where(has_home, self.home_cost + room[self.home], np.inf)
        best = np.minimum(np.minimum.reduceat(moved, first), stays)
        sold = cell_price @ self.cell_capacity + bin_price @ self.bin_capacity
        return float(best.sum() - sold)

    def kept_within_caps(self) -> NDArray[np.bool_]:
        """bool [items]: which items may stay at home together, by item number."""
        kept = self.home >= 0
        for place, capacity in (
            (self.home, self.cell_capacity),
            (self.cell_bin[self.home], self.bin_capacity),
        ):
            staying = np.flatnonzero(kept)
            order = staying[np.argsort(place[staying], kind="stable")]
            size = np.bincount(place[order], minlength=len(capacity))
            rank = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
            kept[order] = rank < capacity[place[order]]
        return kept
