"""The command line: statuses, one-line errors, JSON, and a cold start without heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.cli import status
from placement import read_placement

if TYPE_CHECKING:
    from pathlib import Path

RUN_FILE = """
model = "DeepSeekMoE-16B"
cluster = "ep32"
tokens = 64

[workload]
seed = 3
profile_tokens = 256

[attention]
kind = "pipelined"

[placement]
policy = "greedy-load"

[network]
kind = "packet"
routing = "hash"
"""

FIGURES = (
    "hops_per_token_layer",
    "byte_hops",
    "balance_server",
    "balance_gpu",
    "balancedness",
    "gpus_per_token_layer",
    "servers_per_token_layer",
    "busiest_link_s",
    "exposed_comm_s",
)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error that was printed, and see that it is one line and nothing else."""
    printed = capsys.readouterr()
    assert printed.err.startswith("topomoe: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_help_imports_nothing_heavy() -> None:
    """`topomoe --help` starts without solvers, kernels, tables or drawing."""
    code = (
        "import sys; from experiments.cli import status; status(['--help']);"
        "heavy = {'numba', 'pandas', 'highspy', 'matplotlib', 'simpy', 'pyarrow', 'numpy'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "topomoe paper" in done.stdout


COMMANDS = [
    "paper",
    "place",
    "simulate",
    "worth",
    "convert",
    "check",
    "stats",
    "fit",
    "capture",
    "show",
    "figures",
    "bench",
    "validate",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has a help page."""
    assert status([command, "--help"]) == 0
    assert "Usage: topomoe" in capsys.readouterr().out


def test_place_writes_figures_and_placement(tmp_path: Path) -> None:
    """`place` gives every figure of the design and a placement file that reads back."""
    figures, out = tmp_path / "figures.json", tmp_path / "map.json"
    arguments = ["place", "--cluster", "ep32", "--model", "DeepSeekMoE-16B", "--tokens", "128"]
    assert status([*arguments, "--json", str(figures), "--out", str(out)]) == 0
    content = json.loads(figures.read_text())
    assert all(content[name] > 0 for name in FIGURES)
    assert content["status"] == "optimal"
    assert content["symmetric"] is True
    assert content["against"]["policy"] == "contiguous"
    assert read_placement(out).policy == "ilp-load"


def test_simulate_replays_a_run_file_and_a_placement_file(tmp_path: Path) -> None:
    """A placement written by one run gives the same figures when another run reads it."""
    run, figures = tmp_path / "run.toml", tmp_path / "figures.json"
    run.write_text(RUN_FILE)
    assert status(["simulate", str(run), "--json", str(figures), "--out", str(tmp_path)]) == 0
    first = json.loads(figures.read_text())
    assert all(first[name] > 0 for name in FIGURES)
    _check_tables(tmp_path)
    out = tmp_path / "map.json"
    place = ["place", "--cluster", "ep32", "--model", "DeepSeekMoE-16B", "--policy", "greedy-load"]
    place += ["--attention", "pipelined", "--seed", "3", "--tokens", "64", "--out", str(out)]
    assert status(place) == 0
    run.write_text(RUN_FILE.replace('policy = "greedy-load"', 'file = "map.json"'))
    assert status(["simulate", str(run), "--json", str(figures)]) == 0
    again = json.loads(figures.read_text())
    assert {name: again[name] for name in FIGURES} == {name: first[name] for name in FIGURES}


def _check_tables(folder: Path) -> None:
    links, layers, utilisation, hops = (
        pd.read_parquet(folder / f"{name}.parquet")
        for name in ("links", "layers", "utilisation", "hops")
    )
    assert len(layers) == 27
    # 64 tokens x 27 layers x 6 choices in each direction.
    assert hops["dispatch_messages"].sum() == hops["combine_messages"].sum() == 64 * 27 * 6
    busy = (utilisation["utilisation"] * utilisation["bin_s"]).groupby(utilisation["link"]).sum()
    assert busy.sum() == pytest.approx(links["busy_s"].sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["place", "--cluster", "nowhere"], "unknown cluster 'nowhere'; allowed: fat-tree, "),
        (["place", "--cluster", "ep32", "--model", "GPT"], "unknown model 'GPT': expected one of"),
        (["place", "--cluster", "ep32", "--policy", "magic"], "unknown policy 'magic'; allowed: "),
        (["place", "--cluster", "ep32", "--attention", "x"], "attention.kind: Input should be"),
        (["place", "--cluster", "ep32", "--tp", "5"], "tp must divide the 32 GPUs, got 5"),
        (["place", "--cluster", "ep32", "--layer-slots", "9"], "layer_slots too small: 4 servers"),
        (["place", "--cluster", "ep32", "--load", "gone.json"], "gone.json: cannot be read"),
        (["place", "--cluster", "gone.toml"], "gone.toml: cannot be read"),
        (["place"], "Missing option '--cluster'"),
        (
            ["place", "--cluster", "ep32", "--tokens", "0"],
            "'--tokens': Input should be greater than or equal to 1",
        ),
        (["simulate", "gone.toml"], "gone.toml: cannot be read"),
        (["simulate", __file__], "test_cli.py: no valid TOML"),
        (
            ["place", "--cluster", "ep32", "--tokens", "100000001"],
            "'--tokens': Input should be less than or equal to 100000000",
        ),
        (["place", "--cluster", "ep32", "--tp", "99999999"], "'--tp': Input should be less"),
        (["place", "--cluster", "ep32", "--out", "."], ".: is a folder"),
        (
            ["place", "--cluster", "ep32", "--out", "a[/b].json", "--json", "a[/b].json"],
            "a[/b].json: two outputs are to go there",
        ),
        (["paper", "--out", __file__], "test_cli.py is no folder"),
        (["paper", "--json", "results/paper/hops.csv"], "two outputs are to go there"),
        (["bench", "--json", "."], ".: is a folder"),
        (
            ["bench", "--only", "magic"],
            "--only 'magic': no topic has it in its title; titles: Every",
        ),
        (["paper", "--load", "gone.json"], "gone.json fits no model of the study"),
        (["paper", "--expected", "gone.csv"], "gone.csv"),
        (["paper", "--policy", "no.such:Thing"], "policy 'no.such:Thing' cannot be made"),
        (["fly"], "No such command 'fly'"),
        (["show"], "Missing command"),
        (["show", "cluster", "nowhere"], "unknown cluster 'nowhere'; allowed: fat-tree, "),
        (["show", "cluster", "gone.csv"], "gone.csv: cannot be read: No such file"),
        (["show", "cluster", "ep32", "--out", "x.jpg"], "x.jpg: expected a file ending in .pdf"),
        (["show", "cluster", "ep32", "--out", "."], ".: expected a file ending in .pdf"),
        (["show", "cluster", "--out", "x.png"], "--out and --json need the name of a cluster"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says what is wrong, where, and what was expected."""
    assert status(arguments) == 2
    assert message in one_line(capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tokens = 64", "tokens = -1"), "tokens: Input should be greater than or equal to 1"),
        (("tokens = 64", 'tokens = "many"'), "tokens: Input should be a valid integer"),
        (("tokens = 64", "colour = 1"), "unknown key 'colour'; allowed: model, cluster, tokens"),
        (
            ('routing = "hash"', 'routing = "shares"'),
            "network: the packet network sends a chunk over one path",
        ),
        (('routing = "hash"', 'ruting = "hash"'), "unknown key 'ruting'; allowed: kind, routing"),
        (("seed = 3", 'load = "a"\ntrace = "b"'), "give 'load' or 'trace', not both"),
        (('policy = "greedy-load"', 'file = "gone.json"'), "gone.json: cannot be read"),
        (("[workload]", "[workload"), "no valid TOML"),
        (("tokens = 64", "tokens = 100000001"), "tokens: Input should be less than or equal to"),
        (("seed = 3", f"seed = {2**63 - 1}0"), "seed: Input should be less than or equal to"),
        (("seed = 3", f"seed = {'9' * 5000}"), "no valid TOML"),
        (("tokens = 64", f"tokens = {'[' * 3000}"), "no valid TOML: nested too deeply"),
        (('policy = "greedy-load"', "layer_slots = 65537"), "layer_slots: Input should be less"),
        (('routing = "hash"', "chunk_bytes = 1073741825"), "chunk_bytes: Input should be less"),
        (("tokens = 64", "expert_flops = 1e-300"), "expert_flops: Input should be greater"),
        (("seed = 3", r'load = "a\u0000b"'), "workload.load: "),
        (("seed = 3", r'trace = "a\u0000b"'), "holds a NUL character"),
        (('"ep32"', r'"a\u0000b.toml"'), "cluster: "),
    ],
)
def test_broken_run_files(
    tmp_path: Path,
    change: tuple[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run file that is wrong in one place is named, with the key and what is allowed."""
    run = tmp_path / "run.toml"
    run.write_text(RUN_FILE.replace(*change))
    assert status(["simulate", str(run), "--json", str(tmp_path / "never.json")]) == 2
    error = one_line(capsys)
    assert message in error
    assert not (tmp_path / "never.json").exists()


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, len(RUN_FILE)), junk=st.text(max_size=6))
def test_garbled_run_files_never_trace_back(tmp_path: Path, cut: int, junk: str) -> None:
    """A run file cut anywhere and garbled is refused in one line, before anything runs."""
    run = tmp_path / "run.toml"
    # Without a known cluster nothing can run, however the rest reads.
    text = RUN_FILE.replace('"ep32"', '"nowhere"')
    run.write_text(text[:cut] + junk, encoding="utf-8", errors="ignore")
    assert status(["simulate", str(run)]) == 2


def test_unwritable_output_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A result that cannot be written is an error with the file's name."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    arguments = ["place", "--cluster", "ep32", "--model", "DeepSeekMoE-16B", "--tokens", "16"]
    assert status([*arguments, "--json", str(blocked / "x.json")]) == 2
    assert "cannot be written" in one_line(capsys)


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large"), RecursionError()])
def test_last_resort(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What exceeds the machine or the number formats is one line and status 1."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("experiments.commands.place.place_experts", fail)
    assert status(["place", "--cluster", "ep32"]) == 1
    assert type(error).__name__ in one_line(capsys)


def test_names_that_look_like_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets in a file's name are printed as they are."""
    out = tmp_path / "a[b]" / "[red]:x:.json"
    arguments = ["place", "--cluster", "ep32", "--model", "DeepSeekMoE-16B", "--tokens", "16"]
    assert status([*arguments, "--out", str(out)]) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert "a[b]/[red]:x:.json" in printed
    assert out.exists()


INTERRUPTED = """
import os, signal, sys, threading
from experiments.cli import status
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGINT)).start()
sys.exit(status(sys.argv[2:]))
"""


@pytest.mark.parametrize("command", ["paper", "bench"])
def test_an_interrupt_is_one_line_and_status_1(tmp_path: Path, command: str) -> None:
    """Ctrl-C stops a command within seconds, workers included, and nothing is left behind."""
    arguments = [sys.executable, "-c", INTERRUPTED, "6", command]
    begun = time.monotonic()
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "topomoe: interrupted\n"
    assert time.monotonic() - begun < 30
    assert list(tmp_path.iterdir()) == []


def test_load_of_another_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loads that fit no model of the study say what each expected."""
    load = tmp_path / "load.json"
    load.write_text(json.dumps({"logical_count": np.ones((5, 7), dtype=int).tolist()}))
    assert status(["paper", "--load", str(load)]) == 2
    error = one_line(capsys)
    assert "DeepSeekMoE-16B: " in error
    assert "DeepSeek-R1: " in error


def test_more_servers_than_a_placement_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cluster whose distances would not fit is refused by its servers, before anything runs."""
    cluster = tmp_path / "wide.toml"
    cluster.write_text(
        'builder = "fat-tree"\n[parameters]\nleaves_per_pod = 2\nservers_per_leaf = 10000\n'
        "gpus_per_server = 1\naggregations_per_pod = 2\n"
    )
    assert status(["place", "--cluster", str(cluster)]) == 2
    assert "has 20000 servers; a placement takes at most 16384" in one_line(capsys)
