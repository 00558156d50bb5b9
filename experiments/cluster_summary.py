"""What there is to say of a cluster: counts, links by class, oversubscription, distances."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies import LinkClass, Router
from topologies.parts import PARTS
from topologies.switch_graph import SwitchGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies import Cluster

MAX_SERVERS = 4096
"""Servers whose distances are all looked at."""
_RATES = 4
"""Rates of a class that are told one by one."""


@dataclass(frozen=True, slots=True)
class LinkRow:
    """Links of one class, and of one rate unless there are many.

    Attributes
    ----------
    link_class
        Its name, in small letters.
    cables
        Of two directed links each.
    bandwidth_Bps, latency_s
        Of each direction: least and most.
    total_Bps
        Of all of them, one direction.
    parts
        Names of the parts that have this bandwidth.
    """

    link_class: str
    cables: int
    bandwidth_Bps: tuple[float, float]  # noqa: N815  bytes per second
    latency_s: tuple[float, float]
    total_Bps: float  # noqa: N815  bytes per second
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TierRow:
    """Switches equally far from the GPUs.

    Attributes
    ----------
    tier
        Hops to the nearest switch with GPUs.
    switches
        How many there are.
    ports
        Links of a switch, fewest and most.
    oversubscription
        Bandwidth towards the GPUs over bandwidth away from them or sideways, least and most;
        None where no link leads away.
    """

    tier: int
    switches: int
    ports: tuple[int, int]
    oversubscription: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class ClusterSummary:
    """A cluster in figures.

    Attributes
    ----------
    name, builder, notes
        As in `Cluster`.
    gpus, servers, gpus_per_server, racks, switches, cables
        Counts; cables are those between switches.
    links
        By class and rate.
    tiers
        From the GPUs outward.
    diameter, mean_distance
        Network links between servers, the latter over ordered pairs of different ones; None of
        a single server, or of more than `MAX_SERVERS`.
    measured
        Of measured costs: their unit, and the least, mean and most between servers.
    """

    name: str
    builder: str
    notes: tuple[str, ...]
    gpus: int
    servers: int
    gpus_per_server: int
    racks: int
    switches: int
    cables: int
    links: tuple[LinkRow, ...]
    tiers: tuple[TierRow, ...]
    diameter: float | None
    mean_distance: float | None
    measured: tuple[str, float, float, float] | None

    def to_mapping(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)


def summarise(cluster: Cluster) -> ClusterSummary:
    """Return the cluster in figures."""
    diameter, mean = _distances(cluster)
    return ClusterSummary(
        name=cluster.name,
        builder=cluster.builder,
        notes=cluster.notes,
        gpus=cluster.gpus,
        servers=cluster.servers,
        gpus_per_server=cluster.gpus_per_server,
        racks=len(np.unique(cluster.rack_of_server)),
        switches=cluster.switches,
        cables=cluster.cables,
        links=tuple(_link_rows(cluster)),
        tiers=tuple(_tier_rows(cluster)),
        diameter=diameter,
        mean_distance=mean,
        measured=_measured(cluster),
    )


def _link_rows(cluster: Cluster) -> list[LinkRow]:
    rows = []
    for kind in LinkClass:
        own = cluster.link_class == kind
        rates = np.stack([cluster.bandwidth_Bps[own], cluster.latency_s[own]])
        each, which, links = np.unique(rates, axis=1, return_inverse=True, return_counts=True)
        # Where the two ways of a cable differ, or nothing is like another, a range says more.
        if each.shape[1] > _RATES or (links % 2).any():
            rows.append(_link_row(kind, rates))
        else:
            rows += [_link_row(kind, rates[:, which == at]) for at in range(each.shape[1])]
    return rows


def _link_row(kind: LinkClass, rates: NDArray[np.float64]) -> LinkRow:
    (slow, near), (fast, far) = rates.min(axis=1).tolist(), rates.max(axis=1).tolist()
    of = "nvlink" if kind == LinkClass.NVLINK else "network"
    parts = (p.name for p in PARTS.values() if p.kind == of and p.bandwidth_Bps == slow == fast)
    total = float(rates[0].sum()) / 2
    cables = rates.shape[1] // 2
    return LinkRow(kind.name.lower(), cables, (slow, fast), (near, far), total, tuple(parts))


def _tier_rows(cluster: Cluster) -> list[TierRow]:
    level = SwitchGraph(cluster).level
    down, away, ports = _bandwidths(cluster, level)
    rows = []
    for tier in np.unique(level).tolist():
        here = level == tier
        leads_away = here & (away > 0)
        ratio = down[leads_away] / away[leads_away]
        spread = (float(ratio.min()), float(ratio.max())) if len(ratio) else None
        most = int(ports[here].max())
        rows.append(TierRow(tier, int(here.sum()), (int(ports[here].min()), most), spread))
    return rows


def _bandwidths(
    cluster: Cluster, level: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return, of every switch, its bandwidth towards the GPUs, its other bandwidth, its ports."""
    from_switch = cluster.link_src >= cluster.first_switch
    src = cluster.link_src[from_switch] - cluster.first_switch
    to = cluster.link_dst[from_switch] - cluster.first_switch
    inward = to < 0
    inward[~inward] = level[to[~inward]] < level[src[~inward]]
    rate, switches = cluster.bandwidth_Bps[from_switch], cluster.switches
    down, away = (
        np.bincount(src[chosen], rate[chosen], switches).astype(np.float64)
        for chosen in (inward, ~inward)
    )
    return down, away, np.bincount(src, minlength=switches).astype(np.int64)


def _distances(cluster: Cluster) -> tuple[float | None, float | None]:
    if not 1 < cluster.servers <= MAX_SERVERS:
        return None, None
    # The other convention, as measured costs stand in for the usual one.
    distance = Router(cluster).server_distance("router")
    pairs = cluster.servers * (cluster.servers - 1)
    # Every two servers are two card links farther apart than their switches.
    return float(distance.max()) + 2, float(distance.sum()) / pairs + 2


def _measured(cluster: Cluster) -> tuple[str, float, float, float] | None:
    if cluster.measured is None or cluster.servers == 1:
        return None
    far = cluster.measured.cost[~np.eye(cluster.servers, dtype=np.bool_)]
    return cluster.measured.unit, float(far.min()), float(far.mean()), float(far.max())
