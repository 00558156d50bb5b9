"""Why a GPU cannot be filled to the brim: valid rows for experts that share GPUs whole.

A *dual feasible function* maps the work w of experts to sizes f such that those of experts that
fit a GPU together sum to at most 1; so over any set of GPUs they sum to at most their number.
Source: Fekete and Schepers, Mathematical Programming 91 (2001), 11-31. Proportional sizes w / z
alone, which the plain relaxation has, let an expert be cut in two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_THRESHOLDS = 6
"""Functions for each GPU limit: thresholds at quantiles of the experts below half of it."""

_HAIR = 1e-9


def packing_sizes(
    work: NDArray[np.float64], limit: float, most: int, *, thresholds: int = _THRESHOLDS
) -> NDArray[np.float64]:
    """float64 [functions, experts]: sizes that sum to at most 1 on a GPU of work up to `limit`.

    Of an expert above ``limit - t`` only those up to t can share the GPU: the former count 1,
    the latter 0, and those in between ``w / limit``; or 1 / 2 where a GPU takes two experts at
    most.

    Parameters
    ----------
    work
        float64 [experts].
    limit
        Most work of a GPU.
    most
        Most experts on a GPU.
    """
    # Work a hair above a threshold is taken to be on it: rounding must not make a size larger.
    half = limit / 2
    small = np.sort(work[work <= half])
    at = np.linspace(0, len(small) - 1, min(thresholds - 1, len(small))).astype(np.int64)
    t = np.unique(np.append(small[at], half))[:, None]
    between = 0.5 if most <= 2 else work / limit
    above = work > t * (1 + _HAIR)
    return np.where(work > (limit - t) * (1 + _HAIR), 1.0, np.where(above, between, 0.0))
