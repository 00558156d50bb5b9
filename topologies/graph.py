"""A cluster as a networkx graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topologies.cluster import LinkClass

if TYPE_CHECKING:
    import networkx as nx

    from topologies.cluster import Cluster


def to_networkx(cluster: Cluster) -> nx.MultiDiGraph:
    """Return the cluster with every directed link as an edge keyed by its link number.

    Nodes carry ``kind`` (``gpu``, ``nvlink`` or ``switch``) and ``index`` among their kind;
    edges ``link_class``, ``bandwidth_Bps``, ``latency_s`` and ``hops`` (0 inside a server).
    """
    import networkx as nx  # noqa: PLC0415  slow to load, and few need it

    graph = nx.MultiDiGraph(name=cluster.name)
    start = 0
    for kind, count in (
        ("gpu", cluster.gpus),
        ("nvlink", cluster.servers),
        ("switch", cluster.switches),
    ):
        graph.add_nodes_from(
            (start + index, {"kind": kind, "index": index}) for index in range(count)
        )
        start += count
    columns = (cluster.link_src, cluster.link_dst, cluster.link_class)
    rates = (cluster.bandwidth_Bps, cluster.latency_s, cluster.hop_weight)
    rows = zip(*(column.tolist() for column in columns + rates), strict=True)
    for link, (src, dst, link_class, bandwidth, latency, hops) in enumerate(rows):
        graph.add_edge(
            src,
            dst,
            key=link,
            link_class=LinkClass(link_class).name,
            bandwidth_Bps=bandwidth,
            latency_s=latency,
            hops=hops,
        )
    return graph
