"""Rows of flows, as routing takes them once they are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Flows(NamedTuple):
    """Rows of flows, checked: int64 [flows] each, sizes int64 or float64."""

    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    queue_pair: NDArray[np.int64]
    size_bytes: NDArray[Any]
    layer: NDArray[np.int64]
