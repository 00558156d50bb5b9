"""Two policies on the same seeds or traces: what the difference is, and whether it is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.errors import StatisticsError
from experiments.statistics.intervals import Interval, mean_interval
from experiments.statistics.needed import fewest_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Numbers = Sequence[float] | NDArray[np.float64]

EXACT_PAIRS = 16
"""Up to so many pairs every assignment of signs is looked at; beyond, as many random ones."""
_EQUAL = 1e-9
"""Part of the largest possible sum below which two sums count as equal."""


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """What two treatments of the same subjects say about each other.

    Attributes
    ----------
    before, after
        Means of both.
    difference
        Mean of after - before with its bootstrap interval, resampled by pairs.
    p_value
        Of the two-sided sign-flip test; see `sign_flip`.
    """

    before: float
    after: float
    difference: Interval
    p_value: float

    @property
    def pairs(self) -> int:
        """Subjects that were treated both ways."""
        return self.difference.count

    def significant(self, level: float = 0.05) -> bool:
        """Return whether the difference is unlikely to be chance alone."""
        return self.p_value <= level

    def verdict(self, level: float = 0.05) -> str:
        """Say in words whether the difference is significant, and why it may not be."""
        pairs = f"{self.pairs} pair{'s' * (self.pairs != 1)}"
        if self.significant(level):
            return f"significant (p = {self.p_value:.2g}, {pairs})"
        if self.pairs < fewest_pairs(level):
            return (
                f"not significant: {pairs} cannot show p <= {level:g}; expected at least "
                f"{fewest_pairs(level)}"
            )
        return f"not significant (p = {self.p_value:.2g}, {pairs})"


def compare_pairs(
    before: Numbers, after: Numbers, rng: np.random.Generator, *, level: float = 0.95
) -> PairedComparison:
    """Compare two treatments of the same subjects.

    Parameters
    ----------
    before, after
        float64 [pairs]: a figure of every subject, in the same order.
    rng
        Draws resamples and, beyond `EXACT_PAIRS`, signs.
    level
        Wanted coverage of the interval.

    Raises
    ------
    StatisticsError
        If there are no pairs, or not as many of the one as of the other.
    """
    one, two = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if one.shape != two.shape:
        raise StatisticsError(f"{one.size} figures against {two.size}; expected pairs")
    difference = mean_interval(two - one, rng, level=level)
    return PairedComparison(
        float(one.mean()), float(two.mean()), difference, sign_flip(two - one, rng)
    )


def sign_flip(differences: Numbers, rng: np.random.Generator) -> float:
    """Return the two-sided p-value of the sign-flip permutation test on the mean.

    Were the treatments alike, every difference might as well have the other sign: p is the share
    of all assignments of signs whose sum lies as far from 0 as the one found (Fisher, The Design
    of Experiments, 1935, section 21). Exact up to `EXACT_PAIRS`; beyond, (1 + b) / (1 + m) of m
    random assignments (Phipson and Smyth, SAGMB 9, 39, 2010).
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise StatisticsError(f"{values.size} differences; expected finite ones, at least 1")
    found = abs(values.sum()) - _EQUAL * np.abs(values).sum()
    if len(values) <= EXACT_PAIRS:
        bits = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float(np.mean(np.abs((1 - 2 * bits) @ values) >= found))
    drawn = 1 << EXACT_PAIRS
    as_far = 0
    for _ in range(16):  # in parts, for memory
        signs = rng.integers(0, 2, (drawn // 16, len(values)), dtype=np.int8)
        as_far += int((np.abs((1 - 2 * signs) @ values) >= found).sum())
    return (1 + as_far) / (1 + drawn)


def holm(p_values: Numbers) -> NDArray[np.float64]:
    """Return p-values of several tests, raised so that all of them may be read at one level.

    Holm, Scandinavian Journal of Statistics 6, 65, 1979: holds however the tests hang together.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    raised = np.maximum.accumulate((len(raw) - np.arange(len(raw))) * raw[order])
    adjusted = np.empty(len(raw))
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted
