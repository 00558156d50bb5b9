"""What a run's placement table may ask for, and what `topomoe place` makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from experiments.cli import status
from experiments.commands.place import run
from experiments.errors import ExperimentError, FigureError
from experiments.figures import pareto as drawing
from experiments.run import execute, place_experts
from experiments.spec import RunSpec
from experiments.tables import resolve
from placement import InfeasibleError, placement_json
from placement.moves import count_moves

if TYPE_CHECKING:
    from pathlib import Path

CONTENT: dict[str, Any] = {
    "model": "DeepSeekMoE-16B",
    "cluster": "ep32",
    "tokens": 64,
    "workload": {"seed": 3, "profile_tokens": 512},
    "attention": {"kind": "pipelined"},
}
CAPS = {"layer_slots": 32, "server_slots": 512}


def spec(**placement: object) -> RunSpec:
    """Return a run with this placement table."""
    return resolve(RunSpec, {**CONTENT, "placement": {**CAPS, **placement}}, "test")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"beta": 1.5, "keep_groups": True}, "'beta' and 'keep_groups' do not combine"),
        ({"beta": 1.5, "policy": "eplb"}, "'beta' goes with policy ilp-load, replicated, "),
        ({"beta": 1.5, "file": "map.json"}, "give it or 'file'"),
        ({"beta": 0.9}, "placement.beta: Input should be greater than or equal to 1"),
        ({"beta_relax": True}, "'beta_relax' goes with 'beta'"),
        ({"max_moves": 3}, "'max_moves' goes with 'previous'"),
        ({"previous": "a", "max_moves": 3, "move_price": 0.1}, "give one of them"),
        ({"redundant": 8, "policy": "greedy"}, "'redundant' goes with policy ilp-load, repl"),
    ],
)
def test_options_that_do_not_go_together(asked: dict[str, Any], message: str) -> None:
    """The error names both options, or what is allowed."""
    with pytest.raises(ExperimentError, match=message):
        spec(**asked)


def test_a_cap_on_the_load_is_kept() -> None:
    """Beta holds on every server and costs hops against the free optimum."""
    capped, free = place_experts(spec(beta=1.2, beta_relax=True)), place_experts(spec())
    assert capped.placement.policy == "balanced"
    assert capped.expected.balance_server <= 1.2 + 1e-9 < free.expected.balance_server
    assert capped.expected.hops_per_token_layer >= free.expected.hops_per_token_layer


def test_moves_are_counted_from_the_previous_placement(tmp_path: Path) -> None:
    """No more experts change their server than allowed."""
    old = place_experts(spec(policy="contiguous")).placement
    (tmp_path / "old.json").write_text(placement_json(old))
    new = place_experts(spec(previous=str(tmp_path / "old.json"), max_moves=40)).placement
    assert new.policy == "replace"
    assert 0 < count_moves(old, new).servers <= 40


@pytest.mark.parametrize(
    ("policy", "redundant", "slots"), [("eplb", 32, 96), ("eplb-auto", 32, 96), ("hottest", 7, 70)]
)
def test_redundant_slots(policy: str, redundant: int, slots: int) -> None:
    """64 experts and the redundant ones; hottest: 2 experts on the 3 other of 4 servers."""
    placement = place_experts(spec(policy=policy, redundant=redundant)).placement
    assert len(placement.slot_layer) == slots * placement.layers
    assert placement.policy == policy


def test_too_few_redundant_slots() -> None:
    """An expert everywhere takes a slot on each other server."""
    with pytest.raises(ExperimentError, match="hottest takes 3 redundant slots"):
        place_experts(spec(policy="hottest", redundant=2))


@pytest.mark.parametrize(
    "rule", ["equal", "nearest", "lp", "sglang_static", "sglang_dynamic", "vllm_modulo"]
)
def test_replicas_are_replayed_under_every_rule(rule: str) -> None:
    """All choices of all tokens are answered, near the balance that the profile expects."""
    result = execute(spec(policy="eplb", redundant=32, replica_rule=rule))
    shape = result.setting.model
    assert result.replay.expert_tokens.sum() == 64 * shape.top_k * shape.layers
    assert 1 <= result.replay.gpus_per_token_layer <= shape.top_k
    # 64 tokens x 6 choices are 12 a GPU: the busiest of 32 is far above the expected load.
    assert result.expected.balance_gpu <= result.replay.balance_gpu


def test_an_engine_adds_its_rules() -> None:
    """Two experts of every layer on each of 32 GPUs, where the caps alone allow more."""
    placement = place_experts(spec(engine="sglang")).placement
    cell = placement.slot_layer * 32 + placement.slot_gpu
    assert np.unique(np.bincount(cell)).tolist() == [2]


def test_an_engine_that_refuses(tmp_path: Path) -> None:
    """What comes from a file, or with replicas, is refused with the layer and the GPU."""
    uneven = place_experts(spec()).placement
    (tmp_path / "map.json").write_text(placement_json(uneven))
    content = {"file": str(tmp_path / "map.json"), "engine": "vllm"}
    with pytest.raises(ExperimentError, match=r"vllm would not load the placement: layer \d+: GPU"):
        place_experts(resolve(RunSpec, {**CONTENT, "placement": content}, "test"))
    with pytest.raises(ExperimentError, match="vllm would not load the placement"):
        place_experts(spec(policy="hottest", redundant=3, engine="vllm"))


def test_groups_need_a_model_that_has_them() -> None:
    """The error names the model and the policy to take."""
    with pytest.raises(ValueError, match="'DeepSeekMoE-16B' has no routing groups; use ilp-load"):
        place_experts(spec(keep_groups=True))


def test_a_beta_that_cannot_be_met() -> None:
    """The hottest expert is above the mean of a GPU; the error names the least beta that works."""
    with pytest.raises(InfeasibleError, match=r"least workable beta found is \d"):
        place_experts(spec(beta=1.0, beta_scope="gpu"))


def test_place_replays_replicas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both columns are replayed; what the profile expects of balance stands beside."""
    run(
        {**CONTENT, "placement": {**CAPS, "policy": "eplb", "redundant": 32}},
        against="contiguous",
        out=tmp_path / "map.json",
        json_file=tmp_path / "figures.json",
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "64 tokens replayed with per_expert dispatch" in printed
    assert "32 redundant slots a layer, a token takes one of an expert's replicas by" in printed
    assert "engines that would load this placement: sglang, vllm, trtllm" in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["redundant_slots"] == 32 * 27
    for name in ("balance_gpu", "profile_balance_gpu"):
        assert figures[name] < figures["against"][name]
    for name in ("hops_per_token_layer", "byte_hops", "busiest_link_s", "step_s"):
        assert figures[name] > 0
    assert "not replayed" not in printed


def test_place_writes_the_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A point for each cap: never fewer hops for more balance, never below the bound."""
    run(
        {**CONTENT, "placement": CAPS},
        against="contiguous",
        out=None,
        json_file=None,
        pareto=tmp_path / "front",
    )
    assert "front of hops against balance written" in " ".join(capsys.readouterr().out.split())
    front = pd.read_csv(tmp_path / "front" / "front.csv")
    assert front.columns.tolist() == ["beta", "hops", "bound", "balance", "relaxed"]
    assert (front["hops"] >= front["bound"] - 1e-9).all()
    assert (front["bound"].diff().dropna() <= 1e-9).all()
    for kind in ("pdf", "png"):
        assert (tmp_path / "front" / f"pareto.{kind}").stat().st_size > 1000


def test_no_front_where_hops_cannot_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under data-parallel attention one line says so, and no file is written."""
    content = {**CONTENT, "attention": {"kind": "data-parallel"}, "placement": CAPS}
    front = tmp_path / "front"
    run(content, against="contiguous", out=None, json_file=None, pareto=front)
    assert "no front of hops against balance, and no file" in " ".join(
        capsys.readouterr().out.split()
    )
    assert not front.exists()


def test_caps_that_lead_to_one_point_share_its_label() -> None:
    """Three of five caps change nothing: their names stand beside the point once."""
    front = pd.DataFrame(
        {
            "beta": [1.1, 1.25, 1.5, 2.0, 3.0],
            "hops": [70.0, 66.0, 60.0, 60.0, 60.0],
            "bound": [69.0, 66.0, 60.0, 60.0, 60.0],
            "balance": [1.1, 1.25, 1.4, 1.4, 1.4],
        }
    )
    (axes,) = drawing.figure(front, scope="server").axes
    assert [text.get_text() for text in axes.texts] == ["1.1", "1.25", "1.5, 2, 3"]


def test_the_front_needs_its_columns() -> None:
    """A table without bounds is refused by name."""
    with pytest.raises(FigureError, match="front table"):
        drawing.figure(pd.DataFrame({"beta": [1.1], "hops": [3.0], "balance": [1.1]}), scope="gpu")


def test_place_and_worth_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few moves from what runs, then what they are worth; options arrive where they belong."""
    setting = ["--cluster", "ep32", "--attention", "pipelined", "--tokens", "64"]
    setting += ["--model", "DeepSeekMoE-16B"]
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert status(["place", *setting, "--policy", "contiguous", "--out", str(old)]) == 0
    asked = ["--previous", str(old), "--max-moves", "30", "--json", str(tmp_path / "place.json")]
    assert status(["place", *setting, *asked, "--out", str(new)]) == 0
    assert 0 < json.loads((tmp_path / "place.json").read_text())["moves"]["servers"] <= 30
    asked = ["--json", str(tmp_path / "worth.json")]
    assert status(["worth", str(old), str(new), *setting[:-2], *asked]) == 0
    figures = json.loads((tmp_path / "worth.json").read_text())
    assert 0 < figures["moved_slots"] <= 60
    assert figures["verdict"] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--beta", "1.2", "--keep-groups"], "'beta' and 'keep_groups' do not combine"),
        (["--engine", "magic"], "unknown engine 'magic'; allowed: sglang"),
        (["--previous", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--beta", "1", "--beta-scope", "gpu"], "beta 1 cannot be met in layer"),
    ],
)
def test_wrong_options_are_one_line(
    asked: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and the message says what was expected."""
    assert status(["place", "--cluster", "ep32", "--model", "DeepSeekMoE-16B", *asked]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
