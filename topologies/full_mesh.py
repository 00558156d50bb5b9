"""Full meshes: a cable between every two switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.checks import whole
from topologies.direct import DirectLinks
from topologies.links import ServerLinks
from topologies.parameters import make

if TYPE_CHECKING:
    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class FullMesh(DirectLinks):
    """Parameters of a full mesh.

    Attributes
    ----------
    switches, servers_per_switch
        Switches, each cabled to every other, and the servers of one.
    cable_bandwidth_Bps, cable_latency_s
        As in `DirectLinks`.

    Raises
    ------
    TopologyError
        If a number is out of range.
    """

    builder: ClassVar[str] = "full-mesh"

    switches: int
    servers_per_switch: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        ServerLinks.__post_init__(self)
        whole("switches", self.switches, least=1)
        whole("servers_per_switch", self.servers_per_switch, least=1)
        self.check_direct(
            switches=self.switches,
            servers_per_switch=self.servers_per_switch,
            cables=self.switches * (self.switches - 1) // 2,
        )

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        return self.build_direct(
            np.stack(np.triu_indices(self.switches, k=1), axis=1),
            name,
            servers_per_switch=self.servers_per_switch,
            group_of_switch=np.zeros(self.switches, dtype=np.int32),
        )


def full_mesh(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a full mesh from the parameters of `FullMesh`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> full_mesh(switches=5, name="five")
    <Cluster 'five' (full-mesh): 40 GPUs in 5 servers of 8, 5 switches, 10 cables between switches>
    """
    return make(FullMesh, parameters).build(name)
