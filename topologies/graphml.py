"""Clusters from GraphML: as `to_networkx` and networkx write them, or drawn by hand.

A graph drawn by hand is undirected. Its nodes have a ``kind``, ``server`` or ``switch``; its edges
have the columns of an edge list but the ends (``part`` or ``bandwidth_Bps``, ``count``,
``latency_s``, ``class``), and one that ends at a server is of its network cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from warnings import catch_warnings, simplefilter

from topologies.checks import shown
from topologies.edge_list import split_rows
from topologies.errors import TopologyError
from topologies.graph import from_networkx
from topologies.links import NVLINK_BANDWIDTH_BPS, NVLINK_LATENCY_S, ServerLinks
from topologies.parameters import resolved
from topologies.source import fingerprint, read_bytes
from topologies.wiring import Cable, cable, wire

if TYPE_CHECKING:
    import networkx as nx

    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile:
    """Parameters of a cluster whose links stand in a GraphML file.

    Attributes
    ----------
    file
        The GraphML file.
    sha256
        Of its content; found out where it is not given, and refused where it differs.
    rail_rule, nvlink_bandwidth_Bps, nvlink_latency_s
        As in `Edges`, for graphs drawn by hand; a graph of `to_networkx` brings its own.
    """

    builder: ClassVar[str] = "graphml"

    file: str
    sha256: str | None = None
    rail_rule: str = "direct"
    nvlink_bandwidth_Bps: float = NVLINK_BANDWIDTH_BPS  # noqa: N815  bytes per second
    nvlink_latency_s: float = NVLINK_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse rates out of range, and a file that cannot be read or has changed."""
        self._links({})
        object.__setattr__(self, "sha256", fingerprint(self.file, self.sha256))

    def build(self, name: str | None = None) -> Cluster:
        """Read the file and return the cluster; one of `to_networkx` keeps its name."""
        fingerprint(self.file, self.sha256)
        try:
            graph = read_graphml(Path(self.file))
            if graph.is_directed():
                return from_networkx(graph)
            said = {"name": name or self.builder, "builder": self.builder}
            cards, rates, cables = split_rows(_rows(graph))
            return wire(
                self._links(rates),
                cards,
                cables,
                rail_rule=self.rail_rule,
                said=said | {"parameters": resolved(self)},
            )
        except TopologyError as error:
            raise TopologyError(f"{self.file}: {error}") from None

    def _links(self, of_cards: dict[str, Any]) -> ServerLinks:
        return ServerLinks(
            nvlink_bandwidth_Bps=self.nvlink_bandwidth_Bps,
            nvlink_latency_s=self.nvlink_latency_s,
            **of_cards,
        )


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
