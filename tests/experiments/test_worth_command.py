"""`topomoe worth` from placement files to verdict, and the figure of moves against gain."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks.moves import curve_rows
from experiments.clusters import find_cluster
from experiments.commands.worth import run
from experiments.errors import ExperimentError, FigureError
from experiments.figures import moves as moves_figure
from experiments.figures import save
from experiments.run import prepare
from experiments.spec import RunSpec
from experiments.tables import resolve
from experiments.worth import moving_seconds, weigh
from placement import Contiguous, IlpLoad, Placement, placement_json
from placement.moves.replace import Replace, count_moves
from placement.moves.worth import Transfers
from topologies import Router
from workloads import model

if TYPE_CHECKING:
    from pathlib import Path

CONTENT: dict[str, Any] = {
    "cluster": "ep32",
    "tokens": 256,
    "workload": {"seed": 3, "profile_tokens": 512},
    "attention": {"kind": "pipelined"},
    "placement": {"layer_slots": 32, "bytes_per_parameter": 1.0},
}
MODEL = "DeepSeekMoE-16B"


def spec(**changes: object) -> RunSpec:
    """Return the run's specification."""
    return resolve(RunSpec, {**CONTENT, "model": MODEL, **changes}, "test")


def placements() -> tuple[Placement, Placement]:
    """Return a placement blind to load, and the hop optimum 100 moves allow from it."""
    problem = prepare(spec()).problem
    old = Contiguous()(problem)
    return old, Replace(old, max_moves=100)(problem)


def test_worth_says_what_moving_costs_and_gains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures agree with the placements, and the verdict is printed."""
    old, new = placements()
    for name, placement in (("old", old), ("new", new)):
        (tmp_path / f"{name}.json").write_text(placement_json(placement))
    run(
        tmp_path / "old.json",
        tmp_path / "new.json",
        CONTENT,
        json_file=tmp_path / "figures.json",
    )
    content = json.loads((tmp_path / "figures.json").read_text())
    moves = count_moves(old, new)
    assert content["moved_slots"] == moves.slots <= 110
    assert content["moved_inside"] == moves.inside
    assert content["moved_bytes"] == moves.slots * 3 * 2048 * 1408
    assert content["hops_gain"] > 0
    assert content["old"]["step_s"] > 0
    gained = (content["old"]["step_s"] - content["new"]["step_s"]) / 256
    assert content["gained_s_per_token"] == pytest.approx(gained)
    if gained > 0:
        assert content["break_even_tokens"] == pytest.approx(content["moving_s"] / gained)
    else:
        assert content["break_even_tokens"] is None
    printed = " ".join(capsys.readouterr().out.split())
    assert content["verdict"] in printed
    assert f"moves {moves.slots} of 1,728 slots" in printed


def test_nothing_to_gain_on_a_symmetric_fabric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under data-parallel attention no hops are to gain, and that is said."""
    old, _ = placements()
    (tmp_path / "old.json").write_text(placement_json(old))
    content = {**CONTENT, "attention": {"kind": "data-parallel"}}
    path = tmp_path / "old.json"
    run(path, path, content, json_file=None)
    printed = " ".join(capsys.readouterr().out.split())
    assert "0 % to gain on hops" in printed
    assert "nothing moves" in printed


def test_moving_time_by_hand() -> None:
    """Three slots leave one network card: its link carries them all and decides the time."""
    router = Router(find_cluster("ep32").spec.build())
    cluster = router.cluster
    zeros = np.zeros(3, dtype=np.int32)
    moves = Transfers(
        zeros, zeros, src=np.zeros(3, dtype=np.int64), dst=np.array([8, 16, 24]), slots=9
    )
    seconds = moving_seconds(moves, router, bytes_per_slot=10**9)
    card = float(cluster.bandwidth_Bps[cluster.nic_up[0]])
    latency = float(router.path_latency(moves.src, moves.dst).max())
    assert seconds == pytest.approx(3e9 / card + latency)
    nothing = Transfers(zeros[:0], zeros[:0], moves.src[:0], moves.dst[:0], slots=9)
    assert moving_seconds(nothing, router, bytes_per_slot=10**9) == 0


def test_placements_of_something_else() -> None:
    """Another model or cluster is a one-line error that names both."""
    old, new = placements()
    with pytest.raises(ExperimentError, match="a: places model 'other', the run is of"):
        weigh(replace(old, model="other"), new, spec(), names=("a", "b"))
    with pytest.raises(ExperimentError, match=r"on 4 servers of 8 GPUs, the run is of .* on 8 s"):
        weigh(old, new, spec(cluster="ep64"))
    with pytest.raises(ExperimentError, match="b: places model 'other'"):
        weigh(old, replace(new, model="other"), spec(), names=("a", "b"))
    assert model(MODEL).layers == old.layers == IlpLoad()(prepare(spec()).problem).layers


def curves() -> pd.DataFrame:
    """Two curves of three points."""
    return pd.DataFrame(
        {
            "case": ["a to b"] * 3 + ["c to d"] * 3,
            "moved": [0, 5, 10] * 2,
            "moved_share": [0.0, 0.05, 0.1, 0.0, 0.15, 0.3],
            "recovered": [0.0, 0.9, 1.0, 0.0, 0.7, 1.0],
            "bound_recovered": [0.0, 0.91, 1.0, 0.0, 0.7, 1.0],
        }
    )


def test_the_figure_draws_every_curve_and_its_bound(tmp_path: Path) -> None:
    """A line, its bound and a legend entry a curve; two files, the same bytes every time."""
    drawn = moves_figure.figure(curves())
    (axes,) = drawn.axes
    lines = [np.asarray(line.get_ydata(), dtype=float).tolist() for line in axes.lines]
    assert [0.0, 90.0, 100.0] in lines
    assert [0.0, 91.0, 100.0] in lines
    assert len(lines) == 1 + 2 * 2
    (box,) = drawn.legends
    assert [text.get_text() for text in box.get_texts()][:2] == ["a to b", "c to d"]
    first = [path.read_bytes() for path in save(drawn, tmp_path, "moves")]
    again = [path.read_bytes() for path in save(moves_figure.figure(curves()), tmp_path, "moves")]
    assert first == again


def test_the_figure_refuses_what_it_cannot_draw() -> None:
    """A missing column, and more curves than looks."""
    with pytest.raises(FigureError, match="missing column 'recovered'"):
        moves_figure.figure(curves().drop(columns="recovered"))
    many = pd.concat(
        [curves().assign(case=f"case {i}", moved=[0, 1, 2, 3, 4, 5]) for i in range(5)]
    )
    with pytest.raises(FigureError, match="5 curves; one figure tells 1 to 4 apart"):
        moves_figure.figure(many)


@pytest.mark.real_data
def test_the_benchmark_gives_what_the_figure_draws(real_data: Path) -> None:
    """Both curves run from keeping the map to the full gain, below a proven bound."""
    frame = pd.DataFrame(curve_rows(real_data, points=3))
    ends = frame.groupby("case")["recovered"].agg(["min", "max"])
    assert ends.to_numpy().tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert (frame["bound_hops"] <= frame["hops"]).all()
    assert frame["hops"].iloc[0] == pytest.approx(58.4559, abs=5e-5)
    assert len(moves_figure.figure(frame).axes) == 1
