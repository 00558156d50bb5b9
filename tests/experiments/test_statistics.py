"""Statistics of few runs: closed forms, brute force, and coverage by simulation."""

from __future__ import annotations

from itertools import product
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.errors import StatisticsError
from experiments.statistics import (
    METHODS,
    compare_pairs,
    fewest_pairs,
    holm,
    mean_interval,
    pairs_needed,
    runs_needed,
    sign_flip,
    student_quantile,
    student_within,
)


def rng(seed: int = 0) -> np.random.Generator:
    """Return a generator of its own for every call."""
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    # Printed tables of Student's t; 1 degree is Cauchy's tan, 2 has a closed form.
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 5, 2.571),
        (0.975, 10, 2.228),
        (0.95, 30, 1.697),
        (0.995, 9, 3.250),
        (0.9, 4, 1.533),
        (0.975, 120, 1.980),
    ],
)
def test_student_tables(probability: float, freedom: int, expected: float) -> None:
    """Quantiles are those of the printed tables, and mirror below a half."""
    assert student_quantile(probability, freedom) == pytest.approx(expected, abs=5e-4)
    assert student_quantile(1 - probability, freedom) == -student_quantile(probability, freedom)


@given(st.floats(0.01, 8), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_student_by_quadrature(t: float, freedom: int) -> None:
    """The finite sums agree with the density, integrated by Simpson's rule."""
    x = np.linspace(0, t, 4001)
    density = (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    weights = np.r_[1, np.tile([4, 2], 2000)[:-1], 1] * t / 4000 / 3
    # The constant from all of the line: x = sqrt(f) tan(u) makes it an integral of cos^(f-1).
    u = np.linspace(0, np.pi / 2, 4001)
    whole = (np.r_[1, np.tile([4, 2], 2000)[:-1], 1] * np.cos(u) ** (freedom - 1)).sum()
    whole *= np.pi / 2 / 4000 / 3 * sqrt(freedom)
    assert student_within(t, freedom) == pytest.approx(weights @ density / whole, abs=1e-7)


def test_percentile_interval_of_two() -> None:
    """Of two runs the resampled mean is 0, 1/2 or 1 with 1/4, 1/2, 1/4: 95 % span both."""
    interval = mean_interval([0.0, 1.0], rng(), method="percentile")
    assert (interval.low, interval.mean, interval.high) == (0.0, 0.5, 1.0)
    # Half of the resamples lie in the middle: an interval of 40 % has no width.
    narrow = mean_interval([0.0, 1.0], rng(), method="percentile", level=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_large_samples_are_normal(method: str) -> None:
    """Of 2,000 near-normal figures every method comes to mean +- 1.96 s / sqrt(n)."""
    sample = rng(3).normal(10, 2, 2000)
    interval = mean_interval(sample, rng(), method=method)
    half = 1.96 * sample.std(ddof=1) / sqrt(2000)
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.06 * half)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.06 * half)


def covered(method: str, count: int, draws: int = 600) -> float:
    """Return how often the interval of normal samples holds their mean."""
    samples, own = rng(1).normal(0, 1, (draws, count)), rng(2)
    ends = [mean_interval(each, own, method=method, resamples=1500) for each in samples]
    return sum(each.low <= 0 <= each.high for each in ends) / draws  # type: ignore[operator]


def test_coverage_of_few_runs() -> None:
    """Of 8 runs the default covers 95 % within the noise, plain percentiles clearly do not."""
    # 600 draws at 0.95: a standard error of 0.009.
    assert covered("expanded", 8) == pytest.approx(0.95, abs=0.03)
    assert covered("percentile", 8) < 0.925


def test_bca_leans_to_the_long_tail() -> None:
    """Of a sample skewed to the right, BCa reaches further right than plain percentiles do."""
    sample = [1.0, 1.1, 1.2, 1.3, 1.4, 9.0]
    plain = mean_interval(sample, rng(), method="percentile")
    skewed = mean_interval(sample, rng(), method="bca")
    assert skewed.high > plain.high  # type: ignore[operator]
    assert skewed.low > plain.low  # type: ignore[operator]


def test_a_single_run_and_equal_runs() -> None:
    """One run has no interval; runs that are all alike have one without width."""
    assert mean_interval([3.0], rng()).low is None
    same = mean_interval([3.0, 3.0, 3.0], rng())
    assert (same.low, same.high) == (3.0, 3.0)


def slow_sign_flip(differences: list[float]) -> float:
    """Count assignments of signs one by one."""
    found = abs(sum(differences))
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in product([1, -1], repeat=len(differences))
    ]
    return sum(each >= found for each in sums) / len(sums)


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_sign_flip_by_counting(differences: list[int]) -> None:
    """The exact test agrees with counting, ties and zeros included (integers add exactly)."""
    values = [float(each) for each in differences]
    assert sign_flip(values, rng()) == slow_sign_flip(values)


def test_sign_flip_by_hand() -> None:
    """Three differences one way are 2 of 8; with a small one the other way 4 of 8 are as far."""
    assert sign_flip([1.0, 2.0, 3.0], rng()) == 2 / 8
    # Signs of (3, 3, 1): 7, 5, 1, -1, ... and mirrored; |sum| >= 5 for (+,+,+), (+,+,-): 4 of 8.
    assert sign_flip([3.0, 3.0, -1.0], rng()) == 4 / 8
    assert slow_sign_flip([3.0, 3.0, -1.0]) != sign_flip([3.0, 3.0, 1.0], rng())


