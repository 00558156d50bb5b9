"""Every kind of cluster places and replays: the laws are checked in each run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pytest

from experiments.cli import status
from topologies import ClusterSpec, to_networkx

if TYPE_CHECKING:
    from pathlib import Path

SHAPES: dict[str, dict[str, Any]] = {
    "leaf-spine": {"leaves": 2, "servers_per_leaf": 2, "spines": 2, "cables_per_spine": 2},
    "multi-plane": {"planes": 4, "leaves": 2, "servers_per_leaf": 2, "spines": 2},
    "scale-up": {"domains": 2, "spines": 2, "gpus_per_server": 16},
    "torus": {"dims": [2, 4], "gpus_per_server": 4},
    "full-mesh": {"switches": 4},
    "slim-fly": {"q": 3, "p": 1, "gpus_per_server": 2},
}
NETWORKS = ('kind = "packet"\nrouting = "hash"', 'kind = "fluid"\nrouting = "shares"')


def replayed(folder: Path, cluster: Path, network: str) -> dict[str, Any]:
    """Place a small batch on a cluster, replay it, and return the figures."""
    run, out = folder / "run.toml", folder / "x.json"
    run.write_text(
        f'model = "DeepSeekMoE-16B"\ncluster = "{cluster}"\ntokens = 64\n'
        f'[attention]\nkind = "data-parallel"\n[placement]\npolicy = "ilp-load"\n'
        f"[network]\n{network}\n"
    )
    assert status(["simulate", str(run), "--json", str(out)]) == 0
    figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def table(folder: Path, builder: str, parameters: dict[str, Any]) -> Path:
    """Write a cluster file."""
    path = folder / "cluster.toml"
    rows = "\n".join(f"{name} = {json.dumps(value)}" for name, value in parameters.items())
    path.write_text(f'builder = "{builder}"\n[parameters]\n{rows}\n')
    return path


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("builder", sorted(SHAPES))
def test_builders_replay(tmp_path: Path, builder: str, network: str) -> None:
    """A batch crosses every builder's fabric in chunks and in shares."""
    found = replayed(tmp_path, table(tmp_path, builder, SHAPES[builder]), network)
    assert found["hops_per_token_layer"] > 0
    assert found["step_s"] > 0


@pytest.mark.parametrize("kind", ["graphml", "csv", "latency_s", "bandwidth_Bps"])
def test_files_replay(tmp_path: Path, kind: str) -> None:
    """A batch crosses the fabric of every kind of file."""
    path = tmp_path / f"c.{kind}"
    if kind == "graphml":
        spec = ClusterSpec("leaf-spine", SHAPES["leaf-spine"])
        nx.write_graphml(to_networkx(spec.build()), path)
    elif kind == "csv":
        rows = [f"s{s},l{s // 2},host,8,50e9" for s in range(4)] + ["l0,l1,local,4,1e11"]
        path.write_text("\n".join(["a,b,class,count,bandwidth_Bps", *rows]))
    else:
        values = np.random.default_rng(0).uniform(1, 2, (32, 32))
        np.save(tmp_path / "m.npy", values * {"latency_s": 3e-6, "bandwidth_Bps": 2e10}[kind])
        path = table(tmp_path, "measured", {"file": "m.npy", "quantity": kind})
    assert replayed(tmp_path, path, NETWORKS[0])["step_s"] > 0
