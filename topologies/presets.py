"""Named clusters: the reference fat-tree, expert-parallel deployments, and clusters in use."""

from __future__ import annotations

from dataclasses import dataclass

from topologies.errors import TopologyError
from topologies.spec import ClusterSpec


@dataclass(frozen=True, slots=True)
class Preset:
    """A named cluster.

    Attributes
    ----------
    spec
        The cluster, under the preset's name.
    slots_per_layer
        Expert slots of a layer that the deployment holds, redundant experts included; None
        where the cluster is no deployment.
    about
        One line for people.
    """

    spec: ClusterSpec
    slots_per_layer: int | None = None
    about: str = ""


def _two_level(name: str, leaves: int, servers_per_leaf: int, slots: int) -> Preset:
    servers = leaves * servers_per_leaf
    parameters = {
        "leaves_per_pod": leaves,
        "servers_per_leaf": servers_per_leaf,
        "aggregations_per_pod": 4,
    }
    about = f"{servers} servers of 8 GPUs on {leaves} leaves, {slots} slots a layer"
    return Preset(ClusterSpec("fat-tree", parameters, name), slots, about)


_REFERENCE = ClusterSpec(
    "fat-tree",
    {
        "pods": 2,
        "leaves_per_pod": 4,
        "servers_per_leaf": 4,
        "aggregations_per_pod": 4,
        "cores_per_aggregation": 4,
    },
    "facts-fat-tree",
)

_RAIL = ClusterSpec(
    "rail",
    {"groups": 2, "servers_per_group": 16, "spines": 16, "rail_rule": "sender"},
    "rail-256",
)
_PLANES = ClusterSpec(
    "rail",
    {
        "groups": 64,
        "servers_per_group": 32,
        "spines": 32,
        "planes": True,
        "rail_rule": "receiver",
    },
    "planes-16384",
)

_SUPERPOD = "rails as in NVIDIA's DGX SuperPOD reference architecture (units of 32 servers)"


def _superpod(name: str, units: int, nvlink: str, about: str) -> Preset:
    parameters = {
        "groups": units,
        "servers_per_group": 32,
        "spines": 4 * units,
        "rail_rule": "sender",
        "host": "ndr",
        "nvlink": nvlink,
    }
    return Preset(ClusterSpec("rail", parameters, name), about=f"{about}; {_SUPERPOD}")


def _racks(name: str, racks: int, host: str, about: str) -> Preset:
    parameters = {"domains": racks, "domains_per_group": 2, "spines": 9, "host": host}
    return Preset(ClusterSpec("scale-up", parameters, name), about=about)


_REAL = (
    _superpod("h100-ndr-256", 1, "nvlink4", "32 DGX H100 on NDR InfiniBand"),
    _superpod("h100-ndr-1024", 4, "nvlink4", "128 DGX H100 on NDR InfiniBand"),
    _superpod("b200-ndr-256", 1, "nvlink5", "32 DGX B200 on NDR InfiniBand"),
    Preset(
        ClusterSpec(
            "multi-plane",
            {
                "planes": 8,
                "leaves": 8,
                "servers_per_leaf": 32,
                "spines": 4,
                "host": "ndr",
                "nvlink": "nvlink4-h800",
            },
            "h800-planes-2048",
        ),
        about="256 H800 servers on 8 planes, as DeepSeek-V3 was trained (ISCA'25); spines as many "
        "as 64 ports ask for",
    ),
    Preset(
        ClusterSpec(
            "scale-up",
            {"domains": 1, "rails": 1, "spines": 0, "host": "ndr"},
            "gb200-nvl72",
        ),
        about="one GB200 NVL72 rack (NVIDIA), its cards on one leaf",
    ),
    _racks("gb200-nvl72-8", 8, "ndr", "8 GB200 NVL72 racks on NDR; their spines are our choice"),
    _racks("gb300-nvl72-8", 8, "xdr", "8 GB300 NVL72 racks on XDR; their spines are our choice"),
    Preset(
        ClusterSpec(
            "fat-tree",
            {
                "pods": 8,
                "leaves_per_pod": 192,
                "servers_per_leaf": 2,
                "aggregations_per_pod": 16,
                "cores_per_aggregation": 16,
                "oversubscription": [1, 7],
                "host": "400gbe",
                "cable": "400gbe",
            },
            "llama3-24k",
        ),
        about="24,576 H100 on 400 GbE in pods of 3,072, 1:7 between pods (The Llama 3 Herd of "
        "Models, 2024); switches above the racks are our choice",
    ),
    Preset(
        ClusterSpec(
            "torus",
            {
                "dims": [4, 4, 4],
                "gpus_per_server": 1,
                "cable_bandwidth_Bps": 50e9,
                "host_bandwidth_Bps": 300e9,
            },
            "tpu-v4-64",
        ),
        about="a cube of 64 TPU v4 chips, six links of 50 GB/s each (Jouppi et al., ISCA'23)",
    ),
)

PRESETS: dict[str, Preset] = {
    preset.spec.name: preset
    for preset in (
        _two_level("ep32", 2, 2, 288),
        _two_level("ep64", 2, 4, 320),
        _two_level("ep72", 3, 3, 288),
        _two_level("ep144", 6, 3, 288),
        Preset(
            _REFERENCE,
            about="32 servers of 8 GPUs, 4 servers a leaf, 4 leaves a pod: distances 2, 4 and 6",
        ),
        Preset(_RAIL, about="32 servers of 8 GPUs in 2 groups, a leaf per rail and group"),
        Preset(_PLANES, about="2048 servers of 8 GPUs on 8 two-level planes of 64-port switches"),
        *_REAL,
    )
}
"""Every preset by name."""


def preset(name: str) -> Preset:
    """Return the preset of that name.

    Raises
    ------
    TopologyError
        If there is none; the message lists those there are.
    """
    if name not in PRESETS:
        raise TopologyError(f"unknown cluster {name!r}; allowed: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
