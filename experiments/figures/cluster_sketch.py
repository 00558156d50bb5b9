"""What a picture of a cluster shows: all switches of a small one, groups of a large one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topologies import LinkClass
from topologies.switch_graph import SwitchGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies import Cluster

MAX_GPUS, MAX_SERVERS = 600, 96
"""Of a cluster whose GPUs are drawn, one by one."""
MAX_SWITCHES = 200
"""Of a cluster whose switches are drawn one by one, if there is another way."""
MAX_EDGES = 6000
"""Lines that can still be told apart as a texture."""
MAX_GROUPS = 8
"""Of a tree whose groups are drawn; of more, the first and the last ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """The nodes and lines of a picture.

    Attributes
    ----------
    gpus
        Whether servers and their GPUs are drawn.
    tier, group
        int64 [nodes]: hops to the nearest switch with GPUs; as `Cluster.group_of_switch`.
    switches
        int64 [nodes]: switches that a node stands for.
    servers
        int64 [nodes]: servers whose cards are all on these.
    node_of_switch
        int64 [switches]: -1 where a switch is left out.
    edges
        int64 [edges, 2]: nodes.
    cables, edge_class
        int64 [edges]: cables that a line stands for, and their highest class.
    notes
        What is left out.
    """

    gpus: bool
    tier: NDArray[np.int64]
    group: NDArray[np.int64]
    switches: NDArray[np.int64]
    servers: NDArray[np.int64]
    node_of_switch: NDArray[np.int64]
    edges: NDArray[np.int64]
    cables: NDArray[np.int64]
    edge_class: NDArray[np.int64]
    notes: tuple[str, ...]

    @property
    def nodes(self) -> int:
        """Nodes of the picture."""
        return len(self.tier)


def sketch(cluster: Cluster) -> Sketch:
    """Return what the picture of a cluster shows."""
    tier = SwitchGraph(cluster).level.astype(np.int64)
    group = cluster.group_of_switch.astype(np.int64)
    node, notes = _nodes(tier, group)
    nodes = int(node.max()) + 1
    kept = node >= 0
    own_tier, own_group = np.zeros((2, nodes), dtype=np.int64)
    own_tier[node[kept]], own_group[node[kept]] = tier[kept], group[kept]
    edges, cables, kinds = _edges(cluster, node)
    if len(edges) > MAX_EDGES:
        first = (edges == 0).any(axis=1)
        what = "switch" if nodes == cluster.switches else "group"
        notes.append(f"of {len(edges):,} lines those of one {what} are drawn")
        edges, cables, kinds = edges[first], cables[first], kinds[first]
    cards = node[cluster.leaf_of_gpu].reshape(cluster.servers, -1)
    leaf = cards[(cards == cards[:, :1]).all(axis=1) & (cards[:, 0] >= 0), 0]
    if not len(leaf):
        spread = len(np.unique(cluster.leaf_of_gpu[: cluster.gpus_per_server]))
        notes.append(f"a server has cards on {spread} leaves")
    return Sketch(
        gpus=cluster.gpus <= MAX_GPUS
        and cluster.servers <= MAX_SERVERS
        and nodes == cluster.switches,
        tier=own_tier,
        group=own_group,
        switches=np.bincount(node[kept], minlength=nodes),
        servers=np.bincount(leaf, minlength=nodes),
        node_of_switch=node,
        edges=edges,
        cables=cables,
        edge_class=kinds,
        notes=tuple(notes),
    )


def _nodes(
    tier: NDArray[np.int64], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the node of every switch, -1 for one left out, and what is left out."""
    everyone = np.arange(len(tier))
    if len(tier) <= MAX_SWITCHES:
        return everyone, []
    # Groups first in the order of their tiers, switches above the groups last.
    keys = np.stack([np.where(group < 0, group.max() + 1, group), tier])
    found, node = np.unique(keys, axis=1, return_inverse=True)
    if tier.max() == 0 and (found.shape[1] == 1 or found.shape[1] * 3 > len(tier)):
        return everyone, []
    notes = [] if found.shape[1] == len(tier) else ["a box stands for the switches it counts"]
    groups = int(group.max()) + 1
    if tier.max() > 0 and groups > MAX_GROUPS:
        kept = np.concatenate([np.arange(MAX_GROUPS - 1), [groups - 1]])
        dropped = (group >= 0) & ~np.isin(group, kept)
        node[dropped] = -1
        node[~dropped] = np.unique(node[~dropped], return_inverse=True)[1]
        notes.append(f"{groups - MAX_GROUPS:,} of {groups:,} groups are left out")
    return node.astype(np.int64), notes


def _edges(
    cluster: Cluster, node: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return lines between different nodes, the cables of each, and their highest class."""
    between = cluster.link_class >= LinkClass.LOCAL
    ends = np.stack([cluster.link_src[between], cluster.link_dst[between]]) - cluster.first_switch
    first, second = node[ends]
    # One of the two ways of a cable, between nodes that are drawn.
    shown = (first >= 0) & (first < second)
    nodes = int(node.max()) + 1
    keys, which, count = np.unique(
        first[shown] * nodes + second[shown], return_inverse=True, return_counts=True
    )
    kinds = np.zeros(len(keys), dtype=np.int64)
    np.maximum.at(kinds, which, cluster.link_class[between][shown])
    return np.stack([keys // nodes, keys % nodes], axis=1), count, kinds
