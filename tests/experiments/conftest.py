"""A model and a cluster small enough to try every option on."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from experiments.cli import status
from experiments.commands.simulate import read_run
from experiments.run import place_experts
from placement import Placement, read_placement
from placement.search import judged_loads
from workloads import Architecture, GroupedAttention, MoEModel, SyntheticWorkload, read_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

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
    architecture=Architecture(GroupedAttention(4, 4, 64), 1000, 512),
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

    @staticmethod
    def flags(table: dict[str, Any]) -> list[str]:
        """Write a placement table as options of the command line."""
        words: list[str] = []
        for key, value in table.items():
            flag = f"--{key.replace('_', '-')}"
            if value is True:
                words.append(flag)
            elif isinstance(value, list):
                words += [word for each in value for word in (flag, str(each))]
            else:
                words += [flag, str(value)]
        return words

    def tokens(self, name: str = "trace", *, odd: bool = False) -> NDArray[Any]:
        """Return the choices of a trace that are trained on, or the odd ones, which are judged."""
        trace = read_trace(self.folder / f"{name}.npz", TINY)
        return trace.topk[np.repeat(np.arange(16) % 2 == odd, trace.seq_lens)]

    def fullest(self, placement: Placement, scope: str) -> NDArray[Any]:
        """Load of every layer's busiest place over the mean, on the tokens trained on."""
        return judged_loads(placement, self.tokens(), scope=scope).max(axis=1)

    def run_file(self, table: dict[str, Any], attention: str) -> Path:
        """Write a run file with a placement table."""
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        path = self.folder / "run.toml"
        path.write_text(
            'model = "Tiny"\ncluster = "tiny.toml"\n[workload]\ntrace = "trace.npz"\n'
            f'[attention]\nkind = "{attention}"\n'
            "[placement]\nlayer_slots = 6\nserver_slots = 16\n" + "\n".join(lines) + "\n"
        )
        return path

    def both_ways(self, table: dict[str, Any], attention: str = "pipelined") -> Placement:
        """Place from the command line and from a run file, and see that it is the same."""
        placed = self.place("--attention", attention, *self.flags(table))
        again = place_experts(read_run(self.run_file(table, attention)))
        assert again.placement == placed
        return placed


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
    presets = sys.modules["workloads.presets"]
    monkeypatch.setattr(presets, "PRESETS", {**presets.PRESETS, "Tiny": TINY})
    return Tiny(tiny_files)


@pytest.fixture
def old(tiny: Tiny) -> str:
    """The path of a placement blind to load, one slot an expert."""
    tiny.place("--attention", "pipelined", "--policy", "contiguous", name="old")
    return str(tiny.folder / "old.json")
