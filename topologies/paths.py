"""What routes look like: one path a flow, or the links a pair uses with their shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """One path for each of a row of flows.

    Attributes
    ----------
    indptr
        int64 [flows + 1]: the links of flow i are ``links[indptr[i]:indptr[i + 1]]``.
    links
        int32 [entries]: the cluster's links in the order they are crossed.
    """

    indptr: NDArray[np.int64]
    links: NDArray[np.int32]

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        self.indptr.setflags(write=False)
        self.links.setflags(write=False)

    def sums(self, weight: NDArray[Any]) -> NDArray[np.float64]:
        """Return float64 [flows]: the sum of `weight` [links] over the links of every path."""
        count = np.diff(self.indptr)
        flow = np.repeat(np.arange(len(count)), count)
        total = np.bincount(flow, weight[self.links], len(count))
        return np.asarray(total, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class LinkUsage:
    """Which links each of a row of flows uses, and which fraction of its bytes crosses each.

    Attributes
    ----------
    indptr
        int64 [flows + 1]: the entries of flow i are ``indptr[i]`` to ``indptr[i + 1] - 1``.
    link
        int32 [entries]: the cluster's links; a flow's first stands first, its last one last, and
        no link stands twice.
    fraction
        float64 [entries]: 1 for every link of a single path.
    """

    indptr: NDArray[np.int64]
    link: NDArray[np.int32]
    fraction: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.indptr, self.link, self.fraction):
            array.setflags(write=False)
