"""Multi-plane fabrics: two-level trees side by side, and the cards of a server dealt to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from topologies.checks import whole
from topologies.errors import TopologyError
from topologies.links import ServerLinks
from topologies.parameters import make
from topologies.rails import RailLinks, RailShape

if TYPE_CHECKING:
    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiPlane(RailLinks):
    """Parameters of a multi-plane fabric (DeepSeek-V3, ISCA'25, section 5.1).

    Card i of a server is on plane i mod `planes`; every plane is a leaf-spine fabric of its own,
    and no cable leads from one to another: messages change the plane inside a server, over
    NVLink. With as many planes as cards it is the rail fabric with ``planes``. A card has one
    port here; cards that spread a message over ports on several planes are not modelled.

    Switches are numbered leaves first (by group of servers, then plane), then spines (by plane).

    Attributes
    ----------
    planes
        At least 2, and a divisor of `gpus_per_server`.
    leaves, servers_per_leaf, spines
        Of each plane: its leaves, the servers with cards on a leaf, its spines.
    rail_rule
        ``sender`` (the default here) or ``receiver``; ``direct`` finds no cable.
    oversubscription, cable_latency_s
        As in `RailLinks`.

    Raises
    ------
    TopologyError
        If a number is out of range, or the planes do not divide the cards.
    """

    builder: ClassVar[str] = "multi-plane"

    planes: int
    leaves: int
    servers_per_leaf: int
    spines: int
    rail_rule: str = "sender"

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        ServerLinks.__post_init__(self)
        whole("planes", self.planes, least=2)
        whole("leaves", self.leaves, least=1)
        whole("servers_per_leaf", self.servers_per_leaf, least=1)
        whole("spines", self.spines, least=0 if self.leaves == 1 else 1)
        if self.gpus_per_server % self.planes:
            raise TopologyError(
                f"planes is {self.planes}; expected a divisor of the {self.gpus_per_server} cards "
                "of a server"
            )
        self.check_rails(self._shape)

    @property
    def _shape(self) -> RailShape:
        return RailShape(self.leaves, self.servers_per_leaf, self.planes, self.spines, planes=True)

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        return self.build_rails(self._shape, name)


def multi_plane(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a multi-plane fabric from the parameters of `MultiPlane`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> multi_plane(planes=4, leaves=2, servers_per_leaf=4, spines=2, name="mp")
    <Cluster 'mp' (multi-plane): 64 GPUs in 8 servers of 8, 16 switches, 16 cables between switches>
    """
    return make(MultiPlane, parameters).build(name)
