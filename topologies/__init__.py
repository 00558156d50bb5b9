"""What the cluster is: GPUs, switches, links, and the routes between GPUs."""

from topologies.cluster import Cluster, LinkClass
from topologies.dragonfly import Dragonfly, dragonfly
from topologies.errors import RoutingError, TopologyError
from topologies.fat_tree import FatTree, fat_tree, k_ary_fat_tree
from topologies.files import read_cluster
from topologies.full_mesh import FullMesh, full_mesh
from topologies.graph import to_networkx
from topologies.leaf_spine import LeafSpine, leaf_spine
from topologies.links import ServerLinks, from_links
from topologies.multi_plane import MultiPlane, multi_plane
from topologies.parts import PARTS, Part
from topologies.paths import LinkUsage, Paths
from topologies.presets import PRESETS, Preset, preset
from topologies.rail import Rail, rail
from topologies.routing import Router
from topologies.scale_up import ScaleUp, scale_up
from topologies.slim_fly import SlimFly, slim_fly, slim_fly_counts
from topologies.spec import BUILDERS, ClusterSpec
from topologies.torus import Torus, torus

__all__ = [
    "BUILDERS",
    "PARTS",
    "PRESETS",
    "Cluster",
    "ClusterSpec",
    "Dragonfly",
    "FatTree",
    "FullMesh",
    "LeafSpine",
    "LinkClass",
    "LinkUsage",
    "MultiPlane",
    "Part",
    "Paths",
    "Preset",
    "Rail",
    "Router",
    "RoutingError",
    "ScaleUp",
    "ServerLinks",
    "SlimFly",
    "TopologyError",
    "Torus",
    "dragonfly",
    "fat_tree",
    "from_links",
    "full_mesh",
    "k_ary_fat_tree",
    "leaf_spine",
    "multi_plane",
    "preset",
    "rail",
    "read_cluster",
    "scale_up",
    "slim_fly",
    "slim_fly_counts",
    "to_networkx",
    "torus",
]
