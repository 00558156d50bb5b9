"""What the cluster is: GPUs, switches, links, and the routes between GPUs."""

from topologies.cluster import Cluster, LinkClass
from topologies.custom import Links
from topologies.dragonfly import Dragonfly, dragonfly
from topologies.edge_list import Edges
from topologies.errors import RoutingError, TopologyError
from topologies.fat_tree import FatTree, fat_tree, k_ary_fat_tree
from topologies.files import read_cluster
from topologies.full_mesh import FullMesh, full_mesh
from topologies.graph import from_networkx, to_networkx
from topologies.graphml import GraphFile
from topologies.leaf_spine import LeafSpine, leaf_spine
from topologies.links import ServerLinks, from_links
from topologies.measured import Measured
from topologies.measured_cost import MeasuredCost
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
    "Edges",
    "FatTree",
    "FullMesh",
    "GraphFile",
    "LeafSpine",
    "LinkClass",
    "LinkUsage",
    "Links",
    "Measured",
    "MeasuredCost",
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
    "from_networkx",
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
