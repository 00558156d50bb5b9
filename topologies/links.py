"""From switch-to-switch cables to a whole cluster: what every builder ends with.

>>> from_links([(0, 1), (1, 2), (2, 0)], leaf_of_gpu=[0, 1, 2], name="ring")
<Cluster 'ring' (links): 3 GPUs in 3 servers of 1, 3 switches, 3 cables between switches>
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies.checks import bandwidth, latency, whole
from topologies.cluster import Cluster, LinkClass
from topologies.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from topologies.measured_cost import MeasuredCost

HOST_BANDWIDTH_BPS = 50e9
"""NDR InfiniBand, 400 Gb/s per direction."""
HOST_LATENCY_S = 1.4e-6
"""Half of the 2.8 us of a small InfiniBand message under one leaf (DeepSeek-V3, ISCA'25)."""
CABLE_LATENCY_S = 0.45e-6
"""Half of what crossing to another leaf adds: 3.7 us instead of 2.8 us (same source)."""
NVLINK_BANDWIDTH_BPS = 450e9
"""NVLink 4: 900 GB/s both ways."""
NVLINK_LATENCY_S = 1.665e-6
"""Half of the 3.33 us of a small NVLink message (DeepSeek-V3, ISCA'25)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLinks:
    """The links that every server of a cluster has.

    Attributes
    ----------
    gpus_per_server
        GPUs, and network cards, of a server.
    host_bandwidth_Bps, host_latency_s
        Of each direction between a network card and its leaf switch.
    nvlink_bandwidth_Bps, nvlink_latency_s
        Of each direction between a GPU and the server's NVLink switch; unused where a server
        holds one GPU.

    Raises
    ------
    TopologyError
        If a number is out of range.
    """

    gpus_per_server: int = 8
    host_bandwidth_Bps: float = HOST_BANDWIDTH_BPS  # noqa: N815  bytes per second
    host_latency_s: float = HOST_LATENCY_S
    nvlink_bandwidth_Bps: float = NVLINK_BANDWIDTH_BPS  # noqa: N815  bytes per second
    nvlink_latency_s: float = NVLINK_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        whole("gpus_per_server", self.gpus_per_server, least=1)
        bandwidth("host_bandwidth_Bps", self.host_bandwidth_Bps)
        latency("host_latency_s", self.host_latency_s)
        bandwidth("nvlink_bandwidth_Bps", self.nvlink_bandwidth_Bps)
        latency("nvlink_latency_s", self.nvlink_latency_s)


def from_links(  # noqa: PLR0913  the parts of a cluster, all but the cables by name
    cables: ArrayLike,
    *,
    leaf_of_gpu: ArrayLike,
    servers: ServerLinks | None = None,
    bandwidth_Bps: ArrayLike = HOST_BANDWIDTH_BPS,  # noqa: N803  bytes per second
    latency_s: ArrayLike = CABLE_LATENCY_S,
    link_class: ArrayLike = LinkClass.LOCAL,
    group_of_switch: ArrayLike | None = None,
    fewest_global_first: bool = False,
    rail_rule: str = "direct",
    measured: MeasuredCost | None = None,
    name: str = "links",
    builder: str = "links",
    parameters: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> Cluster:
    """Build a cluster from the cables between its switches.

    Links are numbered in this order: network card to leaf for every GPU, leaf to network card
    for every GPU, GPU to NVLink switch and back likewise (where servers hold several GPUs),
    then two for every cable ``(a, b)``: a to b, b to a.

    Parameters
    ----------
    cables
        int [cables, 2]: switch indices; a pair listed twice is two parallel cables. May be
        empty where one switch carries all.
    leaf_of_gpu
        int [gpus]: the switch of every GPU's network card.
    servers
        Links of a server; by default one GPU a server at the default rates.
    bandwidth_Bps, latency_s, link_class
        One for all cables, or [cables]; rates may be [cables, 2], those from a to b first.
    group_of_switch
        int [switches]; by default as many switches as are named, all in group 0.
    fewest_global_first, rail_rule, measured, name, builder, parameters, notes
        As in `Cluster`. A server's rack is the leaf of its first GPU.

    Raises
    ------
    TopologyError
        If the parts do not make a connected cluster.
    """
    servers = servers or ServerLinks(gpus_per_server=1)
    pairs, leaf = _switch_pairs(cables), np.asarray(leaf_of_gpu)
    group = _groups(group_of_switch, pairs, leaf)
    return Cluster(
        name=name,
        builder=builder,
        parameters=dict(parameters or {}),
        gpus_per_server=servers.gpus_per_server,
        leaf_of_gpu=leaf,
        rack_of_server=_ranks(leaf[:: servers.gpus_per_server]),
        group_of_switch=group,
        fewest_global_first=fewest_global_first,
        rail_rule=rail_rule,
        measured=measured,
        notes=notes,
        **_ends(pairs, leaf, servers.gpus_per_server),
        **_columns(servers, (len(leaf), len(pairs)), link_class, bandwidth_Bps, latency_s),
    )


def _switch_pairs(cables: ArrayLike) -> NDArray[Any]:
    pairs = np.asarray(cables)
    if pairs.size == 0:
        return np.empty((0, 2), dtype=np.int32)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise TopologyError(f"cables have the shape {pairs.shape}; expected [cables, 2]")
    return pairs


def _groups(
    group_of_switch: ArrayLike | None, pairs: NDArray[Any], leaf: NDArray[Any]
) -> NDArray[Any]:
    """Return the switches' groups, after checking that the cables name such switches only."""
    if leaf.ndim != 1 or leaf.size == 0:
        raise TopologyError(f"leaf_of_gpu has the shape {leaf.shape}; expected [gpus]")
    named = int(max(leaf.max(), pairs.max(initial=0)))
    groups = np.zeros(named + 1, dtype=np.int32)
    if group_of_switch is not None:
        groups = np.asarray(group_of_switch)
    if named >= len(groups) or pairs.min(initial=0) < 0:
        wrong = named if named >= len(groups) else int(pairs.min())
        raise TopologyError(f"a cable or GPU names switch {wrong}; expected 0 to {len(groups) - 1}")
    return groups


def _ends(pairs: NDArray[Any], leaf: NDArray[Any], gpus_per_server: int) -> dict[str, Any]:
    """Return the nodes every link joins, and which links are the GPUs' own."""
    gpus = len(leaf)
    gpu = np.arange(gpus)
    first_switch = gpus + gpus // gpus_per_server
    own = [gpu, first_switch + leaf]
    if gpus_per_server > 1:
        own += [gpu, gpus + gpu // gpus_per_server]
    other = [own[at ^ 1] for at in range(len(own))]
    number = np.split(np.arange(len(own) * gpus), len(own))
    number += [np.empty(0, dtype=np.int64)] * (4 - len(own))
    return {
        "link_src": np.concatenate([*own, first_switch + pairs.ravel()]),
        "link_dst": np.concatenate([*other, first_switch + pairs[:, ::-1].ravel()]),
        "nic_up": number[0],
        "nic_down": number[1],
        "nvlink_up": number[2],
        "nvlink_down": number[3],
    }


def _columns(
    servers: ServerLinks, counts: tuple[int, int], *of_cable: ArrayLike
) -> dict[str, NDArray[Any]]:
    """Return class, bandwidth and latency [links], given those of the cables."""
    gpus, cables = counts
    if gpus % servers.gpus_per_server:
        raise TopologyError(f"{gpus} GPUs do not fill servers of {servers.gpus_per_server}")
    links = (2 * gpus, 2 * gpus if servers.gpus_per_server > 1 else 0, cables)
    own = {
        "link_class": (LinkClass.HOST, LinkClass.NVLINK),
        "bandwidth_Bps": (servers.host_bandwidth_Bps, servers.nvlink_bandwidth_Bps),
        "latency_s": (servers.host_latency_s, servers.nvlink_latency_s),
    }
    return {
        name: _column(host, nvlink, cable, links)
        for (name, (host, nvlink)), cable in zip(own.items(), of_cable, strict=True)
    }


def _column(
    host: float, nvlink: float, cable: ArrayLike, counts: tuple[int, int, int]
) -> NDArray[Any]:
    """Return [links]: a value for all host links, for all NVLinks and for each of the cables."""
    values = np.asarray(cable)
    both_ways = values.shape == (counts[2], 2)
    if values.shape not in {(), (counts[2],)} and not both_ways:
        raise TopologyError(f"a cable value has the shape {values.shape}; expected ({counts[2]},)")
    own = np.repeat([host, nvlink], counts[:2])
    if counts[2] == 0:
        return own
    if both_ways:
        return np.concatenate([own, values.ravel()])
    return np.concatenate([own, np.repeat(np.broadcast_to(values, counts[2]), 2)])


def _ranks(leaves: NDArray[Any]) -> NDArray[np.int32]:
    """Number the distinct leaves 0, 1, ... in ascending order."""
    return np.unique(leaves, return_inverse=True)[1].astype(np.int32)
