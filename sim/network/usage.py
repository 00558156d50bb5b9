"""What links did over a run: service, waiting, utilisation over time in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """A stretch of a run in which no link changed its speed.

    Attributes
    ----------
    start_ns, end_ns
        When.
    speed
        float64 [links]: share of the bandwidth as built; 0 of a dead link.
    sent_bytes
        int64 or float64 [links]: what links sent, packets counted when their last byte left.
    """

    start_ns: int
    end_ns: int
    speed: NDArray[np.float64]
    sent_bytes: NDArray[Any]

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        self.speed.setflags(write=False)
        self.sent_bytes.setflags(write=False)


@dataclass(frozen=True, slots=True, eq=False)
class LinkUsage:
    """Per-link books of a run.

    Attributes
    ----------
    busy_ns
        int64 or float64 [links]: time spent sending.
    bin_ns
        Width of a time bin; the first begins at 0.
    busy_bins_ns
        int64 or float64 [links, bins]: time spent sending within each bin.
    wait_ns, wait_max_ns, chunks
        int64 [links]: time chunks waited for their service to start (on a source's first link
        since the collective was sent), the longest wait, and chunks served. None where the
        network has no queues.
    phases
        The run from change to change of the links' speeds; empty where nothing changed.
    resent_bytes
        int64 [links]: bytes of chunks that a link was sending when it died, and that were sent
        again elsewhere; None where the network has no chunks.
    """

    busy_ns: NDArray[Any]
    bin_ns: int
    busy_bins_ns: NDArray[Any]
    wait_ns: NDArray[np.int64] | None = None
    wait_max_ns: NDArray[np.int64] | None = None
    chunks: NDArray[np.int64] | None = None
    phases: tuple[Phase, ...] = ()
    resent_bytes: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (
            self.busy_ns, self.busy_bins_ns, self.wait_ns, self.wait_max_ns, self.chunks,
            self.resent_bytes,
        ):  # fmt: skip
            if array is not None:
                array.setflags(write=False)


class TimeBins:
    """Busy time of links in bins that double their width when time runs past the last one."""

    def __init__(self, links: int, bins: int) -> None:
        self.width_ns = 1024
        self._busy = np.zeros((links, bins))

    def add(self, start: int, stop: int, busy_ns: NDArray[np.float64]) -> None:
        """Spread `busy_ns` [links] evenly over start..stop."""
        bins = self._busy.shape[1]
        while stop > bins * self.width_ns:
            self._busy[:, : bins // 2] = self._busy[:, ::2] + self._busy[:, 1::2]
            self._busy[:, bins // 2 :] = 0
            self.width_ns *= 2
        if stop <= start:
            return
        first, end = start // self.width_ns, -(-stop // self.width_ns)
        edges = np.clip(np.arange(first, end + 1) * self.width_ns, start, stop)
        self._busy[:, first:end] += busy_ns[:, None] * (np.diff(edges) / (stop - start))

    def busy_ns(self) -> NDArray[np.float64]:
        """float64 [links, bins]."""
        return self._busy.copy()
