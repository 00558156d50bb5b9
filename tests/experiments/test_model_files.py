"""A Hugging Face config.json wherever a model is named: on the command line and in run files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.cli import status
from experiments.commands.simulate import read_run
from experiments.spec import input_files
from placement import read_placement

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).parents[1] / "workloads" / "configs" / "OLMoE-1B-7B" / "config.json"
PLACE = ["place", "--cluster", "ep32", "--policy", "contiguous", "--tokens", "64"]


@pytest.fixture
def olmoe(tmp_path: Path) -> Path:
    """A folder called mine with the config of OLMoE, cut to two layers."""
    content = json.loads(GOLDEN.read_text()) | {"num_hidden_layers": 2}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(content))
    return tmp_path


def figures(folder: Path, *arguments: object) -> dict[str, Any]:
    """Run a command, and return what it wrote for programs."""
    out = folder / "figures.json"
    assert status([*map(str, arguments), "--json", str(out)]) == 0
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def test_preset_and_file_give_the_same_figures(tmp_path: Path) -> None:
    """The published file of OLMoE places as its preset does."""
    named, read = (
        figures(tmp_path, *PLACE, "--model", name) for name in ("OLMoE-1B-7B", GOLDEN.parent)
    )
    assert {key for key in named if named[key] != read[key]} <= {"spec", "solve_s"}
    assert read["spec"]["model"] == str(GOLDEN.parent)


def test_place_simulate_and_worth(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model from a file goes through every command; maps carry the name of its folder."""
    config, maps = olmoe / "mine" / "config.json", (olmoe / "a.json", olmoe / "b.json")
    for policy, out in zip(("contiguous", "greedy-load"), maps, strict=True):
        words = [*PLACE[:3], "--policy", policy, "--tokens", "64"]
        assert status([*words, "--model", str(config), "--out", str(out)]) == 0
    assert read_placement(maps[0]).model == "mine"
    assert (read_placement(maps[0]).layers, read_placement(maps[0]).experts) == (2, 64)
    run = olmoe / "run.toml"
    # Files named by a run file are looked up from its own folder.
    run.write_text('model = "mine/"\ncluster = "ep32"\ntokens = 64\n[placement]\nfile = "a.json"\n')
    monkeypatch.chdir("/")
    assert figures(olmoe, "simulate", run)["hops_per_token_layer"] > 0
    assert "mine on ep32" in capsys.readouterr().out
    worth = ["worth", *map(str, maps), "--cluster", "ep32", "--tokens", "64"]
    assert figures(olmoe, *worth, "--model", config)["slots"] == 2 * 64
    assert status(worth) == 2
    assert "unknown model 'mine': expected one of" in capsys.readouterr().err
    assert status([*worth, "--model", "OLMoE-1B-7B"]) == 2
    assert "places model 'mine'" in capsys.readouterr().err


def test_the_config_is_an_input(olmoe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No output replaces it, and it is among the files a run reads."""
    config, run = olmoe / "mine" / "config.json", olmoe / "run.toml"
    run.write_text('model = "mine/"\ncluster = "ep32"\n')
    assert str(config) in input_files(read_run(run))
    before = config.read_text()
    assert status([*PLACE, "--model", str(config.parent), "--out", str(config)]) == 2
    assert "is both read and to be written" in capsys.readouterr().err
    assert config.read_text() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GPT", "or the path of a Hugging Face config.json (with a slash, or ending in .json)"),
        ("gone/", "gone: cannot be read: No such file or directory"),
        ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B: cannot be read"),
        ("gone.json", "gone.json: cannot be read"),
    ],
)
def test_models_that_are_not_there(
    name: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line and status 2, on the command line and in a run file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(f'model = "{name}"\ncluster = "ep32"\n')
    for words in ([*PLACE, "--model", name], ["simulate", "run.toml"]):
        assert status(words) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("write", [lambda text: text[:40], lambda text: text.replace("64", "0")])
def test_a_broken_config_is_one_line(
    write: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A truncated or impossible file is named, and no output is written."""
    (tmp_path / "config.json").write_text(write(GOLDEN.read_text()))
    out = tmp_path / "map.json"
    assert status([*PLACE, "--model", str(tmp_path / "config.json"), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"topomoe: {tmp_path}/config.json: ")
    assert said.count("\n") == 1
    assert not out.exists()
