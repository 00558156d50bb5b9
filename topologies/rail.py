"""Rail-optimised fabrics: card i of every server on the leaf of rail i."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.cards import RAIL_RULES
from topologies.checks import latency, ratio, shown, size, whole
from topologies.cluster import LinkClass
from topologies.errors import TopologyError
from topologies.links import CABLE_LATENCY_S, ServerLinks, from_links
from topologies.parameters import make, resolved

if TYPE_CHECKING:
    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail(ServerLinks):
    """Parameters of a rail-optimised fabric.

    The servers come in groups. A group has one leaf per rail, to which the cards at one place
    of its servers are cabled; every leaf is cabled to the spines. With `planes` each rail has
    spines of its own, and none of its cables leads to another rail: a fabric of several planes
    (DeepSeek-V3, ISCA'25), whose messages change the rail inside a server.

    Trunks are as wide as in a fat-tree: a leaf's bandwidth up is its bandwidth down divided by
    the oversubscription. Switches are numbered leaves first (by group, then rail), then spines
    (with `planes` by rail).

    Attributes
    ----------
    groups, servers_per_group
        Groups of servers, and servers of each: a leaf has `servers_per_group` cards.
    spines
        Spines that a leaf is cabled to. 0 makes rails without spines, of one group.
    planes
        Whether every rail has spines of its own.
    rail_rule
        How GPUs of different rails talk: ``direct`` (through the spines), ``sender`` or
        ``receiver`` (over NVLink at either end); see `topologies.cards`.
    oversubscription
        Bandwidth down over bandwidth up of a leaf.
    cable_latency_s
        Of each direction of a cable between switches.

    Raises
    ------
    TopologyError
        If a number is out of range, or ``direct`` finds no cables between the rails.
    """

    builder: ClassVar[str] = "rail"

    groups: int
    servers_per_group: int
    spines: int
    planes: bool = False
    rail_rule: str = "direct"
    oversubscription: float = 1.0
    cable_latency_s: float = CABLE_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and rails that cannot talk as the rule says."""
        ServerLinks.__post_init__(self)
        whole("gpus_per_server", self.gpus_per_server, least=2)
        whole("groups", self.groups, least=1)
        whole("servers_per_group", self.servers_per_group, least=1)
        whole("spines", self.spines, least=0 if self.groups == 1 else 1)
        ratio("oversubscription", self.oversubscription)
        latency("cable_latency_s", self.cable_latency_s)
        if not isinstance(self.planes, bool):
            raise TopologyError(f"planes is {shown(self.planes)}; expected true or false")
        if self.rail_rule not in RAIL_RULES:
            raise TopologyError(
                f"rail_rule is {shown(self.rail_rule)}; allowed: {', '.join(RAIL_RULES)}"
            )
        if self.rail_rule == "direct" and (self.planes or not self.spines):
            raise TopologyError(
                "rail_rule is 'direct', and no cable joins the rails; expected 'sender', "
                "'receiver', or spines without planes"
            )
        size(
            gpus=self.groups * self.servers_per_group * self.gpus_per_server,
            gpus_per_server=self.gpus_per_server,
            cables=self.leaves * self.spines,
        )

    @property
    def leaves(self) -> int:
        """Leaf switches in all: one per group and rail."""
        return self.groups * self.gpus_per_server

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        rails = self.gpus_per_server
        leaf, spine = np.indices((self.leaves, self.spines)).reshape(2, -1)
        plane = leaf % rails if self.planes else 0
        cables = np.stack([leaf, self.leaves + plane * self.spines + spine], axis=1)
        server, rail = np.indices((self.groups * self.servers_per_group, rails)).reshape(2, -1)
        spines = self.spines * (rails if self.planes else 1)
        down = self.servers_per_group * self.host_bandwidth_Bps
        group = np.concatenate([np.arange(self.leaves) // rails, np.full(spines, -1)])
        return from_links(
            cables,
            leaf_of_gpu=server // self.servers_per_group * rails + rail,
            servers=self,
            bandwidth_Bps=down / self.oversubscription / max(self.spines, 1),
            latency_s=self.cable_latency_s,
            link_class=LinkClass.GLOBAL,
            group_of_switch=group,
            rail_rule=self.rail_rule,
            name=name or self.builder,
            builder=self.builder,
            parameters=resolved(self),
        )


def rail(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a rail-optimised fabric from the parameters of `Rail`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> rail(groups=2, servers_per_group=4, spines=4, name="rails")
    <Cluster 'rails' (rail): 64 GPUs in 8 servers of 8, 20 switches, 64 cables between switches>
    """
    return make(Rail, parameters).build(name)
