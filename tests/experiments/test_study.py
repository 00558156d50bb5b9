"""The study: its runs, its tables on disk, and that a second run changes no byte of them."""

from __future__ import annotations

import json
import os
import sys
import time
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from experiments.clusters import find_cluster, study_clusters
from experiments.drawing import draw_study
from experiments.errors import ExperimentError, FigureError, RunError
from experiments.expected import read_expected
from experiments.manifest import manifest
from experiments.markdown import findings, study_markdown
from experiments.outputs import write_study, write_tables
from experiments.paper import StudyResult, run_study
from experiments.study import policy_names, read_study, runs, with_load, with_policies
from experiments.sweeping.lanes import LanePool
from topologies import TopologyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from experiments.study import Study
    from experiments.sweeping.lane import Limits

HEADER = "model,cluster,policy,hops\n"
CELL = "DeepSeek-R1,fat-tree,ilp"
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
        ("model,cluster,policy,hops,hops\n", "repeated column 'hops'"),
        ("model,cluster,policy,hops\n", "has a header and no rows"),
        (f"{HEADER}{CELL},50,note\n", "line 2: 5 fields; expected 4"),
        (f"{HEADER}{CELL}\n", "line 2: 3 fields; expected 4"),
        (f"{HEADER}{CELL},50\n\n{CELL},51\n", "line 4: .*, ilp again, as on line 2"),
        (f"{HEADER}{CELL},True\n", "line 2: hops is 'True'"),
        (f"{HEADER}{CELL},nan\n", "line 2: hops is 'nan'"),
        (f"{HEADER}{CELL},1e308\n", "line 2: hops is '1e308'"),
        (f"{HEADER}\n\n{CELL},-1\n", "line 4: hops is '-1'"),
        (f'{HEADER}"DeepSeek-R1', "cannot be read as CSV"),
        ("", "is empty"),
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
    with pytest.raises(ExperimentError, match=r"allowed: fat-tree, .*ep32.*, or a file \(\.toml"):
        find_cluster("torus-of-pisa")


def test_cluster_file(tmp_path: Path) -> None:
    """A cluster file is found by its ending, and its errors name it."""
    path = tmp_path / "own.toml"
    path.write_text(
        'builder = "fat-tree"\n[parameters]\nleaves_per_pod = 2\n'
        "servers_per_leaf = 2\naggregations_per_pod = 1\n"
    )
    assert find_cluster(str(path)).spec.build().servers == 4
    path.write_text('builder = "tesseract"\n[parameters]\n')
    with pytest.raises(TopologyError, match=r"own\.toml: unknown builder 'tesseract'"):
        find_cluster(str(path))


def test_typed_in_figures_leave_a_trace(small: Study, tmp_path: Path) -> None:
    """Tables lay them beside ours, with the difference; the manifest names their file."""
    path = tmp_path / "theirs.csv"
    path.write_text("\ufeffmodel,cluster,policy,hops,page\n\nDeepSeekMoE-16B,fat-tree,ilp,50,7\n")
    expected = read_expected(path, small)
    page = study_markdown(small_hops(small, ilp=40.0), "w", expected=expected)
    # 40 of 50: 20 % less.
    assert "| DeepSeekMoE-16B | fat-tree | ilp | 50.00 | 40.00 | -20.0 % |" in page
    assert "theirs.csv" in page
    result = StudyResult(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), 1.0, 1)
    about = manifest(small, result, "w", expected=expected)["expected"]
    assert about == {"file": "theirs.csv", "sha256": sha256(path.read_bytes()).hexdigest()}
    assert "expected" not in manifest(small, result, "w")


def small_hops(study: Study, **hops: float) -> pd.DataFrame:
    """Return made-up rows of ``hops.csv`` for round-robin and the policies named."""
    rows = [
        {
            "model": study.models[0],
            "cluster": cluster,
            "policy": policy,
            "attention": "pipelined",
            "network": "analytic",
            "tokens": 8,
            "hops_per_token_layer": value,
            "saving_pct": 100 * (1 - value / 80),
            "balance_server": 2.0,
            "step_s": value / 1e4,
            "optima_low_hops": np.nan,
            "optima_high_hops": np.nan,
        }
        for cluster in study.clusters
        for policy, value in {"round-robin": 80.0, **hops}.items()
    ]
    return pd.DataFrame(rows)


