"""A model and a cluster small enough to try every option on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.cli import status
from placement import Placement, read_placement
from workloads import MoEModel, SyntheticWorkload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TINY = MoEModel(
    name="Tiny",
    hidden_layers=3,
    moe_layers=(0, 1, 2),
    experts=16,
    top_k=2,
    shared_experts=0,
    hidden=256,
    moe_intermediate=64,
    n_group=4,
    topk_group=2,
)
"""3 layers of 16 experts in 4 groups; a token takes 2 experts of at most 2 groups."""

CLUSTER = """builder = "fat-tree"

[parameters]
leaves_per_pod = 2
servers_per_leaf = 2
gpus_per_server = 2
aggregations_per_pod = 2
"""
"""4 servers of 2 GPUs under 2 leaves."""


@dataclass(frozen=True)
class Tiny:
    """The files of the small case, and commands on it."""

    folder: Path

    @property
    def options(self) -> list[str]:
        """Model, cluster and workload, with room for one more expert of a layer on a server."""
        return [
            *("--model", "Tiny", "--cluster", str(self.folder / "tiny.toml")),
            *("--trace", str(self.folder / "trace.npz")),
            *("--layer-slots", "6", "--server-slots", "16"),
        ]

    def command(self, name: str, *options: object) -> int:
        """Run a command and return its status."""
        return status([name, *map(str, options), *self.options])

    def place(self, *options: object, name: str = "map") -> Placement:
        """Place, see that it went well, and return the placement that was written."""
        out = self.folder / f"{name}.json"
        assert self.command("place", "--out", out, *options) == 0
        return read_placement(out)


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cluster, and traces of two kinds of traffic."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.toml").write_text(CLUSTER)
    for name, seed in (("trace", 0), ("other", 1)):
        ids = SyntheticWorkload(TINY, seed).trace(160).topk
        np.savez(folder / f"{name}.npz", topk_ids=ids, seq_lens=np.full(16, 10))
    return folder


@pytest.fixture
def tiny(tiny_files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """The small case, its model among the presets."""
    presets = sys.modules["workloads.model"]
    monkeypatch.setattr(presets, "PRESETS", {**presets.PRESETS, "Tiny": TINY})
    return Tiny(tiny_files)
