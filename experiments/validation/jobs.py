"""Clusters and collectives that several checks use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.network import Flows
from topologies import FatTree, Router, ServerLinks, from_links

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LINE_RATE = 12.5e9
"""100 Gb/s."""
SIZE = 65_536
"""Bytes of a message of the all-to-alls."""


def all_pairs(gpus: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ordered pairs of different GPUs."""
    src, dst = np.divmod(np.arange(gpus * gpus), gpus)
    other = src != dst
    return src[other], dst[other]


def all_to_all(gpus: int, size: int = SIZE) -> Flows:
    """Return one message of `size` bytes from every GPU to every other."""
    src, dst = all_pairs(gpus)
    return messages(src, dst, np.ones(len(src)), size)


def messages(src: ArrayLike, dst: ArrayLike, count: ArrayLike, message_bytes: int) -> Flows:
    """Return the flows of any numbers."""
    return Flows(
        np.asarray(src, dtype=np.int32),
        np.asarray(dst, dtype=np.int32),
        np.asarray(count, dtype=np.int64),
        message_bytes,
    )


def switch(gpus: int, rate: float = LINE_RATE, latency_s: float = 0.0) -> Router:
    """Route over one switch between one-GPU servers with cards of `rate` B/s."""
    servers = ServerLinks(gpus_per_server=1, host_bandwidth_Bps=rate, host_latency_s=latency_s)
    return Router(from_links([], leaf_of_gpu=[0] * gpus, servers=servers), "hash")


def tree(k: int, rate: float = LINE_RATE) -> FatTree:
    """Return a k-ary fat-tree of one-GPU servers with cards of `rate` B/s, without latencies."""
    half = k // 2
    return FatTree(
        gpus_per_server=1,
        host_bandwidth_Bps=rate,
        host_latency_s=0.0,
        leaves_per_pod=half,
        servers_per_leaf=half,
        aggregations_per_pod=half,
        pods=k,
        cores_per_aggregation=half,
        cable_latency_s=0.0,
    )
