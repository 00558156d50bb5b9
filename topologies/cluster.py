"""The cluster: GPUs in servers in racks, switches, and the directed links between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from topologies.measured_cost import MeasuredCost


class LinkClass(IntEnum):
    """What a directed link is made of."""

    NVLINK = 0
    """Inside a server; weighs zero hops."""
    HOST = 1
    """Between a GPU's network card and its leaf switch."""
    LOCAL = 2
    """Between switches of one pod or group (leaf-aggregation; dragonfly local)."""
    GLOBAL = 3
    """Between pods or groups (aggregation-core, leaf-spine; dragonfly global)."""


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """A cluster as arrays, made by a builder and checked when made.

    Nodes are numbered GPUs first (``0 .. gpus-1``), then one NVLink switch per server
    (``gpus .. gpus+servers-1``; without links where a server holds one GPU), then the network
    switches. GPU ``g`` sits in server ``g // gpus_per_server`` and owns one network card.

    Attributes
    ----------
    name, builder, parameters
        What was built, and from which arguments.
    gpus_per_server
        GPUs (and network cards) of every server.
    leaf_of_gpu
        int32 [gpus]: the switch index (not node) the GPU's network card is cabled to.
    rack_of_server
        int32 [servers].
    group_of_switch
        int32 [switches]: pod or dragonfly group; -1 for switches above the pods.
    link_src, link_dst
        int32 [links]: node numbers; every cable is two directed links.
    link_class
        int8 [links] of `LinkClass`.
    bandwidth_Bps
        float64 [links]: bytes per second in the link's direction.
    latency_s
        float64 [links]: seconds from the last byte sent to the last byte received.
    nic_up, nic_down, nvlink_up, nvlink_down
        int32 [gpus]: the GPU's own links (GPU to leaf, leaf to GPU, GPU to NVLink switch and
        back). The NVLink arrays are empty where a server holds one GPU.
    fewest_global_first
        Whether routes take the fewest GLOBAL links first and the fewest hops second
        (dragonflies) instead of the fewest hops alone.
    rail_rule
        Which network cards two GPUs of different servers use by default: ``direct`` (their own),
        or, where a server's cards sit on several leaves, ``sender`` or ``receiver`` (see
        `topologies.cards`).
    measured
        Costs between servers that were measured, which `Router.server_distance` gives instead of
        hops; None where hops count.
    notes
        What a reader should know of the build, such as ports left without a cable.

    Raises
    ------
    TopologyError
        If the arrays contradict each other, a rate is impossible, or two GPUs have no path
        between them that the rail rule may take.
    """

    name: str
    builder: str
    parameters: Mapping[str, Any]
    gpus_per_server: int
    leaf_of_gpu: NDArray[np.int32]
    rack_of_server: NDArray[np.int32]
    group_of_switch: NDArray[np.int32]
    link_src: NDArray[np.int32]
    link_dst: NDArray[np.int32]
    link_class: NDArray[np.int8]
    bandwidth_Bps: NDArray[np.float64]  # noqa: N815  bytes per second, as the docs write it
    latency_s: NDArray[np.float64]
    nic_up: NDArray[np.int32]
    nic_down: NDArray[np.int32]
    nvlink_up: NDArray[np.int32]
    nvlink_down: NDArray[np.int32]
    fewest_global_first: bool = field(default=False)
    rail_rule: str = "direct"
    measured: MeasuredCost | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Freeze the arrays and refuse what cannot be a cluster."""
        from topologies.validation import check, frozen_arrays  # noqa: PLC0415  it needs LinkClass

        for name, array in frozen_arrays(self).items():
            object.__setattr__(self, name, array)
        check(self)

    def __repr__(self) -> str:
        """Say in one line what the cluster is made of."""
        text = (
            f"{self.gpus} GPUs in {self.servers} servers of {self.gpus_per_server}, "
            f"{self.switches} switches, {self.cables} cables between switches"
        )
        return f"<Cluster {self.name!r} ({self.builder}): {'; '.join([text, *self.notes])}>"

    @property
    def gpus(self) -> int:
        """GPUs in the cluster."""
        return len(self.leaf_of_gpu)

    @property
    def servers(self) -> int:
        """Servers in the cluster."""
        return len(self.rack_of_server)

    @property
    def switches(self) -> int:
        """Network switches (NVLink switches not counted)."""
        return len(self.group_of_switch)

    @property
    def links(self) -> int:
        """Directed links."""
        return len(self.link_src)

    @property
    def cables(self) -> int:
        """Cables between network switches, each of two directed links."""
        return int(np.count_nonzero(self.link_class >= LinkClass.LOCAL)) // 2

    @property
    def first_switch(self) -> int:
        """Node number of network switch 0."""
        return self.gpus + self.servers

    @property
    def nodes(self) -> int:
        """GPUs, NVLink switches and network switches."""
        return self.first_switch + self.switches

    @property
    def server_of_gpu(self) -> NDArray[np.int32]:
        """int32 [gpus]: the server each GPU sits in."""
        return np.arange(self.gpus, dtype=np.int32) // np.int32(self.gpus_per_server)

    @property
    def hop_weight(self) -> NDArray[np.int8]:
        """int8 [links]: 0 inside a server, 1 on the network."""
        weight: NDArray[np.int8] = (self.link_class != LinkClass.NVLINK).astype(np.int8)
        return weight
