"""The study: its runs, its tables on disk, and that a second run changes no byte of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.clusters import find_cluster, study_clusters
from experiments.drawing import draw_study, read_expected
from experiments.errors import ExperimentError, FigureError
from experiments.outputs import write_tables
from experiments.paper import run_study
from experiments.study import read_study, runs, with_load
from topologies import TopologyError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from experiments.study import Study

TIMED = {"manifest.json", "solve_time.pdf", "solve_time.png"}


@pytest.fixture
def small() -> Study:
    """The study with one model, two clusters, three policies and few tokens."""
    study = read_study()
    return study.model_copy(
        update={
            "models": ["DeepSeekMoE-16B"],
            "clusters": ["fat-tree", "dragonfly-sparse"],
            "policies": ["round-robin", "ilp", "ilp-load"],
            "profile_tokens": 512,
            "replay": study.replay.model_copy(update={"tokens": 128}),
            "packet": study.packet.model_copy(update={"model": "DeepSeekMoE-16B", "tokens": 16}),
            "data_parallel": study.data_parallel.model_copy(update={"models": ["DeepSeekMoE-16B"]}),
        }
    )


def write(study: Study, folder: Path, *, workers: int) -> pd.DataFrame:
    """Run a study into a folder and return its hops."""
    seen: list[tuple[int, int]] = []
    result = run_study(study, workers=workers, progress=lambda _, at, of: seen.append((at, of)))
    # 2 clusters x 3 policies, 3 packet runs, 6 data-parallel ones.
    assert seen == [(at, 15) for at in range(1, 16)]
    write_tables(study, result, folder)
    draw_study(folder)
    return result.hops


def test_a_second_run_changes_nothing_but_timings(small: Study, tmp_path: Path) -> None:
    """Two runs, with one worker and with two, write the same bytes; times may differ."""
    hops = write(small, tmp_path / "one", workers=1)
    write(small, tmp_path / "two", workers=2)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {path.name for path in (tmp_path / "two").iterdir()}
    assert {"hops.csv", "links.parquet", "tables.md", "hops_by_policy.pdf"} <= names
    for name in sorted(names - TIMED):
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name
    _check_hops(hops)
    _check_manifest(tmp_path / "one", small)


def _check_hops(hops: pd.DataFrame) -> None:
    cells = hops[(hops["attention"] == "pipelined") & (hops["network"] == "analytic")]
    best = cells[cells["policy"] == "ilp-load"]
    assert (best["status"] == "optimal").all()
    assert (best["saving_pct"] > 20).all()
    assert (cells.loc[cells["policy"] == "round-robin", "saving_pct"] == 0).all()
    blind = cells[cells["policy"] == "ilp"]
    low, high = blind["optima_low_hops"], blind["optima_high_hops"]
    assert ((low <= blind["expected_hops"]) & (blind["expected_hops"] <= high)).all()
    # Hops do not move where the fabric looks the same from every server.
    still = hops[(hops["attention"] == "data-parallel") & (hops["cluster"] == "fat-tree")]
    assert np.ptp(still["expected_hops"]) < 1e-9


def _check_manifest(folder: Path, study: Study) -> None:
    about = json.loads((folder / "manifest.json").read_text())
    assert about["workload"] == "synthetic, R1-like, seed 0"
    assert about["spec"]["seed"] == study.seed
    assert len(about["solves"]) == 15
    assert {"status", "bound_hops", "gap", "seconds"} <= set(about["solves"][0])
    assert "highspy" in about["versions"]


def test_both_caps_bind() -> None:
    """Every run has C_layer = 2E/S and C_exp = ceil(LE/S), and all 32 servers of 8 GPUs."""
    for spec in runs(read_study()):
        # E/S is 8 and 2; 58 * 8 = 464 and 27 * 2 = 54.
        layer, total = {"DeepSeek-R1": (16, 464), "DeepSeekMoE-16B": (4, 54)}[spec.model]
        assert (spec.placement.layer_slots, spec.placement.server_slots) == (layer, total)
    for name in study_clusters():
        assert find_cluster(name).spec.build().gpus == 256


def test_a_load_file_selects_the_model_that_fits(tmp_path: Path) -> None:
    """A file of 28 x 64 counts runs DeepSeekMoE-16B alone, whichever comes first."""
    counts = np.ones((28, 64), dtype=int)
    counts[0] = 0
    load = tmp_path / "loads.json"
    load.write_text(json.dumps({"logical_count": counts.tolist()}))
    study = with_load(read_study(), load)
    assert study.models == ["DeepSeekMoE-16B"]
    assert {spec.workload.load for spec in runs(study)} == {str(load)}
    # 4 clusters x 7 policies, the packet column of 7, and 28 data-parallel runs.
    assert len(runs(study)) == 63


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,cluster,policy\n", "missing column 'hops'"),
        ("model,cluster,policy,hops\nGPT,fat-tree,ilp,5\n", "line 2: unknown model 'GPT'"),
        ("model,cluster,policy,hops\nDeepSeek-R1,fat-tree,ilp,x\n", "line 2: hops is 'x'"),
        ("model,cluster,policy,hops\nDeepSeek-R1,fat-tree,ilp,-3\n", "line 2: hops is '-3'"),
        ("", "cannot be read as CSV"),
    ],
)
def test_expected_figures_are_checked_before_anything_runs(
    tmp_path: Path, content: str, message: str
) -> None:
    """A typed-in table names its broken line."""
    path = tmp_path / "expected.csv"
    path.write_text(content)
    with pytest.raises(FigureError, match=message):
        read_expected(path, read_study())


def test_unknown_cluster_lists_the_allowed() -> None:
    """Study clusters and presets are offered together."""
    with pytest.raises(ExperimentError, match=r"allowed: fat-tree, .*ep32.*, or a \.toml file"):
        find_cluster("torus-of-pisa")


def test_cluster_file(tmp_path: Path) -> None:
    """A cluster file is found by its ending, and its errors name it."""
    path = tmp_path / "own.toml"
    path.write_text(
        'builder = "fat-tree"\n[parameters]\nleaves_per_pod = 2\n'
        "servers_per_leaf = 2\naggregations_per_pod = 1\n"
    )
    assert find_cluster(str(path)).spec.build().servers == 4
    path.write_text('builder = "torus"\n[parameters]\n')
    with pytest.raises(TopologyError, match=r"own\.toml: unknown builder 'torus'"):
        find_cluster(str(path))
