"""Fat-trees of two and three levels, full or sparse, with any oversubscription."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.checks import latency, ratio, ring_reach, size, whole
from topologies.cluster import LinkClass
from topologies.errors import TopologyError
from topologies.links import CABLE_LATENCY_S, ServerLinks, from_links
from topologies.parameters import make, resolved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class FatTree(ServerLinks):
    """Parameters of a fat-tree.

    Three levels: every leaf of a pod is cabled to every aggregation switch of the pod, and
    aggregation switch j of every pod to the cores of plane j. Two levels (leaf-spine): one pod
    without cores, whose aggregation switches are the spines.

    Cables between switches are trunks: an upward cable carries as much as makes the switch's
    bandwidth up equal its bandwidth down divided by the tier's oversubscription. A k-ary tree
    without oversubscription so gets trunks of the host rate.

    The sparse variant arranges the pods (two levels: the leaves) on a ring. Its top switches
    come in one set per pod q, cabled to pods q, q+1, ..., q+reach: pods at most `reach` apart
    share top switches, farther ones are reached through pods between. A switch keeps as many
    upward cables as in the full variant, ``reach + 1`` sets share them.

    Switches are numbered leaves first (by pod), then aggregation switches (by pod), then cores
    (by set, plane, number).

    Attributes
    ----------
    leaves_per_pod, servers_per_leaf
        Leaf switches of a pod, servers of a leaf.
    aggregations_per_pod
        Aggregation switches of a pod (two levels: spines a leaf is cabled to).
    pods
        1 makes a two-level tree.
    cores_per_aggregation
        Cores every aggregation switch is cabled to; 0 in a two-level tree.
    oversubscription
        Bandwidth down over bandwidth up: one number for all tiers, or one per tier from the
        leaves upward.
    reach
        None for the full tree; otherwise the ring distance that shares top switches.
    cable_latency_s
        Of each direction of a cable between switches.

    Raises
    ------
    TopologyError
        If a number is out of range, the levels contradict each other, or `reach` leaves nothing
        out.
    """

    builder: ClassVar[str] = "fat-tree"

    leaves_per_pod: int
    servers_per_leaf: int
    aggregations_per_pod: int
    pods: int = 1
    cores_per_aggregation: int = 0
    oversubscription: float | Sequence[float] = 1.0
    reach: int | None = None
    cable_latency_s: float = CABLE_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse numbers out of range and levels that contradict each other."""
        ServerLinks.__post_init__(self)
        for name in ("leaves_per_pod", "servers_per_leaf", "aggregations_per_pod", "pods"):
            whole(name, getattr(self, name), least=1)
        whole("cores_per_aggregation", self.cores_per_aggregation, least=0)
        if (self.pods == 1) != (self.cores_per_aggregation == 0):
            raise TopologyError(
                f"pods is {self.pods} and cores_per_aggregation {self.cores_per_aggregation}; "
                "expected several pods with cores (three levels) or one without (two levels)"
            )
        latency("cable_latency_s", self.cable_latency_s)
        if isinstance(self.oversubscription, Sequence):
            object.__setattr__(self, "oversubscription", tuple(self.oversubscription))
        self._check_oversubscription()
        if self.reach is not None:
            self._check_reach(self.reach)
        size(
            gpus=self.leaves * self.servers_per_leaf * self.gpus_per_server,
            gpus_per_server=self.gpus_per_server,
            cables=self.pods
            * self.aggregations_per_pod
            * (self.leaves_per_pod + self.cores_per_aggregation),
        )

    def _check_oversubscription(self) -> None:
        ratios = self._ratios
        if len(ratios) != self.levels - 1:
            raise TopologyError(
                f"oversubscription names {len(ratios)} tiers; expected one number or "
                f"{self.levels - 1}"
            )
        for value in ratios:
            ratio("oversubscription", value)

    def _check_reach(self, reach: int) -> None:
        members, what = (self.pods, "pods") if self.levels == 3 else (self.leaves, "leaves")
        ring_reach(reach, members=members, what=what)
        uplinks = self.cores_per_aggregation or self.aggregations_per_pod
        if uplinks % (reach + 1):
            name = "cores_per_aggregation" if self.levels == 3 else "aggregations_per_pod"
            raise TopologyError(
                f"{name} is {uplinks}; expected a multiple of reach + 1 = {reach + 1}, the sets "
                "of top switches that share the cables"
            )

    @property
    def levels(self) -> int:
        """Levels of switches: 2 or 3."""
        return 3 if self.pods > 1 else 2

    @property
    def leaves(self) -> int:
        """Leaf switches in all."""
        return self.pods * self.leaves_per_pod

    @property
    def _ratios(self) -> tuple[float, ...]:
        """Oversubscription of each tier, from the leaves upward."""
        if isinstance(self.oversubscription, Sequence):
            return tuple(self.oversubscription)
        return (self.oversubscription,) * (self.levels - 1)

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        down = self.servers_per_leaf * self.gpus_per_server * self.host_bandwidth_Bps
        trunk = down / self._ratios[0] / self.aggregations_per_pod
        leaf = np.arange(self.leaves)
        if self.levels == 2:
            cables, tops = self._top_tier(leaf, self.leaves, self.aggregations_per_pod)
            bandwidth = np.full(len(cables), trunk)
            link_class = np.full(len(cables), LinkClass.GLOBAL, dtype=np.int8)
            group = np.concatenate([leaf, np.full(tops, -1)])
        else:
            lower, pod = self._pod_cables()
            aggregation = self.leaves + np.arange(self.pods * self.aggregations_per_pod)
            upper, tops = self._top_tier(aggregation, self.pods, self.cores_per_aggregation)
            rise = trunk * self.leaves_per_pod / self._ratios[1] / self.cores_per_aggregation
            cables = np.concatenate([lower, upper])
            bandwidth = np.repeat([trunk, rise], [len(lower), len(upper)])
            link_class = np.repeat([LinkClass.LOCAL, LinkClass.GLOBAL], [len(lower), len(upper)])
            group = np.concatenate([pod, np.full(tops, -1)])
        return from_links(
            cables,
            leaf_of_gpu=np.repeat(leaf, self.servers_per_leaf * self.gpus_per_server),
            servers=self,
            bandwidth_Bps=bandwidth,
            latency_s=self.cable_latency_s,
            link_class=link_class,
            group_of_switch=group,
            name=name or self.builder,
            builder=self.builder,
            parameters=resolved(self),
        )

    def _pod_cables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cable leaves to the aggregation switches of their pod; return every switch's pod too."""
        pod, leaf, aggregation = np.indices(
            (self.pods, self.leaves_per_pod, self.aggregations_per_pod)
        ).reshape(3, -1)
        low = pod * self.leaves_per_pod + leaf
        high = self.leaves + pod * self.aggregations_per_pod + aggregation
        pods = np.arange(self.pods)
        group = [np.repeat(pods, self.leaves_per_pod), np.repeat(pods, self.aggregations_per_pod)]
        return np.stack([low, high], axis=1), np.concatenate(group)

    def _top_tier(
        self, lower: NDArray[np.int64], groups: int, uplinks: int
    ) -> tuple[NDArray[np.int64], int]:
        """Cable the switches `lower` (equally many of each group) to the top switches.

        A set holds, for each plane, the top switches that one switch of a group is cabled to;
        the full variant has one set for all groups.

        Returns
        -------
        int64 [cables, 2] and the number of top switches, numbered from ``lower[-1] + 1``.
        """
        planes = len(lower) // groups
        shared = 1 if self.reach is None else self.reach + 1
        sets, width = (1, uplinks) if self.reach is None else (groups, uplinks // shared)
        group, plane, back, top = np.indices((groups, planes, shared, width)).reshape(4, -1)
        home = (group - back) % sets
        low = lower[group * planes + plane]
        high = lower[-1] + 1 + (home * planes + plane) * width + top
        return np.stack([low, high], axis=1), sets * planes * width


def fat_tree(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a fat-tree from the parameters of `FatTree`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> fat_tree(leaves_per_pod=4, servers_per_leaf=4, aggregations_per_pod=2, name="small")
    <Cluster 'small' (fat-tree): 128 GPUs in 16 servers of 8, 6 switches, 8 cables between switches>
    """
    return make(FatTree, parameters).build(name)


def k_ary_fat_tree(k: int, *, name: str | None = None, **parameters: Any) -> Cluster:
    """Build the non-blocking k-ary fat-tree of k^3/4 servers of one GPU (Al-Fares et al., 2008).

    Parameters
    ----------
    k
        Ports of a switch: k pods of k/2 leaves with k/2 servers each.
    parameters
        Further parameters of `FatTree`.

    Raises
    ------
    TopologyError
        If `k` is odd or below 2, or a parameter is refused.
    """
    whole("k", k, least=2)
    if k % 2:
        raise TopologyError(f"k is {k}; expected an even number")
    half = {"leaves_per_pod": k // 2, "servers_per_leaf": k // 2}
    half |= {"aggregations_per_pod": k // 2, "cores_per_aggregation": k // 2}
    return fat_tree(name=name, **{"pods": k, "gpus_per_server": 1, **half, **parameters})