def test_sign_flip_of_many() -> None:
    """Of 40 differences of one size the random test follows the binomial law."""
    # 27 of 40 positive: P(at least 27 or at most 13 heads).
    expected = 2 * sum(comb(40, heads) for heads in range(27, 41)) / 2**40
    found = sign_flip([1.0] * 27 + [-1.0] * 13, rng())
    assert found == pytest.approx(expected, abs=4 * sqrt(expected / 2**16))
    assert sign_flip([1.0] * 40, rng()) == 1 / (1 + 2**16)  # never 0


def test_sign_flip_keeps_its_level() -> None:
    """Of pairs without a difference at most 5 % are called significant at 5 %."""
    samples = rng(5).normal(0, 1, (1000, 8))
    alarms = sum(sign_flip(each, rng()) <= 0.05 for each in samples) / 1000
    assert alarms < 0.05 + 3 * 0.007  # exact: 12 of 256 assignments, 4.7 %


def test_verdicts() -> None:
    """A difference is significant, or is not, or could not have been with so few pairs."""
    before = np.arange(6.0)
    sure = compare_pairs(before, before - 1, rng())
    assert (sure.difference.mean, sure.pairs, sure.p_value) == (-1.0, 6, 2 / 64)
    assert sure.verdict().startswith("significant (p = 0.031, 6 pairs")
    none = compare_pairs(before, before + np.tile([1, -1], 3), rng())
    assert none.p_value == 1.0
    assert none.verdict() == "not significant (p = 1, 6 pairs)"
    few = compare_pairs(before[:5], before[:5] - 1, rng())
    assert few.verdict() == ("not significant: 5 pairs cannot show p <= 0.05; expected at least 6")


def test_pairing_takes_the_common_part_out() -> None:
    """A small difference under large common noise is found in pairs and lost without them."""
    common = rng(7).normal(0, 100, 10)
    after = common + rng(8).normal(1, 0.1, 10)
    paired = compare_pairs(common, after, rng())
    assert paired.significant()
    assert not compare_pairs(common, after[rng(9).permutation(10)], rng()).significant()


def test_holm_by_hand() -> None:
    """0.01, 0.04, 0.03 become 0.03, 0.06 (not 0.04: never below the one before), 0.06."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


@pytest.mark.parametrize(("effect", "pairs"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_pairs_needed_of_tables(effect: float, pairs: int) -> None:
    """Pairs of a paired t-test at 5 % and power 80 % (Cohen, 1988; G*Power)."""
    assert pairs_needed(1.0, effect) == pairs


def test_power_by_simulation() -> None:
    """With the pairs that are needed the sign-flip test finds four differences of five."""
    pairs = pairs_needed(1.0, 1.0)
    samples = rng(11).normal(1.0, 1.0, (500, pairs))
    found = sum(sign_flip(each, rng()) <= 0.05 for each in samples) / 500
    assert found == pytest.approx(0.8, abs=0.06)  # a standard error of 0.018
    half = rng(12).normal(1.0, 1.0, (500, pairs // 2))
    assert sum(sign_flip(each, rng()) <= 0.05 for each in half) / 500 < 0.6


def test_runs_needed() -> None:
    """The half width is reached with so many runs, and not with one less."""
    # t(61-1) = 2.000: 2.000 * 1 / sqrt(61) = 0.256; 1.96^2 / 0.25^2 = 61.5 by the normal law.
    count = runs_needed(1.0, 0.25)
    widths = [student_quantile(0.975, n - 1) / sqrt(n) for n in (count, count - 1)]
    assert widths[0] <= 0.25 < widths[1]
    assert count == pytest.approx((NormalDist().inv_cdf(0.975) / 0.25) ** 2, abs=3)
    assert runs_needed(0.0, 1.0) == 2


def test_fewest_pairs() -> None:
    """Of n pairs on one side p is 2/2^n: 6 for 5 %, 8 for 1 %, exactly 5 for 1/16."""
    assert [fewest_pairs(level) for level in (0.05, 0.01, 1 / 16)] == [6, 8, 5]
    for count in range(2, 9):
        assert sign_flip(np.ones(count), rng()) == 2 / 2**count


def test_no_more_pairs_than_the_test_needs() -> None:
    """However large the difference, fewer pairs than the test needs are never named."""
    assert pairs_needed(1e-9, 1.0) == 6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: mean_interval([], rng()), "a sample of 0 numbers"),
        (lambda: mean_interval([1.0, np.nan], rng()), "expected finite ones"),
        (lambda: mean_interval([1.0, 2.0], rng(), method="bc"), "allowed: expanded, percentile"),
        (lambda: mean_interval([1.0, 2.0], rng(), level=1.5), "level 1.5"),
        (lambda: compare_pairs([1.0], [1.0, 2.0], rng()), "1 figures against 2"),
        (lambda: sign_flip([], rng()), "0 differences"),
        (lambda: student_quantile(1.0, 3), "probability 1"),
        (lambda: student_within(1.0, 0), "0 degrees of freedom"),
        (lambda: runs_needed(1.0, 0.0), "expected a number above 0"),
        (lambda: pairs_needed(-1.0, 1.0), "standard deviation -1"),
        (lambda: pairs_needed(1.0, 1e-9), "more than 1,000,000 runs"),
        (lambda: fewest_pairs(0.0), "level 0"),
    ],
)
def test_what_no_statistic_can_be_taken_of(wrong: object, said: str) -> None:
    """Empty, infinite and mismatched samples and impossible wishes are refused in one line."""
    with pytest.raises(StatisticsError, match=said) as error:
        wrong()  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_many_degrees_of_freedom() -> None:
    """The expansion beyond 200 degrees gives back the probability that it was asked for."""
    for freedom in (201, 500, 5000):
        for probability in (0.6, 0.8, 0.975, 0.9995):
            t = student_quantile(probability, freedom)
            assert student_within(t, freedom) == pytest.approx(2 * probability - 1, abs=1e-9)
