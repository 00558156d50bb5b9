"""What the README shows runs."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import status
from experiments.clusters import STUDY_FILE, find_cluster
from experiments.commands.simulate import read_run
from experiments.run import execute
from experiments.study import read_study, runs
from experiments.sweeping import plan, read_sweep
from workloads import SyntheticWorkload, Topics, model

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def cooler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The README's own policy, saved as it says, by its name on the command line."""
    code = next(block for block in blocks("python") if "class Cooler" in block)
    body = code[code.index("class ") :].strip().splitlines()
    assert len(body) <= 20
    (tmp_path / "cooler.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield "cooler:Cooler"
    sys.modules.pop("cooler", None)


def test_own_policy_fits_every_cell_of_the_study(cooler: str) -> None:
    """The README's policy places both models on all four clusters."""
    study = read_study().model_copy(update={"policies": [cooler], "profile_tokens": 256})
    study = study.model_copy(update={"replay": study.replay.model_copy(update={"tokens": 8})})
    for spec in runs(study):
        if spec.network.kind == "analytic":
            assert execute(spec).placement.policy == "cooler"


def test_run_file(tmp_path: Path) -> None:
    """The README's run file resolves as it stands."""
    path = tmp_path / "run.toml"
    path.write_text(next(block for block in blocks("toml") if "[network]" in block))
    assert read_run(path).network.kind == "packet"


def test_own_traffic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's commands on a recorded trace run as they stand, and leave what they name."""
    monkeypatch.chdir(tmp_path)
    lite = model("DeepSeek-V2-Lite")
    drawn = SyntheticWorkload(lite, 0, topics=Topics(4, 1.0, seq_len=10)).trace(200)
    np.savez("choices.npz", topk_ids=drawn.topk, seq_lens=drawn.seq_lens)
    section = README[
        README.index("## Your own traffic") : README.index("## What your model's routers choose")
    ]
    commands = re.findall(r"^    topomoe (.*)$", section, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["stats", "fit", "place"]
    for command in commands:
        assert status(shlex.split(command)) == 0
    names = {path.name for path in tmp_path.rglob("*")}
    assert names >= {"mine.toml", "loads.png", "choices.png"}


def test_what_is_simulated(tmp_path: Path) -> None:
    """The README's decode pool runs, trace included: two micro-batches on a fluid network."""
    run_file, trace, figures = (
        tmp_path / name for name in ("decode.toml", "decode.json.gz", "decode.json")
    )
    run_file.write_text(next(block for block in blocks("toml") if "[step]" in block))
    words = ["simulate", str(run_file), "--perfetto", str(trace), "--json", str(figures)]
    assert status(words) == 0
    assert trace.stat().st_size > 1000
    content = json.loads(figures.read_text())
    assert content["spec"]["network"]["kind"] == "fluid"
    assert content["tpot_s"] == content["step_s"] > 0


def test_sweep_file(tmp_path: Path) -> None:
    """The README's sweep file has the runs it says."""
    path = tmp_path / "sweep.toml"
    path.write_text(next(block for block in blocks("toml") if "[[zip]]" in block))
    # 2 clusters x 3 seeds x 2 rows in step x 2 settings.
    assert "# 24 runs" in README
    assert len(plan(read_sweep(path)).runs) == 24


@pytest.mark.parametrize(
    "path", sorted(STUDY_FILE.parent.glob("*.toml")), ids=lambda each: each.stem
)
def test_example_sweeps(path: Path) -> None:
    """Every sweep file of the project but the study's resolves."""
    if path != STUDY_FILE:
        assert len(plan(read_sweep(path)).runs) > 1


def test_cluster_file(tmp_path: Path) -> None:
    """The README's cluster file builds as it stands."""
    path = tmp_path / "mine.toml"
    path.write_text(next(block for block in blocks("toml") if "builder" in block))
    assert find_cluster(str(path)).spec.build().gpus == 128


def test_from_python(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's Python example proves its placement optimal."""
    exec(next(block for block in blocks("python") if "IlpLoad" in block), {})  # noqa: S102
    assert capsys.readouterr().out.startswith("optimal 0.0 ")


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The console examples run and exit with 0."""
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ topomoe (.*)$", "".join(blocks("console")), flags=re.MULTILINE)
    assert commands
    for command in commands:
        assert status(shlex.split(command)) == 0


def test_every_command_is_named() -> None:
    """The make targets the README promises exist."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
