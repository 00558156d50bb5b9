"""Student's t for whole degrees of freedom, by its finite sums."""

from __future__ import annotations

from math import atan, cos, pi, sin, sqrt
from statistics import NormalDist

from experiments.errors import StatisticsError

_MANY = 200
"""Degrees of freedom beyond which an expansion is as good as the sum, and quicker."""


def student_within(t: float, freedom: int) -> float:
    """Return the probability that a t variable lies between -t and t.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    Parameters
    ----------
    t
        At least 0.
    freedom
        Degrees of freedom, at least 1.

    Raises
    ------
    StatisticsError
        If there is no degree of freedom.
    """
    if freedom < 1:
        raise StatisticsError(f"{freedom} degrees of freedom; expected at least 1")
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cos(angle) ** 2 * (power + 1) / (power + 2)
    total *= sin(angle)
    return 2 / pi * (angle + total) if odd else total


def student_quantile(probability: float, freedom: int) -> float:
    """Return the value that a t variable stays below with a probability between 0 and 1.

    Raises
    ------
    StatisticsError
        If the probability is 0, 1 or beyond, or there is no degree of freedom.
    """
    if not 0 < probability < 1:
        raise StatisticsError(f"probability {probability:g}; expected one between 0 and 1")
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    if freedom > _MANY:
        return _expanded(NormalDist().inv_cdf(probability), freedom)
    within = 2 * probability - 1
    low, high = 0.0, 1.0
    while student_within(high, freedom) < within and high < 1e18:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_within(middle, freedom) < within else (low, middle)
    return high


def _expanded(z: float, freedom: int) -> float:
    """Return the quantile of many degrees of freedom from the normal one: A. and S., 26.7.5."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
