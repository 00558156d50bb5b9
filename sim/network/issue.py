"""In which order a source issues its messages."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.network.flows import Flows


class IssueOrder(StrEnum):
    """How a source orders its messages; the order alone can double an all-to-all's time."""

    INTERLEAVED = "interleaved"
    """Chunk by chunk in turn, beginning with the destination after the source's own index."""
    SHIFTED = "shifted"
    """Destination by destination, beginning with the one after the source's own index."""
    DESTINATION = "destination"
    """Destination by destination, ascending: all sources begin with the same one."""
    RANDOM = "random"
    """Destination by destination, shuffled for every source and collective."""


def issue_rank(
    order: IssueOrder, flows: Flows, gpus: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """int64 [flows]: a source issues its flows in ascending rank."""
    if order is IssueOrder.RANDOM:
        return rng.permutation(len(flows))
    dst = flows.dst.astype(np.int64)
    if order is IssueOrder.DESTINATION:
        return dst
    return (dst - flows.src - 1) % gpus