def test_own_policies_are_among_the_findings(small: Study) -> None:
    """A policy of the user's own has its sentence, as the built-in ones have theirs."""
    lines = findings(small_hops(small, mine=60.0))
    # 60 of 80 hops, and of 8 ms.
    assert lines == [
        (
            "DeepSeekMoE-16B: mine, a policy of your own, saves 25.0 % of round-robin's hops and "
            "25.0 % of its step; its busiest server carries 2.00 times the mean."
        )
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ilp-load", "another policy is called 'ilp-load' already"),
        ("fancy\nname", r"its name is 'fancy\\nname'; expected printable text"),
        ("a|b", "its name is 'a|b'"),
        ("\x1b[2J", "expected printable text"),
        (" ", "its name is ' '"),
    ],
)
def test_names_that_tables_cannot_show(
    own_policy: Callable[[str], str], name: str, message: str
) -> None:
    """A policy with the name of another, or one that breaks a table, is refused beforehand."""
    with pytest.raises(ExperimentError, match=message):
        with_policies(read_study(), [own_policy(name)])


def test_names_of_own_policies_are_taken_once(own_policy: Callable[[str], str]) -> None:
    """The same policy twice is refused, as is a built-in one on top; one is kept."""
    own = own_policy("fine [/b] name")
    study = with_policies(read_study(), [own])
    assert policy_names(study)[-1] == "fine [/b] name"
    for twice in ([own, own], ["ilp"]):
        with pytest.raises(ExperimentError, match="already"):
            with_policies(read_study(), twice)


@pytest.fixture
def own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Make a policy of that name, which places as round-robin, and return how to call it."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str) -> str:
        (tmp_path / "made_up.py").write_text(
            "from placement import RoundRobin\n\n\nclass Own:\n"
            f"    name = {name!r}\n\n"
            "    def __call__(self, problem):\n        return RoundRobin()(problem)\n"
        )
        sys.modules.pop("made_up", None)
        return "made_up:Own"

    yield make
    sys.modules.pop("made_up", None)


def test_a_figure_that_fails_leaves_the_results_alone(
    small: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one file of the destination is new when the last figure cannot be drawn."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "hops.csv").write_text("old")

    def tables(_study: Study, _result: StudyResult, stage: Path, **_: object) -> None:
        (stage / "hops.csv").write_text("new")

    def draw(_stage: Path, **_: object) -> None:
        raise FigureError("cannot be drawn")

    monkeypatch.setattr("experiments.outputs.write_tables", tables)
    result = StudyResult(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), 1.0, 1)
    with monkeypatch.context() as broken:
        broken.setattr("experiments.outputs.draw_study", draw)
        with pytest.raises(FigureError):
            write_study(small, result, folder)
    assert [path.name for path in folder.iterdir()] == ["hops.csv"]
    assert (folder / "hops.csv").read_text() == "old"
    monkeypatch.setattr("experiments.outputs.draw_study", lambda _stage, **_: None)
    write_study(small, result, folder)
    assert [path.name for path in folder.iterdir()] == ["hops.csv"]
    assert (folder / "hops.csv").read_text() == "new"


def test_a_worker_that_dies_stops_the_study(small: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the run it was at, and no process is left behind."""
    monkeypatch.setattr("experiments.paper.run_cell", abort)
    monkeypatch.setattr("experiments.paper.runs", lambda study: runs(study)[:3])
    pools: list[LanePool] = []
    monkeypatch.setattr("experiments.sweeping.executors.LanePool", remembered(pools))
    begun = time.monotonic()
    with pytest.raises(RunError, match=r"DeepSeekMoE-16B fat-tree .* died .* fewer --workers"):
        run_study(small, workers=1, progress=lambda *_: None)
    assert time.monotonic() - begun < 60
    assert all(lane._process is None for pool in pools for lane in pool._lanes)


def abort(_spec: object) -> None:
    """Die."""
    os.abort()


def remembered(pools: list[LanePool]) -> Callable[..., LanePool]:
    """Return what makes bare pools and keeps them in a list."""

    def make(workers: int, limits: Limits | None) -> LanePool:
        pools.append(LanePool(workers, limits, preload=()))
        return pools[-1]

    return make
