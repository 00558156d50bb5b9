"""The job that simulators are compared on: all-to-all between 128 hosts of a k = 8 fat-tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.network import Flows
from topologies import FatTree

if TYPE_CHECKING:
    from topologies import Cluster

PAIR_BYTES = 65_536
HOST_BPS = 12.5e9
"""Bytes/s of every link: 100 Gb/s."""

IDEAL_US = 127 * PAIR_BYTES / HOST_BPS * 1e6
"""What a host link needs for the messages to all others."""


def common_cluster() -> Cluster:
    """Build the non-blocking fat-tree, its links without latency."""
    return FatTree(
        gpus_per_server=1,
        host_bandwidth_Bps=HOST_BPS,
        host_latency_s=0.0,
        leaves_per_pod=4,
        servers_per_leaf=4,
        aggregations_per_pod=4,
        pods=8,
        cores_per_aggregation=4,
        cable_latency_s=0.0,
    ).build()


def common_flows() -> Flows:
    """Return one message of 64 KiB from every host to every other one."""
    src, dst = all_pairs(128)
    return Flows(src, dst, np.ones(len(src), dtype=np.int64), PAIR_BYTES)


def all_pairs(gpus: int) -> tuple[Any, Any]:
    """Return every two different GPUs: int64 [pairs] twice."""
    src, dst = np.divmod(np.arange(gpus * gpus), gpus)
    other = src != dst
    return src[other], dst[other]
