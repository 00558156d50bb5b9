"""Costs between servers that were measured, and stand where hops do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topologies.errors import TopologyError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredCost:
    """What a message, or a byte, between two servers costs.

    Attributes
    ----------
    cost
        int64 [servers, servers], from the row's server to the column's; 0 inside a server.
    unit
        Of the costs, in words.

    Raises
    ------
    TopologyError
        If the costs are no square matrix of whole numbers, negative, or not 0 inside a server.
    """

    cost: NDArray[np.int64]
    unit: str

    def __post_init__(self) -> None:
        """Freeze the costs, and refuse what is none."""
        cost = np.array(self.cost)
        square = cost.ndim == 2 and cost.shape[0] == cost.shape[1]
        if not square or cost.dtype.kind not in "iu":
            raise TopologyError(
                f"measured cost is {cost.dtype} {cost.shape}; expected integers [servers, servers]"
            )
        if cost.min(initial=0) < 0 or np.diagonal(cost).any():
            raise TopologyError("measured cost is below 0, or not 0 inside a server")
        cost = cost.astype(np.int64)
        cost.setflags(write=False)
        object.__setattr__(self, "cost", cost)
