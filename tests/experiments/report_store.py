"""A small store for tests of the report: real runs, and one with a hostile name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.cli import status
from experiments.spec import NetworkSpec, RunSpec, WorkloadSpec
from experiments.sweeping import identify, open_store
from experiments.sweeping.record import encode

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.sweeping import Store

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)> & \u2028'\""
SWEEP = """
tables = ["links", "layers", "gpus"]

[base]
model = "DeepSeek-V2-Lite"
cluster = "fat-tree"
tokens = 16
workload.profile_tokens = 64

[grid]
placement.policy = ["round-robin", "contiguous"]
workload.seed = [0, 1]
"""


def make(folder: Path) -> Store:
    """Sweep two policies over two seeds."""
    folder.mkdir()
    sweep_file = folder / "sweep.toml"
    sweep_file.write_text(SWEEP)
    out = folder / "runs"
    assert status(["sweep", str(sweep_file), "--out", str(out), "--workers", "1"]) == 0
    return open_store(out)


def forge(store: Store, *, policy: str, seed: int, step_s: float, hops: float = 5.0) -> str:
    """Add a run that nobody ran, and return its id; the seed of its network makes policies two."""
    spec = RunSpec(
        model="DeepSeek-V2-Lite",
        cluster="fat-tree",
        tokens=16,
        workload=WorkloadSpec(seed=seed, profile_tokens=64),
    )
    if policy == HOSTILE:
        spec = spec.model_copy(update={"network": NetworkSpec(seed=9)})
    placed = spec.placement.model_copy(update={"policy": policy})
    spec = spec.model_copy(update={"placement": placed})
    figures = {"policy": policy, "step_s": step_s, "hops_per_token_layer": hops, "byte_hops": 7}
    identity = identify(spec)
    store.write(identity.run_id, encode(identity, figures), {"run_s": 0.5, "host": policy}, {})
    return identity.run_id
