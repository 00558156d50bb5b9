"""Counts of switches and cables, and distances, against published figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.validation.line import Got
from topologies import Dragonfly, Router, dragonfly, fat_tree, k_ary_fat_tree, preset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from topologies import Cluster


def counts() -> Iterator[Got]:
    """Endpoints, switches and cables of fabrics with 64-port switches."""
    two_level = fat_tree(
        leaves_per_pod=64, servers_per_leaf=32, aggregations_per_pod=32, gpus_per_server=1
    )
    yield Got("theory.counts.two-level", _counts(two_level))
    yield Got("theory.counts.planes", _counts(preset("planes-16384").spec.build()))


def large_counts() -> Iterator[Got]:
    """Count clusters of 65,536 and 261,632 endpoints."""
    yield Got("theory.counts.three-level", _counts(k_ary_fat_tree(64)))
    shape = Dragonfly(a=32, p=16, h=16, groups=511, gpus_per_server=1)
    gpus, switches, cables = _counts(shape.build())
    # The table counts the cables of all ports; half of a cable ends at a spare one.
    spare = shape.spare_ports * shape.groups // 2
    yield Got("theory.counts.dragonfly", (gpus, switches, cables + spare))


def distances() -> Iterator[Got]:
    """Links between hosts of fat-trees and a dragonfly."""
    between = _between(k_ary_fat_tree(4))
    shares = [np.mean(between == links) for links in (2, 4, 6)]
    yield Got("theory.distance.fat-tree-4", [between.mean(), *shares])
    yield Got("theory.distance.fat-tree-8", _between(k_ary_fat_tree(8)).mean())
    racks = fat_tree(leaves_per_pod=8, servers_per_leaf=4, aggregations_per_pod=4)
    servers = Router(racks).server_distance("links")
    mean = _distinct(servers).mean()
    yield Got("theory.distance.leaf-spine", [mean, servers.mean()])
    small = dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1)
    groups = len(np.unique(small.group_of_switch))
    yield Got("theory.distance.dragonfly", [groups, small.gpus, _between(small).max()])


def router_hops() -> Iterator[Got]:
    """Router-to-router hops of balanced dragonflies, minimal routing."""
    hops = _between(dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1), "router")
    # Ordered pairs of different hosts.
    yield Got("theory.hops.dragonfly-9", np.bincount(hops, minlength=4))
    yield Got("theory.hops.dragonfly-9-mean", hops.mean())
    larger = dragonfly(a=6, p=3, h=3, groups=19, gpus_per_server=1)
    yield Got("theory.hops.dragonfly-19-mean", _between(larger, "router").mean())


def _counts(cluster: Cluster) -> tuple[int, int, int]:
    return cluster.gpus, cluster.switches, cluster.cables


def _between(cluster: Cluster, convention: str = "links") -> np.ndarray:
    router = Router(cluster, "minimal" if convention == "router" else "shares")
    return _distinct(router.server_distance(convention))  # type: ignore[arg-type]


def _distinct(distance: np.ndarray) -> np.ndarray:
    """Return the distances of different ones."""
    return distance[~np.eye(len(distance), dtype=bool)]
