"""The job that peers are timed on, exact."""

from __future__ import annotations

import pytest

from experiments.benchmarks.fluid import common_rows


def test_the_common_job_is_exact() -> None:
    """The benchmark's first row: 127 messages over a host link, from one filling."""
    (row,) = common_rows(repeats=1)
    assert row["makespan_us"] == pytest.approx(665.846, rel=1e-6)  # FACTS section 2
    assert row["makespan_us"] == pytest.approx(row["ideal_us"], rel=1e-9)
    assert row["fillings"] == 1
