"""Clusters from GraphML: as `to_networkx` and networkx write them, or drawn by hand.

A graph drawn by hand is undirected. Its nodes have a ``kind``, ``server`` or ``switch``; its edges
have the columns of an edge list but the ends (``part`` or ``bandwidth_Bps``, ``count``,
``latency_s``, ``class``), and one that ends at a server is of its network cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from warnings import catch_warnings, simplefilter

from topologies.cable_file import CableFile
from topologies.checks import shown
from topologies.errors import TopologyError
from topologies.graph import from_networkx
from topologies.source import read_bytes
from topologies.wiring import Cable, cable

if TYPE_CHECKING:
    import networkx as nx

    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile(CableFile):
    """Parameters of a cluster whose links stand in a GraphML file.

    Attributes
    ----------
    file
        The GraphML file.
    sha256, rail_rule, nvlink_bandwidth_Bps, nvlink_latency_s
        As in `CableFile`; the last three for graphs drawn by hand, for one of `to_networkx` brings
        its own.
    """

    builder: ClassVar[str] = "graphml"

    def read(self, name: str) -> Cluster:
        """Read the file and return the cluster; one of `to_networkx` keeps its name."""
        graph = read_graphml(Path(self.file))
        return from_networkx(graph) if graph.is_directed() else self.wired(_rows(graph), name)


def read_graphml(path: Path) -> nx.MultiGraph:
    """Return the graph of a GraphML file, edge keys as numbers where it is directed.

    Raises
    ------
    TopologyError
        If it cannot be read, is no GraphML, or brings definitions of its own.
    """
    import networkx as nx  # noqa: PLC0415  slow to load, and few need it

    content = read_bytes(path)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise TopologyError("holds a document type; expected plain GraphML")
    try:
        directed = b'edgedefault="directed"' in content
        key = int if directed else str
        with catch_warnings():
            simplefilter("error")  # of a type that networkx would have to guess
            return nx.read_graphml(BytesIO(content), edge_key_type=key, force_multigraph=True)
    except (
        # What networkx and its XML parser raise of bad files, which no class of theirs covers.
        nx.NetworkXError,
        ArithmeticError,
        AttributeError,
        LookupError,
        NameError,
        RecursionError,
        SyntaxError,
        TypeError,
        ValueError,
        Warning,
    ) as error:
        said = " ".join(str(error).split())
        raise TopologyError(f"is no GraphML: {shown(said or type(error).__name__)}") from None


def _rows(graph: nx.MultiGraph) -> list[Cable]:
    """Return the edges of a graph drawn by hand, those of servers by the order of these."""
    kinds = {}
    for node, data in graph.nodes(data=True):
        kinds[node] = data.get("kind")
        if kinds[node] not in ("server", "switch"):
            raise TopologyError(
                f"node {shown(node)}: kind is {shown(kinds[node])}; allowed: server, switch"
            )
    place = {str(node): at for at, node in enumerate(graph.nodes)}
    rows = []
    for a, b, data in graph.edges(data=True):
        where = f"edge {shown(a)} to {shown(b)}"
        servers = [node for node in (a, b) if kinds[node] == "server"]
        if len(servers) == 2:
            raise TopologyError(f"{where}: joins two servers; expected a switch")
        ends = (a, b) if kinds[b] != "server" else (b, a)
        table = {name: value for name, value in data.items() if name != "id"}
        table |= {"a": str(ends[0]), "b": str(ends[1])}
        table |= {"class": "host"} if servers else {}
        rows.append(cable(table, where=where, classes=("local", "global", "host")))
    return sorted(rows, key=lambda row: place[row.a])
