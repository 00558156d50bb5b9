"""Recorded workloads: read from files and folders alike; errors lead to the place in the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.errors import ExperimentError
from experiments.spec import WorkloadSpec
from experiments.workload import domain_judged, domain_profile, load_workload
from workloads import TraceWriter, model

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


@pytest.mark.parametrize("stored", [False, True])
def test_a_single_sequence_is_halved(tmp_path: Path, *, stored: bool) -> None:
    """Its first half makes the profile and its second is judged, and captions say so."""
    rng = np.random.default_rng(0)
    topk = np.argsort(rng.random((7, 27, 64)), axis=2)[:, :, :6]
    path = tmp_path / ("one.trace" if stored else "one.npy")
    if stored:
        with TraceWriter(path, model="x", experts=64, layers=27, top_k=6, source="made") as out:
            out.append(topk, seq_lens=np.array([7]))
    else:
        np.save(path, topk)
    found = load_workload("DeepSeekMoE-16B", WorkloadSpec(trace=str(path)), None)
    assert found.profile.choices is not None
    assert found.profile.choices.tolist() == topk[:3].tolist()
    assert found.trace.topk.tolist() == topk[3:].tolist()
    assert found.source.endswith("(one sequence: first half fitted, second judged)")
    with pytest.raises(ExperimentError, match="5 tokens asked for; its second half, which is "):
        load_workload("DeepSeekMoE-16B", WorkloadSpec(trace=str(path)), 5)


def test_one_token_only(tmp_path: Path) -> None:
    """A trace that cannot be split is named by its path."""
    path = tmp_path / "one.npz"
    np.savez(path, topk_ids=np.tile(np.arange(6), (1, 27, 1)), seq_lens=np.array([1]))
    with pytest.raises(ExperimentError, match=rf"{path}: one token only; a profile and a judged"):
        load_workload("DeepSeekMoE-16B", WorkloadSpec(trace=str(path)), None)


def test_a_stored_trace_is_what_the_npz_is(tmp_path: Path) -> None:
    """The same tokens give the same profile and judged trace from a file and from a folder."""
    shape, rng = model("DeepSeekMoE-16B"), np.random.default_rng(0)
    topk = np.argsort(rng.random((30, 27, 64)), axis=2)[:, :, :6]
    lengths = np.array([4, 9, 2, 5, 10])
    np.savez(tmp_path / "x.npz", topk_ids=topk, seq_lens=lengths)
    with TraceWriter(
        tmp_path / "x.trace", model=shape, experts=64, layers=27, top_k=6, source="made"
    ) as out:
        out.append(topk, seq_lens=lengths)
    for tokens in (None, 11):
        file, folder = (
            load_workload(shape.name, WorkloadSpec(trace=str(tmp_path / name)), tokens)
            for name in ("x.npz", "x.trace")
        )
        assert np.array_equal(file.profile.load, folder.profile.load)
        assert np.array_equal(file.profile.choices, folder.profile.choices)  # type: ignore[arg-type]
        assert np.array_equal(file.trace.topk, folder.trace.topk)
        assert file.trace.seq_lens.tolist() == folder.trace.seq_lens.tolist()
    profiles = [domain_profile(shape, tmp_path / name) for name in ("x.npz", "x.trace")]
    assert np.array_equal(profiles[0].load, profiles[1].load)
    judged = [domain_judged(shape, tmp_path / name) for name in ("x.npz", "x.trace")]
    assert np.array_equal(judged[0].topk, judged[1].topk)
