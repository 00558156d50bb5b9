"""What direct networks share: a switch next to every server, and cables between switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.checks import bandwidth, latency, size
from topologies.cluster import LinkClass
from topologies.links import CABLE_LATENCY_S, ServerLinks, from_links
from topologies.parameters import resolved

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectLinks(ServerLinks):
    """Parameters that every direct network has.

    Attributes
    ----------
    cable_bandwidth_Bps
        Of each direction of a cable; None for one host-rate lane per network card of a server.
    cable_latency_s
        Of each direction of a cable.
    """

    builder: ClassVar[str] = ""

    cable_bandwidth_Bps: float | None = None  # noqa: N815  bytes per second
    cable_latency_s: float = CABLE_LATENCY_S

    def check_direct(self, *, switches: int, servers_per_switch: int, cables: int) -> None:
        """Refuse rates out of range, and a network too large to be meant.

        Raises
        ------
        TopologyError
            Naming the parameter and what was expected.
        """
        if self.cable_bandwidth_Bps is not None:
            bandwidth("cable_bandwidth_Bps", self.cable_bandwidth_Bps)
        latency("cable_latency_s", self.cable_latency_s)
        size(
            gpus=switches * servers_per_switch * self.gpus_per_server,
            gpus_per_server=self.gpus_per_server,
            cables=cables,
        )

    def build_direct(
        self,
        cables: NDArray[np.int64],
        name: str | None,
        *,
        servers_per_switch: int,
        group_of_switch: NDArray[Any],
        link_class: ArrayLike = LinkClass.LOCAL,
    ) -> Cluster:
        """Return the cluster with as many servers on every switch."""
        lane = self.host_bandwidth_Bps * self.gpus_per_server
        switches = np.arange(len(group_of_switch))
        return from_links(
            cables,
            leaf_of_gpu=np.repeat(switches, servers_per_switch * self.gpus_per_server),
            servers=self,
            bandwidth_Bps=self.cable_bandwidth_Bps or lane,
            latency_s=self.cable_latency_s,
            link_class=link_class,
            group_of_switch=group_of_switch,
            name=name or self.builder,
            builder=self.builder,
            parameters=resolved(self),
        )
