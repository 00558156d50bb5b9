"""The benchmark of large clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.benchmarks import clusters
from experiments.benchmarks.clusters import CLUSTER_SECTION, SPECS
from experiments.benchmarks.sections import SECTIONS
from topologies import BUILDERS

if TYPE_CHECKING:
    import pytest


def test_every_builder_is_there() -> None:
    """All builders that need no file are built."""
    assert sorted(SPECS) == sorted(set(BUILDERS) - {"edges", "graphml", "links", "measured"})
    assert CLUSTER_SECTION in SECTIONS


def test_rows_hold_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has every column, the cluster's counts and seconds."""
    monkeypatch.setattr(clusters, "SPECS", {"torus": {"dims": [3, 3], "gpus_per_server": 1}})
    rows = CLUSTER_SECTION.rows(Path(), False)  # noqa: FBT003  a row source takes two values
    assert [(row["builder"], row["gpus"], row["cables"]) for row in rows] == [("torus", 9, 18)]
    assert CLUSTER_SECTION.texts(rows)[0][:4] == ["torus", "9", "9", "18"]
    assert all(row["met"] for row in CLUSTER_SECTION.judged(rows))
