"""Free slots while layers are placed one after another, never painting into a corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem


@dataclass(slots=True, eq=False)
class ServerBudget:
    """What every server may still take so that all experts to come still fit.

    With R layers to come the rest fits exactly if ``sum_s min(free[s], R * C_layer) >= R * E``:
    the caps nest, so by Hoffman's theorem only sets of whole layers can be short, and the left
    side is concave in R. The same condition for the layer at hand, alone and together with the
    layers to come, is inherited from the layer before and kept by every slot taken. Of a server
    the first ``free - R * C_layer`` slots cost the layers to come nothing; each one more takes
    a unit of `slack`.
    """

    experts: int
    layer_slots: int
    layers_to_come: int
    free: NDArray[np.int64]
    free_in_layer: NDArray[np.int64]
    slack: int

    @classmethod
    def of(cls, problem: PlacementProblem) -> ServerBudget:
        """Return the budget before the first layer."""
        return cls(
            experts=problem.experts,
            layer_slots=problem.layer_slots,
            layers_to_come=problem.layers,
            free=np.full(problem.servers, problem.server_slots, dtype=np.int64),
            free_in_layer=np.zeros(problem.servers, dtype=np.int64),
            slack=0,
        )

    def next_layer(self) -> None:
        """Turn to the next layer, with a fresh C_layer on every server."""
        self.layers_to_come -= 1
        self.free_in_layer = np.minimum(self.free, self.layer_slots)
        later = self.layers_to_come
        room = int(np.minimum(self.free, later * self.layer_slots).sum())
        self.slack = room - later * self.experts

    def takers(self) -> NDArray[np.bool_]:
        """bool [servers]: which servers can take one more expert of this layer."""
        costless = self.free > self.layers_to_come * self.layer_slots
        return (self.free_in_layer > 0) & (costless | (self.slack > 0))

    def most(self, server: int) -> int:
        """Return how many more experts of this layer `server` can take."""
        return min(int(self.free_in_layer[server]), self._costless(server) + self.slack)

    def take(self, server: int, experts: int) -> None:
        """Take slots on `server` for experts of this layer."""
        self.slack -= max(0, experts - self._costless(server))
        self.free[server] -= experts
        self.free_in_layer[server] -= experts

    def _costless(self, server: int) -> int:
        return max(0, int(self.free[server]) - self.layers_to_come * self.layer_slots)
