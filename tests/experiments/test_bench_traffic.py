"""The benchmark of long traces, on a short one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from experiments.benchmarks.traffic import TRAFFIC_SECTION, TrafficCase, measure, write_trace

if TYPE_CHECKING:
    from pathlib import Path


def test_a_short_trace_is_counted_from_disk(tmp_path: Path) -> None:
    """All 300 tokens with 8 messages each way, at the hops that the fabric's tiers give."""
    file = tmp_path / "choices.npy"
    write_trace(file, 300)
    row = measure(file, TrafficCase("per_expert"))
    assert (row["tokens"], row["messages"], row["slots"]) == (300, 16.0, 256)
    # Of 32 servers 1 is the own one (0 hops), 3 are on its leaf (2), 12 in its pod (4), 16 beyond
    # (6): 150 / 32 = 4.6875 hops a message, 16 messages.
    # 139,200 messages of standard deviation 1.7 in hops: the mean over 300 x 58 tokens and
    # layers of 16 of them is within 5 x 16 x 1.7 / 373.
    assert row["hops"] == pytest.approx(75.0, abs=0.37)
    assert row["cpu_s"] > 0
    assert TRAFFIC_SECTION.texts([row])[0][:4] == ["per_expert", "data-parallel", "256", "equal"]
