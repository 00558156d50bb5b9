"""[dispatch] and [step] of run files: what they ask for, and what they refuse."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from experiments.cli import status
from experiments.spec import NetworkSpec

if TYPE_CHECKING:
    from pathlib import Path

RUN = """
model = "DeepSeekMoE-16B"
cluster = "ep32"

[workload]
profile_tokens = 256

[placement]
policy = "round-robin"
"""


def write(folder: Path, more: str) -> str:
    """Return the path of a run file."""
    path = folder / "run.toml"
    path.write_text(RUN + more)
    return str(path)


@pytest.mark.parametrize("kind", ["analytic", "fluid", "packet"])
def test_a_pool_with_micro_batches_on_every_network(tmp_path: Path, kind: str) -> None:
    """Figures add up to the step; the tables and the trace are written."""
    run = write(
        tmp_path,
        f'[network]\nkind = "{kind}"\nrouting = "hash"\n[dispatch]\nmode = "per_server"\n'
        'shared = "routed"\n[step]\ngpu = "H800"\nrequests_per_gpu = 2\nkv_tokens = 100\n'
        "drafts = 1\naccepted = 0.5\nmicro_batches = 2\n",
    )
    figures, trace = tmp_path / "figures.json", tmp_path / "trace.json.gz"
    asked = ["simulate", run, "--json", str(figures), "--out", str(tmp_path / "out")]
    assert status([*asked, "--perfetto", str(trace)]) == 0
    found = json.loads(figures.read_text())
    parts = found["compute_s"] + found["exposed_transfer_s"] + found["waiting_s"]
    assert parts == pytest.approx(found["step_s"])
    # A step emits 1 + 0.5 tokens of each of the 2 requests of a GPU.
    assert found["tpot_s"] == pytest.approx(found["step_s"] / 1.5)
    assert found["tokens_per_s_gpu"] == pytest.approx(2 * 1.5 / found["step_s"])
    gpus = pd.read_parquet(tmp_path / "out" / "gpus.parquet")
    assert len(gpus) == 32
    # 32 GPUs x 2 requests x 2 tokens, 6 choices and 2 shared experts in 27 layers.
    assert gpus["expert_tokens"].sum() == 32 * 2 * 2 * 8 * 27
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]


def test_a_prefill_pool(tmp_path: Path) -> None:
    """Prompts are read; there is no time per output token."""
    run = write(
        tmp_path,
        '[step]\ngpu = "H100"\nphase = "prefill"\nprompt_tokens = 4\nrequests_per_gpu = 1\n',
    )
    figures = tmp_path / "figures.json"
    assert status(["simulate", run, "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    assert found["tpot_s"] is None
    assert found["tokens_per_s_gpu"] == pytest.approx(4 / found["step_s"])


def step_figures(folder: Path, more: str) -> dict[str, float]:
    """Return what a run prints, with the choices of its busiest GPU."""
    figures = folder / "figures.json"
    asked = ["simulate", write(folder, more), "--json", str(figures), "--out", str(folder / "out")]
    assert status(asked) == 0
    tokens = pd.read_parquet(folder / "out" / "gpus.parquet")["expert_tokens"]
    return json.loads(figures.read_text()) | {"most": int(tokens.max())}  # type: ignore[no-any-return]


def test_keys_reach_the_simulator(tmp_path: Path) -> None:
    """Turns, exact rates and the GPUs of shared experts each change what they should."""
    fluid = '[network]\nkind = "fluid"\nrouting = "hash"\n'
    parts = "[step]\nmicro_batches = 2\n"
    usual = step_figures(tmp_path, fluid + parts)
    turns = step_figures(tmp_path, fluid + parts + 'overlap = "turns"\n')
    assert turns["step_s"] > usual["step_s"]
    exact = step_figures(tmp_path, fluid + 'steps = "exact"\n')
    coarse = step_figures(tmp_path, fluid + "steps = 1\n")
    assert coarse["step_s"] > exact["step_s"]
    alone = '[dispatch]\nshared = "routed"\nshared_gpus = [3]\n'
    # 4,096 tokens in 27 layers choose both shared experts of GPU 3.
    assert step_figures(tmp_path, alone)["most"] > 4096 * 27 * 2 > usual["most"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[step]\nkv_tokens = 5\n", "'kv_tokens' goes with 'gpu'"),
        ('[step]\ngpu = "H800"\nprompt_tokens = 5\n', "'prompt_tokens' does not go with phase"),
        ('[step]\ngpu = "H800"\nphase = "prefill"\n', "phase 'prefill' needs 'prompt_tokens'"),
        (
            '[step]\ngpu = "H800"\nphase = "prefill"\nprompt_tokens = 2\ndrafts = 1\n',
            "'drafts' does not go with phase 'prefill'",
        ),
        ('[step]\ngpu = "H800"\naccepted = 2\n', "accepted is 2.0; expected at most 0 drafts"),
        ('[step]\ngpu = "A100"\n', "gpu"),
        ("[step]\nspeed = 1\n", "speed"),
        ('[dispatch]\nmode = "tree"\n', "per_expert"),
        ('[dispatch]\nway = "tree"\n', "allowed"),
        ("[step]\nmicro_batches = 0\n", "micro_batches"),
    ],
)
def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, message: str
) -> None:
    """What does not fit together is refused in one line."""
    assert status(["simulate", write(tmp_path, more)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message in printed


def test_tokens_and_requests_are_not_both_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch has one size."""
    path = tmp_path / "run.toml"
    path.write_text(f'tokens = 64\n{RUN}[step]\ngpu = "H800"\nrequests_per_gpu = 1\n')
    assert status(["simulate", str(path)]) == 2
    assert "give 'tokens' or step.requests_per_gpu, not both" in capsys.readouterr().err


def test_packets_are_hashed_unless_told_otherwise() -> None:
    """Packet cannot split a chunk as `shares` does, so that its default is `hash`."""
    assert NetworkSpec(kind="packet").routing == "hash"
    assert NetworkSpec(kind="packet", routing="dmodk").routing == "dmodk"
    assert NetworkSpec(kind="fluid").routing == NetworkSpec().routing == "shares"
    with pytest.raises(ValueError, match="cannot split it as 'shares' does"):
        NetworkSpec(kind="packet", routing="shares")
