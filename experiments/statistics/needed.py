"""How many seeds a statement needs."""

from __future__ import annotations

from math import ceil, log2, sqrt
from typing import TYPE_CHECKING

from experiments.errors import StatisticsError
from experiments.statistics.student import student_quantile

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1_000_000
"""Runs beyond which nobody counts on."""


def fewest_pairs(level: float = 0.05) -> int:
    """Return how many pairs the sign-flip test needs before it can come to `level` at all.

    Of n pairs, at best 2 of 2^n assignments of signs lie as far out as the one found.
    """
    if not 0 < level < 1:
        raise StatisticsError(f"level {level:g}; expected one between 0 and 1")
    return max(1, ceil(1 - log2(level) - 1e-9))


def runs_needed(deviation: float, half_width: float, *, level: float = 0.95) -> int:
    """Return the runs whose mean is known to plus or minus `half_width`.

    The least n with t(n-1) deviation / sqrt(n) <= half_width: for a mean of near-normal figures
    with that standard deviation.

    Raises
    ------
    StatisticsError
        If a number is out of range, or more than `MOST` runs are needed.
    """
    _check(deviation, half_width)
    tail = (1 + level) / 2

    def enough(count: int) -> bool:
        return student_quantile(tail, count - 1) * deviation <= half_width * sqrt(count)

    return _least(enough_from=2, estimate=(deviation / half_width) ** 2, enough=enough)


def pairs_needed(
    deviation: float, difference: float, *, level: float = 0.05, power: float = 0.8
) -> int:
    """Return the pairs with which a difference of that size is likely to show.

    The least n with (t(1 - level/2) + t(power)) deviation / sqrt(n) <= difference, t with n-1
    degrees of freedom: a close approximation to the noncentral t; never fewer than
    `fewest_pairs`.

    Parameters
    ----------
    deviation
        Standard deviation of the differences within pairs.
    difference
        That should not be missed, above 0.
    level, power
        Of a false alarm, and of finding it.

    Raises
    ------
    StatisticsError
        As `runs_needed`.
    """
    _check(deviation, difference)
    fewest = max(2, fewest_pairs(level))

    def enough(count: int) -> bool:
        both = student_quantile(1 - level / 2, count - 1) + student_quantile(power, count - 1)
        return both * deviation <= difference * sqrt(count)

    return _least(enough_from=fewest, estimate=(deviation / difference) ** 2, enough=enough)


def _check(deviation: float, wanted: float) -> None:
    if not (0 <= deviation < float("inf")):
        raise StatisticsError(f"standard deviation {deviation:g}; expected a number of at least 0")
    if not (0 < wanted < float("inf")):
        raise StatisticsError(f"{wanted:g} is wanted; expected a number above 0")


def _least(*, enough_from: int, estimate: float, enough: Callable[[int], bool]) -> int:
    """Return the least count that is enough, by bisection: more are always enough, too."""
    if estimate > MOST:
        raise StatisticsError(f"more than {MOST:,} runs are needed; expected less to be wanted")
    low, high = enough_from - 1, enough_from
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
