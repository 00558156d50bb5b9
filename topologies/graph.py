"""A cluster as a networkx graph, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies.cluster import Cluster, LinkClass
from topologies.errors import TopologyError

if TYPE_CHECKING:
    import networkx as nx
    from numpy.typing import NDArray

_OWN = ("nic_up", "nic_down", "nvlink_up", "nvlink_down")
_KINDS = ("gpu", "nvlink", "switch")


def to_networkx(cluster: Cluster) -> nx.MultiDiGraph:
    """Return the cluster with every directed link as an edge keyed by its link number.

    Nodes carry ``kind`` (``gpu``, ``nvlink`` or ``switch``) and ``index`` among their kind,
    switches their ``group`` and NVLink switches the ``rack`` of their server; edges
    ``link_class``, ``bandwidth_Bps``, ``latency_s`` and ``hops`` (0 inside a server). The graph's
    own attributes hold the rest, so that `from_networkx` gives the cluster back, also after
    GraphML has been written and read; costs that were measured are not kept.
    """
    import networkx as nx  # noqa: PLC0415  slow to load, and few need it

    graph = nx.MultiDiGraph(
        name=cluster.name,
        builder=cluster.builder,
        parameters=json.dumps(dict(cluster.parameters)),
        gpus_per_server=cluster.gpus_per_server,
        fewest_global_first=cluster.fewest_global_first,
        rail_rule=cluster.rail_rule,
        notes=json.dumps(list(cluster.notes)),
    )
    more: dict[str, list[dict[str, int]]] = {
        "gpu": [{}] * cluster.gpus,
        "nvlink": [{"rack": rack} for rack in cluster.rack_of_server.tolist()],
        "switch": [{"group": group} for group in cluster.group_of_switch.tolist()],
    }
    start = 0
    for kind, said in more.items():
        graph.add_nodes_from(
            (start + index, {"kind": kind, "index": index, **own}) for index, own in enumerate(said)
        )
        start += len(said)
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


def from_networkx(graph: nx.MultiDiGraph) -> Cluster:
    """Return the cluster that `to_networkx` made the graph of.

    Raises
    ------
    TopologyError
        Naming the node, edge or attribute that is missing or no such thing.
    """
    if not (graph.is_directed() and graph.is_multigraph()):
        raise TopologyError("the graph is no MultiDiGraph; expected one as to_networkx makes it")
    number, counts, said = _nodes(graph)
    links = _links(graph, number)
    about: dict[str, Any] = {
        name: _attribute(graph.graph, name, kind) for name, kind in _ABOUT.items()
    }
    about["parameters"] = _json(about["parameters"], dict)
    about["notes"] = tuple(map(str, _json(about["notes"], list)))
    own = _own_links(links, counts["gpu"])
    first_switch = counts["gpu"] + counts["nvlink"]
    about |= links | own
    about["leaf_of_gpu"] = links["link_dst"][own["nic_up"]] - first_switch
    about |= {"rack_of_server": said["rack"], "group_of_switch": said["group"]}
    return Cluster(name=str(graph.graph.get("name", "graph")), **about)


_ABOUT = {
    "builder": str,
    "parameters": str,
    "gpus_per_server": int,
    "fewest_global_first": bool,
    "rail_rule": str,
    "notes": str,
}


def _attribute(of: dict[str, Any], name: str, kind: type, where: str = "graph") -> Any:
    value = of.get(name)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits:
        raise TopologyError(f"{where}: {name} is {value!r}; expected {kind.__name__}")
    return value


def _json(text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise TopologyError(f"graph: {text[:40]!r} is no JSON {kind.__name__}")
    return value


def _nodes(
    graph: nx.MultiDiGraph,
) -> tuple[dict[Any, int], dict[str, int], dict[str, NDArray[np.int64]]]:
    """Return every node's number, the nodes of each kind, and racks and groups."""
    of_kind: dict[str, dict[int, Any]] = {kind: {} for kind in _KINDS}
    for node, data in graph.nodes(data=True):
        where = f"node {node!r}"
        kind = _attribute(data, "kind", str, where)
        if kind not in of_kind:
            raise TopologyError(f"{where}: kind is {kind!r}; allowed: {', '.join(_KINDS)}")
        index = _attribute(data, "index", int, where)
        if index in of_kind[kind]:
            raise TopologyError(f"{where}: index is {index}, as another {kind}'s")
        of_kind[kind][index] = node
    ordered: list[Any] = []
    for kind, members in of_kind.items():
        if sorted(members) != list(range(len(members))):
            raise TopologyError(f"nodes of kind {kind!r} are not numbered 0 to {len(members) - 1}")
        ordered += [members[index] for index in range(len(members))]
    said = {
        name: np.array(
            [
                _attribute(graph.nodes[of_kind[kind][at]], name, int, f"{kind} {at}")
                for at in range(len(of_kind[kind]))
            ],
            dtype=np.int64,
        )
        for name, kind in (("rack", "nvlink"), ("group", "switch"))
    }
    counts = {kind: len(members) for kind, members in of_kind.items()}
    return {node: at for at, node in enumerate(ordered)}, counts, said


def _links(graph: nx.MultiDiGraph, number: dict[Any, int]) -> dict[str, NDArray[Any]]:
    """Return the arrays [links] of the edges, in the order of their keys."""
    rows: dict[int, tuple[int, int, int, float, float]] = {}
    for src, dst, key, data in graph.edges(keys=True, data=True):
        where = f"edge {src!r} to {dst!r}"
        if not isinstance(key, int) or key in rows:
            raise TopologyError(f"{where}: its key is {key!r}; expected the number of a link, once")
        name = _attribute(data, "link_class", str, where)
        if name not in LinkClass.__members__:
            allowed = ", ".join(LinkClass.__members__)
            raise TopologyError(f"{where}: link_class is {name!r}; allowed: {allowed}")
        rates = [_attribute(data, rate, float, where) for rate in ("bandwidth_Bps", "latency_s")]
        rows[key] = (number[src], number[dst], LinkClass[name], rates[0], rates[1])
    if sorted(rows) != list(range(len(rows))):
        raise TopologyError(f"the keys of edges are not 0 to {len(rows) - 1}")
    columns = list(zip(*(rows[key] for key in range(len(rows))), strict=True)) or [()] * 5
    names = ("link_src", "link_dst", "link_class", "bandwidth_Bps", "latency_s")
    kinds = (np.int64, np.int64, np.int64, np.float64, np.float64)
    return {
        name: np.array(column, dtype=kind)
        for name, column, kind in zip(names, columns, kinds, strict=True)
    }


def _own_links(links: dict[str, NDArray[Any]], gpus: int) -> dict[str, NDArray[np.int64]]:
    """Return which links are the GPUs' own: from each GPU, and to it, of each class."""
    own = {}
    for name in _OWN:
        end = "link_src" if name.endswith("up") else "link_dst"
        kind = LinkClass.HOST if name.startswith("nic") else LinkClass.NVLINK
        found = np.flatnonzero((links["link_class"] == kind) & (links[end] < gpus))
        gpu = links[end][found]
        expected = gpus if kind == LinkClass.HOST or len(found) else 0
        if len(found) != expected or len(np.unique(gpu)) != expected:
            raise TopologyError(
                f"{len(found)} {kind.name} links {'from' if end == 'link_src' else 'to'} "
                f"{len(np.unique(gpu))} GPUs; expected one for each of {gpus}"
            )
        own[name] = found[np.argsort(gpu, kind="stable")]
    return own
