"""`topomoe convert` and `check`, and engines' own files in `place` and `worth`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import formats
from experiments.cli import status
from experiments.conversion import READ, WRITTEN
from experiments.workload import load_workload
from placement import Placement, placement_json, read_placement
from workloads import RoutingTrace, StoredTrace, TraceWriter, model, read_load, read_trace

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Tiny


ROWS = [[*range(16)], [*range(15, -1, -1)], [*range(0, 16, 2), *range(1, 16, 2)]]
"""Three layers of Tiny's 16 experts; on 8 GPUs, two slots each."""


@pytest.fixture
def here(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, the small model among the presets."""
    assert tiny
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sglang(path: Path, rows: list[list[int]] = ROWS, **more: Any) -> Path:
    """Write a map of Tiny, which has no dense layers, for SGLang."""
    path.write_text(json.dumps({"physical_to_logical_map": rows, **more}))
    return path


def run(*words: object) -> int:
    """Run a command on Tiny."""
    return status([*map(str, words), "--model", "Tiny"])


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that is refused with status 2, and return its one line."""
    capsys.readouterr()
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("topomoe: ")
    assert error.count("\n") == 1
    return error


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that ends well, and return what it printed in one line."""
    capsys.readouterr()
    assert run(*words) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_map_goes_through_every_format(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From one format to the next and back to the first: the same map, each told by content."""
    path, form = sglang(here / "map-0"), "sglang"
    names = [name for name in WRITTEN["map"] if name != "vllm-proposal-ranks"]
    for at, name in enumerate([*names, "sglang"], 1):
        new = here / f"map-{at}"
        # With as many slots as experts, a table alone could be one of loads.
        told = ["--from", form] if form == "vllm-p2l" else []
        text = said(capsys, "convert", path, new, "--to", name, "--ranks", 8, *told)
        assert f"written as {name}" in text
        assert ("(told by its content)" in text) == (not told)
        path, form = new, name
    # Ascending inside a GPU, as omni-infer's matrix leaves them.
    pairs = [[sorted(row[i : i + 2]) for i in range(0, 16, 2)] for row in ROWS]
    flat = [[expert for pair in row for expert in pair] for row in pairs]
    assert json.loads(path.read_text()) == {"physical_to_logical_map": flat}


def test_a_format_without_replicas_names_those_with(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One GPU per expert cannot hold replicas: the refusal counts them and writes nothing."""
    old, new = here / "map.json", here / "ranks.json"
    rows = [[*row, *range(8)] for row in ROWS]
    old.write_text(json.dumps({"physical_to_logical_map": rows}))
    capsys.readouterr()
    assert run("convert", old, new, "--to", "vllm-proposal-ranks", "--ranks", 8) == 2
    # 3 layers of 24 slots for 16 experts.
    assert "24 redundant slots; the format vllm-proposal-ranks" in capsys.readouterr().err
    assert not new.exists()


def test_servers_of_a_placement_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight GPUs a server unless told otherwise; a placement file keeps its own."""
    old, new = sglang(here / "map.json"), here / "own.json"
    said(capsys, "convert", old, new, "--to", "topomoe", "--ranks", 8, "--json", here / "f.json")
    assert read_placement(new).gpus_per_server == 8
    figures = json.loads((here / "f.json").read_text())
    assert (figures["from"], figures["to"], figures["ranks"]) == ("sglang", "topomoe", 8)
    said(capsys, "convert", old, new, "--to", "topomoe", "--ranks", 8, "--gpus-per-server", 2)
    assert read_placement(new).gpus_per_server == 2
    said(capsys, "convert", new, here / "again.json", "--to", "topomoe")
    assert read_placement(here / "again.json") == read_placement(new)
    said(capsys, "convert", old, new, "--to", "topomoe", "--ranks", 4)
    assert read_placement(new).gpus_per_server == 4


def test_loads_and_traces_are_converted(
    here: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trace goes through all formats of traces and is counted into loads."""
    shape = model("Tiny")
    source = tiny.folder / "trace.npz"
    trace = read_trace(source, shape)
    path = source
    for name in ("vllm-routed", "topomoe-trace", "npz"):
        new = here / (f"{name}.trace" if name == "topomoe-trace" else f"{name}.npz")
        said(capsys, "convert", path, new, *([] if new.suffix == ".trace" else ["--to", name]))
        again = read_trace(new, shape)
        assert np.array_equal(again.topk, trace.topk)
        assert np.array_equal(again.seq_lens, trace.seq_lens)
        path = new
    counts = np.array([np.bincount(trace.topk[:, i].ravel(), minlength=16) for i in range(3)])
    for name in ("sglang-load", "eplb-load", "eplb-load-json", "vllm-proposal-stats"):
        said(capsys, "convert", path, here / name, "--to", name, "--ranks", 8)
        assert np.array_equal(read_load(here / name, shape).total, counts)
        said(capsys, "convert", here / name, here / "back", "--to", "sglang-load")
        assert np.array_equal(read_load(here / "back", shape).total, counts)


def test_what_a_format_leaves_out_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Phases and domains stay in a stored trace; npz drops them, and steps are added up."""
    shape = model("Tiny")
    ids = np.tile(np.arange(6).reshape(1, 3, 2), (6, 1, 1))
    about = {"model": "Tiny", "experts": 16, "layers": 3, "top_k": 2, "source": "test"}
    with TraceWriter(here / "a.trace", **about) as out:
        out.append(ids[:2], seq_lens=[1, 1], phase=0, domain="code")
        out.append(ids[2:5], seq_lens=[3], phase=[0, 1, 1], domain="law")
        out.append(ids[5:], seq_lens=[1], phase=1, domain="code")
    text = said(capsys, "convert", here / "a.trace", here / "a.npz", "--to", "npz")
    assert "phase and domain of its tokens are left out" in text
    said(capsys, "convert", here / "a.trace", here / "b.trace")
    old, new = (StoredTrace.open(here / f"{name}.trace", shape).trace() for name in "ab")
    assert isinstance(new, RoutingTrace)
    assert np.array_equal(new.phase, old.phase)
    assert [new.domain_names[i] for i in new.domain] == ["code", "code", "law", "code"]
    steps = {"logical_count": [[[1] * 16] * 3, [[2] * 16] * 3]}
    (here / "steps.json").write_text(json.dumps(steps))
    text = said(capsys, "convert", here / "steps.json", here / "w.npz", "--to", "eplb-load")
    assert "2 steps are added up" in text


def test_check_says_who_would_load_a_map(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All engines by default, or one; with figures for programs."""
    path = sglang(here / "map.json")
    text = said(capsys, "check", path, "--ranks", 8, "--json", here / "f.json")
    assert "sglang: would be accepted, as it stands" in text
    assert "trtllm: would be accepted, once converted to a format of its own" in text
    assert "--init-expert-location" in text
    content = json.loads((here / "f.json").read_text())
    assert [each["accepted"] for each in content["engines"]] == [True] * 5
    text = said(capsys, "check", path, "--ranks", 8, "--engine", "omni")
    assert "sglang" not in text.partition("\n")[0].replace("format sglang", "")


def test_check_refuses_with_the_reason(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and one line; the engine asked for decides, else the file's own, else all."""
    path = sglang(here / "map.json", comment="x")
    error = refusal(capsys, "check", path, "--ranks", 8)
    assert "sglang: would be refused, as it stands, because unknown key 'comment'" in error
    doubled = [[0, 0, *range(1, 16), 15]] * 3
    sglang(path, doubled)
    text = said(capsys, "check", path, "--ranks", 9)
    assert "ascend: would be refused, once converted" in text
    assert "GPU 0 holds expert 0 twice" in text
    # Experts 0 and 15 stand twice on a GPU, in three layers.
    assert "6 slots repeat an expert of their own GPU" in text
    error = refusal(capsys, "check", path, "--ranks", 9, "--engine", "ascend")
    assert "ascend: would be refused, once converted to a format of its own, because" in error
    error = refusal(capsys, "check", path, "--ranks", 4)
    assert "18 slots do not divide by 4 ranks; 16 or 20 would" in error


def test_sglang_takes_loads_in_the_place_of_a_map(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loads of all hidden layers are accepted by SGLang alone."""
    path = here / "loads.json"
    path.write_text(json.dumps({"logical_count": [[1] * 16] * 3}))
    text = said(capsys, "check", path)
    assert "sglang: would be accepted, as it stands" in text
    assert "omni: would be refused, as it stands, because it holds loads, not a map" in text
    path.write_text(json.dumps({"logical_count": [[1] * 16] * 2}))
    assert "2 rows, expected 3" in refusal(capsys, "check", path)
    path.write_text(json.dumps({"logical_count": [[1] * 256] * 58}))
    error = "expected 61: SGLang counts all hidden layers of DeepSeek-R1, dense ones included"
    capsys.readouterr()
    assert status(["check", str(path), "--model", "DeepSeek-R1"]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "gone.json", "x.json", "--to", "sglang"], "gone.json: cannot be read: No su"),
        (["convert", "junk", "x.json", "--to", "sglang"], "junk: not known by its content; name"),
        (["convert", "map.json", "x.json"], "x.json: name its format with --to: topomoe, sglang"),
        (["convert", "map.json", "x.json", "--to", "npz"], "a map cannot be written as 'npz'; al"),
        (["convert", "map.json", "x.json", "--to", "eplb"], "does not say on how many GPUs slots"),
        (["convert", "map.json", "x", "--to", "eplb", "--ranks", "3"], "16 slots do not divide by"),
        (["convert", "map.json", "map.json", "--to", "eplb"], "is both read and to be written"),
        (["convert", "map.json", ".", "--to", "eplb", "--ranks", "8"], ".: is a folder"),
        (["convert", "map.json", "x", "--from", "y", "--to", "eplb"], "unknown format 'y'; allowe"),
        (["convert", "map.json", "x", "--from", "ascend", "--to", "eplb"], "'moe_layer_count' is"),
        (["convert", "two.npy", "x", "--to", "eplb"], "could be vllm-p2l or eplb-load; say which"),
        (["convert", "w.json", "x", "--to", "vllm-proposal-stats"], "names the number of GPUs; gi"),
        (
            [
                "convert",
                "map.json",
                "x",
                "--to",
                "topomoe",
                "--ranks",
                "16",
                "--gpus-per-server",
                "3",
            ],
            "16 ranks do not divide by 3 GPUs a server",
        ),
        (["check", "gone.json"], "gone.json: cannot be read: No such file"),
        (["check", "junk"], "junk: no map of experts by its content; name its format with --from"),
        (["check", "map.json"], "does not say on how many GPUs slots are; give --ranks"),
        (["check", "map.json", "--engine", "x", "--ranks", "8"], "unknown engine 'x'; allowed: sg"),
        (["check", "map.json", "--from", "x", "--ranks", "8"], "unknown format 'x' of maps; allow"),
        (["check", "map.json", "--ranks", "0"], "'--ranks': Input should be greater than"),
    ],
)
def test_wrong_input_is_one_line(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says what is wrong, where, and what to do; nothing is written."""
    sglang(here / "map.json")
    (here / "junk").write_text("hello")
    (here / "w.json").write_text(json.dumps({"weight": [[1] * 16] * 3}))
    np.save(here / "two.npy", np.array(ROWS))
    before = sorted(here.iterdir())
    assert message in refusal(capsys, *words)
    assert sorted(here.iterdir()) == before


def test_place_writes_and_starts_from_engines_maps(
    here: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """What --format writes is what a placement file would say; --previous and worth take it."""
    own, map_ = here / "own.json", here / "map.yaml"
    asked = ["--policy", "round-robin", "--engine", "trtllm"]
    assert tiny.command("place", *asked, "--out", own) == 0
    capsys.readouterr()
    assert tiny.command("place", *asked[:2], "--format", "trtllm", "--out", map_) == 0
    assert "load_balancer under moe_config" in capsys.readouterr().out
    said(capsys, "convert", map_, here / "back.json", "--to", "topomoe", "--ranks", 8)
    back = read_placement(here / "back.json")
    assert np.array_equal(back.slot_expert, read_placement(own).slot_expert)
    figures = here / "f.json"
    moves = ["--attention", "pipelined", "--previous", map_, "--max-moves", "0", "--json", figures]
    assert tiny.command("place", *moves) == 0
    assert json.loads(figures.read_text())["moves"]["servers"] == 0
    weigh = ["worth", map_, own, "--cluster", tiny.folder / "tiny.toml"]
    text = said(capsys, *weigh, "--trace", tiny.folder / "trace.npz")
    assert text.endswith(
        "nothing moves, both placements put the same experts on the same GPUs: 0 % "
        "to gain, leave it"
    )
    assert tiny.command("place", "--policy", map_, "--tokens", "16") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "sglang"], "--format goes with --out"),
        (["--format", "x", "--out", "m"], "unknown format 'x' of maps; allowed: topomoe, sglang"),
        (
            ["--format", "sglang", "--engine", "vllm", "--out", "m"],
            "--format sglang is a format of sglang, and --engine asks for vllm",
        ),
    ],
)
def test_formats_that_do_not_fit_the_options(
    words: list[str], message: str, here: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line before anything is placed."""
    assert here
    capsys.readouterr()
    assert tiny.command("place", *words) == 2
    assert message in capsys.readouterr().err


def test_worth_asks_for_the_model_where_no_map_names_it(
    here: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two engines' maps neither names the model; a placement file beside one does."""
    one = sglang(here / "one.json")
    cluster = ["--cluster", str(tiny.folder / "tiny.toml"), "--tokens", "16"]
    capsys.readouterr()
    assert status(["worth", str(one), str(one), *cluster]) == 2
    assert "does not name its model, nor does" in capsys.readouterr().err
    layer, gpu = np.repeat(range(3), 16), np.tile(np.arange(16) // 2, 3)
    own = Placement("Tiny", 3, 16, 8, 2, layer, gpu, np.array(ROWS).ravel(), policy="x")
    (here / "own.json").write_text(placement_json(own))
    assert status(["worth", str(one), "own.json", *cluster]) == 0
    assert "nothing moves" in capsys.readouterr().out


SEEDS = (
    json.dumps({"physical_to_logical_map": ROWS}),
    json.dumps({"logical_count": [[1] * 16] * 3}),
    json.dumps({"expert_to_ep_rank": [i // 2 for i in range(16)]}),
    "num_slots: 16\ninitial_global_assignments: {0: [1], 1: [2], 2: [3]}",
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.sampled_from(SEEDS), cut=st.integers(0, 200), junk=st.binary(max_size=8))
def test_garbled_files_never_trace_back(here: Path, seed: str, cut: int, junk: bytes) -> None:
    """Whatever a file holds, `check` and `convert` end with status 0 or 2."""
    path = here / "garbled"
    path.write_bytes(seed.encode()[:cut] + junk + seed.encode()[cut:])
    assert run("check", path, "--ranks", 8) in (0, 2)
    assert run("convert", path, here / "new", "--to", "sglang", "--ranks", 8) in (0, 2)


def test_worth_calls_chance_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loads without any difference between experts leave nothing to gain, whatever is drawn."""
    monkeypatch.chdir(tmp_path)
    load_workload.cache_clear()
    shape = model("DeepSeekMoE-16B")
    rows = [[int(layer in shape.moe_layers)] * 64 for layer in range(shape.hidden_layers)]
    (tmp_path / "even.json").write_text(json.dumps({"logical_count": rows}))
    asked = ["--cluster", "ep32", "--load", "even.json", "--tokens", "2048"]
    place = ["place", *asked, "--model", shape.name, "--layer-slots", "16", "--server-slots", "432"]
    for policy in ("contiguous", "round-robin"):
        assert status([*place, "--policy", policy, "--out", f"{policy}.json"]) == 0
    capsys.readouterr()
    assert status(["worth", "contiguous.json", "round-robin.json", *asked]) == 0
    said_ = " ".join(capsys.readouterr().out.split())
    assert "never: 0 % to gain, leave it; the step's" in said_
    assert "are within the scatter of this batch" in said_


def test_help_names_the_formats_there_are() -> None:
    """The lists on the help pages are those of the registries."""
    assert formats.MAPS.split(", ") == list(WRITTEN["map"])
    loads, traces = set(formats.LOADS.split(", ")), set(formats.TRACES.split(", "))
    assert loads == {*READ["load"], *WRITTEN["load"]}
    assert traces == {*READ["trace"], *WRITTEN["trace"]}


def test_damage_is_named_before_the_format_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map that is cut short, or has a key twice, is said to be that and not unknown."""
    file = tmp_path / "map.json"
    for text, said in (
        ('{"physical_to_logical_map": [[0', "not valid JSON (truncated?)"),
        ('{"experts_on_gpu": [], "experts_on_gpu": []}', "stands twice in an object"),
    ):
        file.write_text(text)
        for command in (["check", str(file)], ["convert", str(file), str(tmp_path / "out.json")]):
            assert status([*command, "--model", "DeepSeek-R1", "--ranks", "8"]) == 2
            assert said in capsys.readouterr().err
    assert status(["check", str(file), "--model", "DeepSeek-R1", "--from", "topomoe"]) == 2
    assert "stands twice in an object" in capsys.readouterr().out


def test_check_says_when_trtllm_would_not_keep_the_map(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file whose layers are updated is accepted, and is not said to keep its map."""
    map_ = sglang(here / "map.json")
    assert run("convert", map_, here / "map.yaml", "--ranks", 8) == 0
    file, check = here / "map.yaml", ("check", here / "map.yaml", "--ranks", 8)
    said = "TensorRT-LLM would move experts"
    capsys.readouterr()
    assert run(*check) == 0
    assert said not in capsys.readouterr().out
    file.write_text(file.read_text().replace("per_iter: 0", "per_iter: 2"))
    assert run(*check) == 0
    assert f"layer_updates_per_iter is 2 in this file: {said}" in capsys.readouterr().out
