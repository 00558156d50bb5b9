"""What fabrics with rails share: which leaf a card is on, and how leaves meet spines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from topologies.cards import RAIL_RULES
from topologies.checks import latency, ratio, shown, size
from topologies.cluster import LinkClass
from topologies.errors import TopologyError
from topologies.links import CABLE_LATENCY_S, ServerLinks, from_links
from topologies.parameters import resolved

if TYPE_CHECKING:
    from topologies.cluster import Cluster


class RailShape(NamedTuple):
    """How a rail fabric is put together.

    Servers come in `groups` of `servers_per_group`. A group has a leaf per rail, and card i of
    a server is on the leaf of rail i mod `rails`. Every leaf is cabled to the `spines`, or, with
    `planes`, to as many of its own rail.
    """

    groups: int
    servers_per_group: int
    rails: int
    spines: int
    planes: bool

    @property
    def leaves(self) -> int:
        """Leaf switches in all."""
        return self.groups * self.rails


@dataclass(frozen=True, slots=True, kw_only=True)
class RailLinks(ServerLinks):
    """Parameters that every fabric with rails has.

    Attributes
    ----------
    rail_rule
        How GPUs of different rails talk: ``direct`` (through the spines), ``sender`` or
        ``receiver`` (over NVLink at either end); see `topologies.cards`.
    oversubscription
        Bandwidth down over bandwidth up of a leaf.
    cable_latency_s
        Of each direction of a cable between switches.
    """

    builder: ClassVar[str] = ""

    rail_rule: str = "direct"
    oversubscription: float = 1.0
    cable_latency_s: float = CABLE_LATENCY_S

    def check_rails(self, shape: RailShape) -> None:
        """Refuse numbers out of range, and rails that cannot talk as the rule says.

        Raises
        ------
        TopologyError
            Naming the parameter and what was expected.
        """
        ratio("oversubscription", self.oversubscription)
        latency("cable_latency_s", self.cable_latency_s)
        if self.rail_rule not in RAIL_RULES:
            raise TopologyError(
                f"rail_rule is {shown(self.rail_rule)}; allowed: {', '.join(RAIL_RULES)}"
            )
        if self.rail_rule == "direct" and shape.rails > 1 and (shape.planes or not shape.spines):
            raise TopologyError(
                "rail_rule is 'direct', and no cable joins the rails; expected 'sender', "
                "'receiver', or spines without planes"
            )
        size(
            gpus=shape.groups * shape.servers_per_group * self.gpus_per_server,
            gpus_per_server=self.gpus_per_server,
            cables=shape.leaves * shape.spines,
        )

    def build_rails(self, shape: RailShape, name: str | None) -> Cluster:
        """Return the cluster; leaves are numbered by group, then rail, spines behind them."""
        leaf, spine = np.indices((shape.leaves, shape.spines)).reshape(2, -1)
        plane = leaf % shape.rails if shape.planes else 0
        server, place = np.indices(
            (shape.groups * shape.servers_per_group, self.gpus_per_server)
        ).reshape(2, -1)
        group = np.arange(shape.leaves) // shape.rails
        spines = shape.spines * (shape.rails if shape.planes else 1)
        cards = shape.servers_per_group * self.gpus_per_server // shape.rails
        up = cards * self.host_bandwidth_Bps / self.oversubscription
        return from_links(
            np.stack([leaf, shape.leaves + plane * shape.spines + spine], axis=1),
            leaf_of_gpu=server // shape.servers_per_group * shape.rails + place % shape.rails,
            servers=self,
            bandwidth_Bps=up / max(shape.spines, 1),
            latency_s=self.cable_latency_s,
            link_class=LinkClass.GLOBAL,
            group_of_switch=np.concatenate([group, np.full(spines, -1)]),
            rail_rule=self.rail_rule,
            name=name or self.builder,
            builder=self.builder,
            parameters=resolved(self),
        )
