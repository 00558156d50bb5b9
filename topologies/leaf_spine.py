"""Leaf-spine fabrics: every leaf cabled to every spine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.checks import latency, ratio, size, whole
from topologies.cluster import LinkClass
from topologies.links import CABLE_LATENCY_S, ServerLinks, from_links
from topologies.parameters import make, resolved

if TYPE_CHECKING:
    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafSpine(ServerLinks):
    """Parameters of a leaf-spine fabric: the two-level fat-tree in a network engineer's words.

    A leaf's bandwidth up equals its bandwidth down divided by the oversubscription, spread
    evenly over its cables. Switches are numbered leaves first.

    Attributes
    ----------
    leaves, servers_per_leaf, spines
        Leaf switches, servers of each, and spines above them.
    cables_per_spine
        Parallel cables between a leaf and a spine.
    oversubscription
        Bandwidth down over bandwidth up of a leaf.
    cable_latency_s
        Of each direction of a cable.

    Raises
    ------
    TopologyError
        If a number is out of range.
    """

    builder: ClassVar[str] = "leaf-spine"

    leaves: int
    servers_per_leaf: int
    spines: int
    cables_per_spine: int = 1
    oversubscription: float = 1.0
    cable_latency_s: float = CABLE_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        ServerLinks.__post_init__(self)
        for name in ("leaves", "servers_per_leaf", "spines", "cables_per_spine"):
            whole(name, getattr(self, name), least=1)
        ratio("oversubscription", self.oversubscription)
        latency("cable_latency_s", self.cable_latency_s)
        size(
            gpus=self.leaves * self.servers_per_leaf * self.gpus_per_server,
            gpus_per_server=self.gpus_per_server,
            cables=self.leaves * self.spines * self.cables_per_spine,
        )

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        shape = (self.leaves, self.spines, self.cables_per_spine)
        leaf, spine, _ = np.indices(shape).reshape(3, -1)
        cards = self.servers_per_leaf * self.gpus_per_server
        up = cards * self.host_bandwidth_Bps / self.oversubscription
        leaves = np.arange(self.leaves)
        return from_links(
            np.stack([leaf, self.leaves + spine], axis=1),
            leaf_of_gpu=np.repeat(leaves, cards),
            servers=self,
            bandwidth_Bps=up / (self.spines * self.cables_per_spine),
            latency_s=self.cable_latency_s,
            link_class=LinkClass.GLOBAL,
            group_of_switch=np.concatenate([leaves, np.full(self.spines, -1)]),
            name=name or self.builder,
            builder=self.builder,
            parameters=resolved(self),
        )


def leaf_spine(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a leaf-spine fabric from the parameters of `LeafSpine`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> leaf_spine(leaves=4, servers_per_leaf=4, spines=2, name="ls")
    <Cluster 'ls' (leaf-spine): 128 GPUs in 16 servers of 8, 6 switches, 8 cables between switches>
    """
    return make(LeafSpine, parameters).build(name)
