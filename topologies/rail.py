"""Rail-optimised fabrics: card i of every server on the leaf of rail i."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from topologies.checks import shown, whole
from topologies.errors import TopologyError
from topologies.links import ServerLinks
from topologies.parameters import make
from topologies.rails import RailLinks, RailShape

if TYPE_CHECKING:
    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail(RailLinks):
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
    rail_rule, oversubscription, cable_latency_s
        As in `RailLinks`.

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

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and rails that cannot talk as the rule says."""
        ServerLinks.__post_init__(self)
        whole("gpus_per_server", self.gpus_per_server, least=2)
        whole("groups", self.groups, least=1)
        whole("servers_per_group", self.servers_per_group, least=1)
        whole("spines", self.spines, least=0 if self.groups == 1 else 1)
        if not isinstance(self.planes, bool):
            raise TopologyError(f"planes is {shown(self.planes)}; expected true or false")
        self.check_rails(self._shape)

    @property
    def _shape(self) -> RailShape:
        rails = self.gpus_per_server
        return RailShape(self.groups, self.servers_per_group, rails, self.spines, self.planes)

    @property
    def leaves(self) -> int:
        """Leaf switches in all: one per group and rail."""
        return self._shape.leaves

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        return self.build_rails(self._shape, name)


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
