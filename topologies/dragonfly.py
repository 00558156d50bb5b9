"""Dragonflies: groups of fully meshed routers, and global links between the groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.checks import bandwidth, latency, ring_reach, shown, size, whole
from topologies.cluster import LinkClass
from topologies.errors import TopologyError
from topologies.links import CABLE_LATENCY_S, ServerLinks, from_links
from topologies.parameters import make, resolved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster

ARRANGEMENTS = ("absolute", "palmtree", "relative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dragonfly(ServerLinks):
    """Parameters of a dragonfly (Kim, Dally, Scott, Abts, 2008).

    The routers of a group form a full mesh of local links; every pair of groups is joined by
    ``a*h // (groups - 1)`` global links, and ports that this leaves over stay spare. Routes take
    the fewest global links, then the fewest hops: local-global-local where nothing is cut.

    The arrangement says at which of a group's global slots the link to another group sits, in
    a group i of g (Hastings et al., 2015; Camarero et al., 2014):

    - ``absolute``: the link to j at slot j below i, and at j - 1 above;
    - ``relative``: the link to i + s + 1 (mod g) at slot s;
    - ``palmtree``: the link to i - s - 1 (mod g) at slot s, the mirror image of ``relative``.

    Further links of a pair repeat the pattern at slots ``g - 1`` further on, and slots are dealt
    to the group's routers in equal runs (slot // h where all ports are used).

    The sparse variant keeps, of the full one, only the global links between groups at most
    `reach` apart on the ring of groups. Switches are numbered by group.

    Attributes
    ----------
    a, p, h
        Routers of a group, servers of a router, global ports of a router.
    groups
        At most a*h + 1.
    arrangement
        ``absolute``, ``relative`` or ``palmtree``.
    reach
        None for all pairs of groups; otherwise the ring distance that keeps its links.
    local_bandwidth_Bps, global_bandwidth_Bps
        Of each direction of a link; None for one host-rate lane per network card of a server.
    cable_latency_s
        Of each direction of a cable between switches.

    Raises
    ------
    TopologyError
        If a number is out of range, the ports do not reach all groups, or `reach` leaves
        nothing out.
    """

    builder: ClassVar[str] = "dragonfly"

    a: int
    p: int
    h: int
    groups: int
    arrangement: str = "absolute"
    reach: int | None = None
    local_bandwidth_Bps: float | None = None  # noqa: N815  bytes per second
    global_bandwidth_Bps: float | None = None  # noqa: N815  bytes per second
    cable_latency_s: float = CABLE_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse numbers out of range and groups that the ports cannot reach."""
        ServerLinks.__post_init__(self)
        for name in ("a", "p", "h"):
            whole(name, getattr(self, name), least=1)
        whole("groups", self.groups, least=2)
        if self.groups - 1 > self.a * self.h:
            raise TopologyError(
                f"groups is {self.groups}; expected at most a*h + 1 = {self.a * self.h + 1}"
            )
        if self.arrangement not in ARRANGEMENTS:
            raise TopologyError(
                f"arrangement is {shown(self.arrangement)}; allowed: {', '.join(ARRANGEMENTS)}"
            )
        for name in ("local_bandwidth_Bps", "global_bandwidth_Bps"):
            if getattr(self, name) is not None:
                bandwidth(name, getattr(self, name))
        latency("cable_latency_s", self.cable_latency_s)
        if self.reach is not None:
            ring_reach(self.reach, members=self.groups, what="groups")
        near = self.groups * self.a * (self.a - 1) // 2
        far = self.groups * (self.groups - 1) // 2 * self.links_per_pair
        size(
            gpus=self.groups * self.a * self.p * self.gpus_per_server,
            gpus_per_server=self.gpus_per_server,
            cables=near + far,
        )

    @property
    def links_per_pair(self) -> int:
        """Global links between two groups that are joined."""
        return self.a * self.h // (self.groups - 1)

    @property
    def spare_ports(self) -> int:
        """Global ports of a group that carry no link."""
        neighbours = self.groups - 1 if self.reach is None else 2 * self.reach
        return self.a * self.h - neighbours * self.links_per_pair

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster; spare ports are reported in its notes."""
        lane = self.host_bandwidth_Bps * self.gpus_per_server
        near, far = self._local_cables(), self._global_cables()
        counts = [len(near), len(far)]
        rates = [self.local_bandwidth_Bps or lane, self.global_bandwidth_Bps or lane]
        routers = np.arange(self.groups * self.a)
        spare = f"{self.spare_ports} spare global ports a group"
        return from_links(
            np.concatenate([near, far]),
            leaf_of_gpu=np.repeat(routers, self.p * self.gpus_per_server),
            servers=self,
            bandwidth_Bps=np.repeat(rates, counts),
            latency_s=self.cable_latency_s,
            link_class=np.repeat([LinkClass.LOCAL, LinkClass.GLOBAL], counts),
            group_of_switch=routers // self.a,
            fewest_global_first=True,
            name=name or self.builder,
            builder=self.builder,
            parameters=resolved(self),
            notes=(spare,) if self.spare_ports else (),
        )

    def _local_cables(self) -> NDArray[np.int64]:
        """Return int64 [cables, 2]: a full mesh in every group."""
        first, second = np.triu_indices(self.a, k=1)
        base = self.a * np.arange(self.groups)[:, None]
        return np.stack([(base + first).ravel(), (base + second).ravel()], axis=1)

    def _global_cables(self) -> NDArray[np.int64]:
        """Return int64 [cables, 2], by pair of groups and then by parallel link."""
        low, high = np.triu_indices(self.groups, k=1)
        if self.reach is not None:
            apart = np.minimum(high - low, self.groups - (high - low))
            low, high = low[apart <= self.reach], high[apart <= self.reach]
        low, high = (np.repeat(side, self.links_per_pair) for side in (low, high))
        copy = np.arange(len(low)) % self.links_per_pair
        ends = [self._router(low, high, copy), self._router(high, low, copy)]
        return np.stack(ends, axis=1)

    def _router(
        self, group: NDArray[np.int64], other: NDArray[np.int64], copy: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the routers of `group` at which its links to `other` sit."""
        slot = {
            "absolute": other - (other > group),
            "relative": (other - group - 1) % self.groups,
            "palmtree": (group - other - 1) % self.groups,
        }[self.arrangement]
        slots = (self.groups - 1) * self.links_per_pair
        local: NDArray[np.int64] = (copy * (self.groups - 1) + slot) * self.a // slots
        return group * self.a + local


def dragonfly(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a dragonfly from the parameters of `Dragonfly`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1, name="df")
    <Cluster 'df' (dragonfly): 72 GPUs in 72 servers of 1, 36 switches, 90 cables between switches>
    """
    return make(Dragonfly, parameters).build(name)
