"""Statistics of uneven loads, against hand arithmetic, slow twins and published figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import (
    LoadStatistics,
    WorkloadError,
    gini,
    loglog_slope,
    max_over_mean,
    model,
    read_logical_count,
    top_share,
)

if TYPE_CHECKING:
    from pathlib import Path


def _slow_gini(row: list[float]) -> float:
    """Mean absolute difference over all pairs, over twice the mean (the definition)."""
    pairs = [abs(a - b) for a in row for b in row]
    return sum(pairs) / len(pairs) / (2 * sum(row) / len(row))


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(any))
def test_gini_equals_the_mean_difference_of_all_pairs(row: list[int]) -> None:
    """The sorted formula equals the pairwise definition."""
    assert gini(np.array([row], dtype=float))[0] == pytest.approx(_slow_gini([*map(float, row)]))


def test_gini_twin_tells_unequal_loads_apart() -> None:
    """The slow twin is no constant: equal loads give 0, one of four taking all gives 3/4."""
    assert _slow_gini([1.0, 1.0]) == 0
    assert _slow_gini([0.0, 0.0, 0.0, 8.0]) == 0.75
    assert gini(np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 8.0]])).tolist() == [0.0, 0.75]


def test_shares_and_peaks_by_hand() -> None:
    """Hottest 2 of (1, 4, 2, 1) hold 6/8; the hottest is 4 over a mean of 2."""
    load = np.array([[1.0, 4.0, 2.0, 1.0]])
    assert top_share(load, 2).tolist() == [0.75]
    assert max_over_mean(load).tolist() == [2.0]


@settings(deadline=None)
@given(st.floats(0.0, 2.0), st.integers(3, 40))
def test_slope_recovers_the_exponent_of_a_power_law(exponent: float, experts: int) -> None:
    """Loads rank**-s have slope s, whatever the order of the experts."""
    load = np.arange(1, experts + 1)[::-1] ** -exponent
    assert loglog_slope(load[None, :], experts)[0] == pytest.approx(exponent, abs=1e-9)


def test_slope_equals_numpy_least_squares() -> None:
    """The closed form equals polyfit over the hotter half."""
    load = np.random.default_rng(3).lognormal(size=(4, 30))
    hot = np.sort(load, axis=1)[:, ::-1][:, :15]
    rank = np.log(np.arange(1, 16))
    expected = [-np.polyfit(rank, np.log(row), 1)[0] for row in hot]
    assert loglog_slope(load) == pytest.approx(expected)


def test_ranks_out_of_range_and_unused_experts_are_refused() -> None:
    """A share or slope over experts that are not there, or not in use, has no answer."""
    load = np.array([[1.0, 0.0, 0.0, 0.0]])
    with pytest.raises(WorkloadError, match=r"expected 1\.\.4"):
        top_share(load, 5)
    with pytest.raises(WorkloadError, match=r"expected 2\.\.4"):
        loglog_slope(load, 1)
    with pytest.raises(WorkloadError, match="layer 0: fewer than 2 experts in use"):
        loglog_slope(load)
    with pytest.raises(WorkloadError, match="zero for all"):
        LoadStatistics.of(np.zeros((1, 4)))


@pytest.mark.real_data
def test_recorded_r1_loads_have_the_stated_statistics(real_data: Path) -> None:
    """Decode 1000/1000 of DeepSeek-R1 gives the figures the synthetic default is fitted to."""
    file = real_data / "deepseek-r1-loads" / "decode_in1000out1000.json"
    found = LoadStatistics.of(read_logical_count(file, model("DeepSeek-R1")).load)
    assert round(found.gini, 3) == 0.348
    assert (round(found.gini_least, 2), round(found.gini_most, 2)) == (0.23, 0.50)
    assert round(found.hottest_share, 4) == 0.0217
    assert round(found.max_over_mean, 2) == 5.56
    assert round(found.max_over_mean_most) == 10
    assert round(found.top_eighth_share, 3) == 0.329
    assert round(found.loglog_slope, 3) == 0.464
