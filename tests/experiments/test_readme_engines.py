"""What the README shows of engines runs, on generated files and on recorded ones."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.cli import status
from experiments.conversion import READ, WRITTEN
from experiments.workload import load_workload
from placement.formats import MAP_FORMATS
from workloads import SyntheticWorkload, model, read_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## From your engine and back")[2].partition("\n## ")[0]
COMMANDS = [
    line.removeprefix("topomoe ")
    for block in re.findall(r"```sh\n(.*?)```", SECTION, flags=re.DOTALL)
    for line in block.splitlines()
]


def said_by(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command, see that it ends well, and return what it printed in one line."""
    capsys.readouterr()
    assert status(shlex.split(command)) == 0, command
    return " ".join(capsys.readouterr().out.split())


def counts(seed: int) -> dict[str, list[list[int]]]:
    """Return synthetic counts of DeepSeek-R1 as SGLang records them, dense rows zero."""
    r1 = model("DeepSeek-R1")
    rows = np.zeros((r1.hidden_layers, r1.experts), dtype=int)
    rows[list(r1.moe_layers)] = np.ceil(1e6 * SyntheticWorkload(r1, seed).load)
    return {"logical_count": rows.tolist()}


def run_all(capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[str, str]]:
    """Run the section's commands in their order; yield each with what it said."""
    assert [command.split()[0] for command in COMMANDS].count("place") == 3
    # Workloads are kept by the names of their files, which mean others in another folder.
    load_workload.cache_clear()
    for command in COMMANDS:
        yield command, said_by(command, capsys)


def test_commands_on_generated_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command runs as it stands; maps are accepted, and the same map moves nothing."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("loads.json", 0), ("later.json", 1)):
        Path(name).write_text(json.dumps(counts(seed)))
    topk = SyntheticWorkload(model("DeepSeek-V2-Lite"), 0).trace(400).topk
    np.savez("choices.npz", routed_experts=topk, seq_lens=np.full(40, 10))
    for command, said in run_all(capsys):
        if command.startswith("check map."):
            engine = command.split()[command.split().index("--engine") + 1]
            assert f"{engine}: would be accepted, as it stands" in said
        if command.startswith("worth map.json map.yaml"):
            assert "moves 0 of 16,704 slots" in said
            assert said.endswith("0 % to gain, leave it")
    assert json.loads(Path("map.json").read_text()).keys() == {"physical_to_logical_map"}
    assert Path("map.yaml").read_text().startswith("num_slots: 288\nlayer_updates_per_iter: 0\n")
    assert np.load("table.npy").shape == (26, 96)


@pytest.mark.real_data
def test_commands_on_recorded_files(
    real_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On recordings every command runs, and says what the README says of them."""
    monkeypatch.chdir(tmp_path)
    recorded = real_data / "deepseek-r1-loads"
    shutil.copyfile(recorded / "decode_in1000out1000.json", "loads.json")
    shutil.copyfile(recorded / "decode_in500out1500.json", "later.json")
    lite = model("DeepSeek-V2-Lite")
    trace = read_trace(real_data / "deepseek-v2-lite-traces" / "intent.npz", lite)
    np.savez("choices.npz", routed_experts=trace.topk, seq_lens=trace.seq_lens)
    for command, said in run_all(capsys):
        if command.startswith("place --cluster ep32 --load loads.json"):
            gained = re.search(r"against contiguous .* step ([-+.\d]+) %", said)
            assert gained is not None
            assert float(gained[1]) == pytest.approx(-50, abs=2)
        if command.startswith("worth"):
            assert said.endswith("0 % to gain, leave it")
    # What the README says of a cap: the same commands with one, another map, and what that gains.
    again, weigh = (each for each in COMMANDS if "next.json" in each)
    (cap,) = re.findall(r"`(--beta [^`]*--max-moves \d+)`", SECTION)
    said_by(again.replace("--max-moves 100", cap), capsys)
    weighed = said_by(weigh, capsys)
    moves = re.search(r"(\d+) slots\s+move, and `worth`", SECTION)
    gain = re.search(r"step, ms │ [\d.]+ │ [\d.]+ │ ([\d.]+) %", weighed)
    steps = re.search(r"\(([\d.]+) steps of this batch\)$", weighed)
    assert moves is not None
    assert f"moves {moves[1]} of 16,704 slots" in weighed
    assert gain is not None
    assert float(gain[1]) == pytest.approx(1.1, abs=0.1)
    assert steps is not None
    assert float(steps[1]) == pytest.approx(75, rel=0.1)


def test_the_flags_are_those_that_place_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's flags of SGLang are the ones `place` prints for such a map."""
    monkeypatch.chdir(tmp_path)
    place = "place --cluster ep32 --policy eplb --redundant 32 --format sglang --out map.json"
    said = said_by(f"{place} --tokens 64", capsys)
    (flags,) = re.findall(r"^    (--ep-size .*)$", SECTION, flags=re.MULTILINE)
    assert all(f"{part}" in said for part in re.findall(r"--[a-z-]+ \S+", flags))
    assert "without --enable-eplb" in said
    dynamic = said_by(f"{place} --tokens 64 --replica-rule sglang_dynamic", capsys)
    assert "--ep-dispatch-algorithm dynamic" in dynamic


def test_every_format_is_named() -> None:
    """The table lists the formats there are, and no other."""
    table = "".join(line for line in SECTION.splitlines() if line.startswith("| "))
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    formats = {name for kinds in (READ, WRITTEN) for names in kinds.values() for name in names}
    assert formats >= set(MAP_FORMATS)
    assert formats <= named
