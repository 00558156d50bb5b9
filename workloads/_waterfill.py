"""Proportional shares under a cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def water_fill(weights: NDArray[np.float64], total: float, cap: float) -> NDArray[np.float64]:
    """Return ``x_i = min(cap, c * weights_i)`` with c such that the x sum to `total`.

    What a capped entry cannot take goes to the others in proportion to their weights, and, once
    every positive weight is capped, in equal parts to the entries of weight zero.

    Parameters
    ----------
    weights
        float64 [n], not negative, at least one of them positive.
    total
        Sum wanted, at most ``n * cap``.
    cap
        Most that one entry may get.
    """
    capped = np.zeros(len(weights), dtype=bool)
    filled = np.full(len(weights), cap)
    while not capped.all():
        rest = max(0.0, total - cap * int(capped.sum()))
        filled[~capped] = rest * _portions(weights[~capped])
        over = ~capped & (filled > cap)
        if not over.any():
            break
        filled[over] = cap
        capped |= over
    return filled


def _portions(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `weights` scaled to sum to 1; equal portions where all are zero."""
    total = float(weights.sum())
    if total > 0:
        return weights / total
    return np.full(len(weights), 1.0 / len(weights))
