"""Recorded workloads that cannot be used: the message leads to the file and the place in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.errors import ExperimentError
from experiments.spec import WorkloadSpec
from experiments.workload import load_workload

if TYPE_CHECKING:
    from pathlib import Path


def test_an_expert_too_hot_to_draw(tmp_path: Path) -> None:
    """The file is named, the layer by both of its numbers, and the probability to the digit."""
    counts = np.ones((28, 64))
    counts[0] = 0
    # 13 of 76 choices: 6 x 13 / 76 = 1.02631578947.
    counts[5, 3] = 13
    path = tmp_path / "hot.json"
    path.write_text(json.dumps({"logical_count": counts.tolist()}))
    message = (
        r"hot\.json: load of MoE layer 4 \(layer 5 of DeepSeekMoE-16B\), expert 3: .* = "
        "1.02631578947, expected at most 1"
    )
    with pytest.raises(ExperimentError, match=message):
        load_workload("DeepSeekMoE-16B", WorkloadSpec(load=str(path)), 8)


def test_one_sequence_only(tmp_path: Path) -> None:
    """A trace that cannot be split into profile and judged tokens is named by its path."""
    path = tmp_path / "one.npz"
    np.savez(path, topk_ids=np.tile(np.arange(6), (4, 27, 1)), seq_lens=np.array([4]))
    with pytest.raises(ExperimentError, match=rf"{path}: one sequence only"):
        load_workload("DeepSeekMoE-16B", WorkloadSpec(trace=str(path)), None)
