"""What the cluster is: GPUs, switches, links, and the routes between GPUs."""

from topologies.cluster import Cluster, LinkClass
from topologies.dragonfly import Dragonfly, dragonfly
from topologies.errors import RoutingError, TopologyError
from topologies.fat_tree import FatTree, fat_tree, k_ary_fat_tree
from topologies.files import read_cluster
from topologies.graph import to_networkx
from topologies.links import ServerLinks, from_links
from topologies.paths import LinkUsage, Paths
from topologies.presets import PRESETS, Preset, preset
from topologies.rail import Rail, rail
from topologies.routing import Router
from topologies.spec import BUILDERS, ClusterSpec

__all__ = [
    "BUILDERS",
    "PRESETS",
    "Cluster",
    "ClusterSpec",
    "Dragonfly",
    "FatTree",
    "LinkClass",
    "LinkUsage",
    "Paths",
    "Preset",
    "Rail",
    "Router",
    "RoutingError",
    "ServerLinks",
    "TopologyError",
    "dragonfly",
    "fat_tree",
    "from_links",
    "k_ary_fat_tree",
    "preset",
    "rail",
    "read_cluster",
    "to_networkx",
]
