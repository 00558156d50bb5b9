"""Faults as run files give them."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from experiments.cli import status
from experiments.errors import ExperimentError
from experiments.spec import RunSpec
from experiments.tables import resolve

if TYPE_CHECKING:
    from pathlib import Path

STEP = """
model = "DeepSeekMoE-16B"
cluster = "ep32"
tokens = 256

[workload]
profile_tokens = 256

[placement]
policy = "{policy}"
{more}

[network]
kind = "{kind}"
routing = "hash"
"""


def run_spec(faults: str) -> RunSpec:
    """Return a run file with some faults, resolved."""
    return resolve(RunSpec, tomllib.loads('cluster = "fat-tree"\n' + faults), "run.toml")


def test_faults_in_a_run_file() -> None:
    """A link slows, dies and is back; a GPU is dead: speeds as the simulator takes them."""
    spec = run_spec(
        """
        [[faults]]
        at_s = 0
        gpu = 3
        dead = true
        [[faults]]
        at_s = 1e-3
        link = "gpu0->switch0"
        slow = 0.5
        [[faults]]
        at_s = 2e-3
        link = [0, 96]
        dead = true
        [[faults]]
        at_s = 3e-3
        link = 7
        back = true
        """
    )
    assert [each.speed for each in spec.faults] == [0.0, 0.5, 0.0, 1.0]
    assert [each.link for each in spec.faults] == [None, "gpu0->switch0", (0, 96), 7]
    assert run_spec("").faults == ()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("at_s = 0", "one 'link' or one 'gpu'"),
        ("at_s = 0\nlink = 1\ngpu = 1\ndead = true", "one 'link' or one 'gpu'"),
        ("at_s = 0\nlink = 1", "give one of slow = SHARE, dead = true or back = true"),
        ("at_s = 0\nlink = 1\nslow = 0.5\ndead = true", "give one of"),
        ("at_s = 0\ngpu = 1\nslow = 0.5", "a GPU is dead or back"),
        ("at_s = -1\nlink = 1\ndead = true", "faults.0.at_s"),
        ("at_s = 0\nlink = 1\nslow = 0.0", "faults.0.slow"),
        ("at_s = 0\nlink = 1\nslow = 1.0", "faults.0.slow"),
        ("at_s = 0\nlink = 1\ndown = true", "unknown key 'down'; allowed: at_s, link, gpu"),
    ],
)
def test_what_is_no_fault_is_refused(fault: str, message: str) -> None:
    """One line with the place and what was expected."""
    with pytest.raises(ExperimentError, match=message) as caught:
        run_spec(f"[[faults]]\n{fault}\n")
    assert "\n" not in str(caught.value)


def run_file(folder: Path, faults: str, *, kind: str = "fluid", more: str = "") -> str:
    """Return the path of a run file with some faults."""
    policy = "eplb" if more else "round-robin"
    path = folder / "run.toml"
    path.write_text(STEP.format(kind=kind, policy=policy, more=more) + faults)
    return str(path)


DIES = "[[faults]]\nat_s = 1.1e-4\ngpu = 3\ndead = true\n"
BACK = "[[faults]]\nat_s = {at}\ngpu = 3\nback = true\n"
DROP = '[dispatch]\nlost_experts = "drop"\n'


@pytest.mark.parametrize("kind", ["analytic", "fluid", "packet"])
def test_a_gpu_dies_in_the_middle_of_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """What was lost stands in print, in --json and in the tables; lost experts are named."""
    run = run_file(tmp_path, DROP + DIES + BACK.format(at=3e-4), kind=kind)
    figures, out = tmp_path / "figures.json", tmp_path / "out"
    assert status(["simulate", run, "--json", str(figures), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(figures.read_text())
    # 256 tokens on 32 GPUs: eight on GPU 3.
    assert found["lost_tokens"] == 8
    assert found["lost_bytes"] > 0
    assert found["lost_experts"] == len(found["lost_expert_ids"]) > 0
    assert found["resent_bytes"] == (0 if kind == "packet" else None)
    assert "tokens lost with GPUs that died" in printed
    layer, expert = found["lost_expert_ids"][0]
    assert f"lost experts (layer, expert): ({layer}, {expert})" in printed
    assert f"{found['lost_bytes']:,}" in printed
    table = pd.read_parquet(out / "layers.parquet")
    assert table["lost_bytes"].sum() == found["lost_bytes"]
    assert table["lost_choices"].sum() == found["lost_choices"]
    assert found["spec"]["dispatch"]["lost_experts"] == "drop"


def test_without_faults_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in print nor in --json."""
    figures = tmp_path / "figures.json"
    assert status(["simulate", run_file(tmp_path, ""), "--json", str(figures)]) == 0
    assert "lost" not in capsys.readouterr().out
    assert not [key for key in json.loads(figures.read_text()) if "lost" in key]


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (DIES, "GPU 3 dead: lost experts (layer, expert) ("),
        (DIES.replace("3", "32"), "gpu 32 does not exist; expected 0 to 31 of"),
        (DIES.replace("1.1e-4", "-1"), "faults.0.at_s"),
        (BACK.format(at=1e-4), "GPU 3 comes back, but is not dead"),
        (DIES + BACK.format(at=5e-5), "expected times that ascend"),
        (DIES + DIES.replace("1.1e-4", "2e-4"), "GPU 3 is dead already"),
        ('[dispatch]\nlost_experts = "ignore"\n' + DIES, "dispatch.lost_experts"),
        (
            DROP + "".join(DIES.replace("gpu = 3", f"gpu = {gpu}") for gpu in range(32)),
            "all 256 tokens of a micro-batch are lost",
        ),
    ],
)
def test_faults_that_cannot_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], faults: str, message: str
) -> None:
    """Status 2, one line, and no file."""
    figures = tmp_path / "figures.json"
    assert status(["simulate", run_file(tmp_path, faults), "--json", str(figures)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not figures.exists()
