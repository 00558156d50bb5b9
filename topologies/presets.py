"""Named clusters: the reference fat-tree and common expert-parallel deployments."""

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
