"""Clusters of some 10,000 GPUs: seconds to build them, and to find the first routes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks.clocks import timed
from experiments.benchmarks.section import Section, Target, column
from topologies import ClusterSpec, Router

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from topologies import Cluster

SPECS: Mapping[str, Mapping[str, Any]] = {
    "dragonfly": {"a": 8, "p": 4, "h": 5, "groups": 41},
    "fat-tree": {
        "pods": 10,
        "leaves_per_pod": 8,
        "servers_per_leaf": 16,
        "aggregations_per_pod": 8,
        "cores_per_aggregation": 8,
    },
    "full-mesh": {"switches": 1250},
    "leaf-spine": {"leaves": 40, "servers_per_leaf": 32, "spines": 32},
    "multi-plane": {"planes": 4, "leaves": 20, "servers_per_leaf": 64, "spines": 32},
    "rail": {"groups": 20, "servers_per_group": 64, "spines": 32},
    "scale-up": {"domains": 144, "domains_per_group": 8, "spines": 36},
    "slim-fly": {"q": 9},
    "torus": {"dims": [10, 10, 13]},
}
"""Of every builder that does not read a file."""

FLOWS = 1000


def cluster_rows(data: Path, everything: bool) -> list[dict[str, Any]]:  # noqa: ARG001  as all
    """Build every cluster and ask a fresh router for the hops of random pairs of GPUs.

    Returns
    -------
    list of dict
        ``builder``, ``gpus``, ``switches``, ``cables``, ``seconds`` to build (the best of three),
        ``cpu_s``, and ``routes_s``.
    """
    _asked(ClusterSpec("torus", {"dims": [2]}).build())  # compiles
    rows = []
    for builder, parameters in SPECS.items():
        cluster, clocks = timed(ClusterSpec(builder, parameters).build, 3)
        row = {name: getattr(cluster, name) for name in ("builder", "gpus", "switches", "cables")}
        asked = timed(partial(_asked, cluster), 3)[1]
        rows.append(row | clocks._asdict() | {"routes_s": asked.seconds})
    return rows


def _asked(cluster: Cluster) -> None:
    src, dst = np.random.default_rng(0).integers(0, cluster.gpus, (2, FLOWS))
    Router(cluster).hops(src, dst)


CLUSTER_SECTION = Section(
    "Clusters of some 10,000 GPUs: seconds to build, and to the first 1000 routes",
    cluster_rows,
    {
        "builder": ("builder", ""),
        "gpus": ("GPUs", ",d"),
        "switches": ("switches", ",d"),
        "cables": ("cables", ",d"),
        "seconds": ("build s", ".3f"),
        "cpu_s": ("processor s", ".3f"),
        "routes_s": ("routes s", ".3f"),
    },
    (Target("a cluster of 10,000 GPUs: seconds to build", column("seconds"), 5.0),),
    needs_data=False,
)
