"""Compiled bound on the busiest of GPUs with two slots each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALVINGS = 14
"""Halvings of the interval between a known bound and a known solution."""
SPLITS = 24
"""Loads at which heavy and light slots are told apart."""
PRICES = 17
"""Prices of a slot that are tried, from 0 to 4 in equal steps."""
ROUNDING = 1e-9
"""Relative slack that keeps the bound valid under rounding."""


@njit(cache=True)
def pair_bound(load: NDArray[np.float64], gpus: int, low: float, high: float) -> float:
    """Least busiest GPU that `unpairable` cannot exclude, to a 2^-14 of the interval.

    Parameters
    ----------
    load
        float64 [experts], in units of the mean GPU load.
    gpus
        GPUs of two slots each.
    low, high
        A bound, and a load that is reached.
    """
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if unpairable(load, gpus, middle):
            low = middle
        else:
            high = middle
    return low


@njit(cache=True)
def unpairable(load: NDArray[np.float64], gpus: int, most: float) -> bool:
    """Whether no replica counts can be paired with every pair at most `most`.

    A slot above ``most - t`` must sit beside one below t, so for every t up to ``most / 2`` there
    are at most as many of the former as of the latter. Their least difference over all counts
    that fill the slots is bounded by pricing a slot (Lagrange): then every expert chooses its
    count alone.
    """
    for split in range(1, SPLITS + 1):
        light = most * split / SPLITS / 2
        heavy = most - light
        for step in range(PRICES):
            price = step * 4.0 / (PRICES - 1)
            total = -price * 2 * gpus
            for f in load:
                total += _best_count(f, gpus, most, heavy, light, price)
            if total > 1e-6:
                return True
    return False


@njit(cache=True)
def _best_count(
    load: float, gpus: int, most: float, heavy: float, light: float, price: float
) -> float:
    """Least of heavy - light slots + price x slots over an expert's counts.

    Piecewise linear in the count: only counts beside a break need be tried.
    """
    least = max(1, int(np.ceil(load / most * (1 - ROUNDING))))
    best = np.inf
    first_medium, first_light = int(load / heavy), int(load / light)
    for near in range(10):
        if near < 4:
            n = first_medium + near - 1
        elif near < 8:
            n = first_light + near - 5
        else:
            n = least if near == 8 else gpus
        n = min(max(n, least), gpus)
        share = load / n
        value = price * n
        if share > heavy * (1 + ROUNDING):
            value += n
        if share < light * (1 + ROUNDING):
            value -= n
        best = min(best, value)
    return best
