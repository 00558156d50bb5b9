"""The benchmark of 16,384 GPUs, with fewer instances and tokens."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.benchmarks.planes import (
    CASES,
    INSTANCES,
    PLANES_SECTION,
    PlanesCase,
    planes_rows,
    seats,
)
from experiments.benchmarks.sections import SECTIONS


def test_instances_on_the_eight_planes() -> None:
    """The fabric has the counts published; what is measured is what is required."""
    case = PlanesCase(scattered=True)
    (row,) = planes_rows(cases=(case,), instances=2, tokens_per_rank=4)
    # DeepSeek-V3, ISCA'25, table 3: endpoints, switches, links between switches.
    assert (row["gpus"], row["switches"], row["cables"]) == (16_384, 768, 16_384)
    # 8 choices of 1024 tokens in 58 layers reach nearly all of 256 * 255 pairs, both ways.
    assert 3.9 * 256 * 255 < row["pairs"] <= 4 * 256 * 255
    assert 0 < row["fabric_ms"] < row["step_ms"]
    assert 0 < row["alone_ms"] <= row["step_ms"]
    assert len(PLANES_SECTION.texts([row])[0]) == len(PLANES_SECTION.header)
    judged = PLANES_SECTION.judged([row | {"cpu_s": 60.1, "peak_gib": 8.1}])
    assert [each["met"] for each in judged] == [False, False]
    judged = PLANES_SECTION.judged([row | {"cpu_s": 59.9, "peak_gib": 7.9}])
    assert [each["met"] for each in judged] == [True, True]


def test_instances_sit_in_a_row_and_scattered() -> None:
    """Both are measured, and only where everything is asked for."""
    assert {case.scattered for case in CASES} == {True, False}
    assert PLANES_SECTION in SECTIONS


@pytest.mark.parametrize("scattered", [False, True])
def test_all_instances_have_gpus_of_their_own(scattered: bool) -> None:
    """64 instances of 256 GPUs take each of the 16,384 once."""
    gpus = np.concatenate([seats(number, scattered=scattered) for number in range(INSTANCES)])
    assert np.array_equal(np.sort(gpus), np.arange(16_384))
