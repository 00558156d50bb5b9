"""Clusters from a table of cables: an edge list as CSV.

.. code-block:: text

    a,b,class,count,part
    server-1,leaf-1,host,8,ndr
    server-2,leaf-1,host,8,ndr
    leaf-1,spine-1,global,2,xdr
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from topologies.checks import shown, whole
from topologies.errors import TopologyError
from topologies.links import NVLINK_BANDWIDTH_BPS, NVLINK_LATENCY_S, ServerLinks
from topologies.parameters import resolved
from topologies.source import fingerprint, read_text
from topologies.wiring import CLASSES, KEYS, Cable, cable, wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from topologies.cluster import Cluster

_NUMBERS = {"count": int, "bandwidth_Bps": float, "latency_s": float}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Parameters of a cluster whose cables stand in a CSV file.

    The columns are ``a`` and ``b``, the ends, and ``part`` or ``bandwidth_Bps``; ``class``
    (``local`` by default, ``global`` or ``host``), ``count`` and ``latency_s`` may be left out,
    or empty. A ``host`` row cables `count` network cards of server `a` to switch `b`; a server
    of several rows has its cards in their order. All servers have the same number of cards, and
    all cards the same rates; servers are numbered as they appear.

    Attributes
    ----------
    file
        The CSV file.
    sha256
        Of its content; found out where it is not given, and refused where it differs.
    rail_rule
        As in `Cluster`.
    nvlink_bandwidth_Bps, nvlink_latency_s
        As in `ServerLinks`.
    """

    builder: ClassVar[str] = "edges"

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
        """Read the file and return the cluster."""
        fingerprint(self.file, self.sha256)
        said = {"name": name or self.builder, "builder": self.builder, "parameters": resolved(self)}
        try:
            rows = read_rows(read_text(Path(self.file), kind="CSV"))
            cards, rates, cables = split_rows(rows)
            servers = self._links(rates)
            return wire(servers, cards, cables, rail_rule=self.rail_rule, said=said)
        except TopologyError as error:
            raise TopologyError(f"{self.file}: {error}") from None

    def _links(self, of_cards: dict[str, Any]) -> ServerLinks:
        return ServerLinks(
            nvlink_bandwidth_Bps=self.nvlink_bandwidth_Bps,
            nvlink_latency_s=self.nvlink_latency_s,
            **of_cards,
        )


def read_rows(text: str) -> list[Cable]:
    """Return the rows of an edge list.

    Raises
    ------
    TopologyError
        Naming the row, counted from 1 with the header, and the column.
    """
    reader = csv.reader(StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in header:
            if name not in KEYS or header.count(name) > 1:
                raise TopologyError(f"row 1: column {shown(name)}; allowed once: {', '.join(KEYS)}")
        rows = []
        for cells in reader:
            where = f"row {reader.line_num}"
            if len(cells) > 0 and len(cells) != len(header):
                raise TopologyError(f"{where}: has {len(cells)} cells; expected {len(header)}")
            if cells:
                filled = dict(zip(header, (cell.strip() for cell in cells), strict=True))
                table = {name: _value(name, cell, where) for name, cell in filled.items() if cell}
                rows.append(cable(table, where=where, classes=("local", "global", "host")))
    except csv.Error as error:
        raise TopologyError(f"row {reader.line_num}: is no CSV: {error}") from None
    return rows


def _value(name: str, cell: str, where: str) -> Any:
    if name not in _NUMBERS:
        return cell
    try:
        return _NUMBERS[name](cell)
    except ValueError:
        raise TopologyError(f"{where}: {name} is {shown(cell)}; expected a number") from None


def split_rows(rows: Sequence[Cable]) -> tuple[list[str], dict[str, Any], list[Cable]]:
    """Return the switch of every card, what `ServerLinks` takes of the cards, and the cables.

    Raises
    ------
    TopologyError
        If there is no server, servers differ in cards, cards in rates, or a server is a switch.
    """
    of_server: dict[str, list[str]] = {}
    host = [row for row in rows if row.link_class == CLASSES["host"]]
    cables = [row for row in rows if row.link_class != CLASSES["host"]]
    if not host:
        raise TopologyError("no row has the class 'host'; expected servers with network cards")
    whole("the number of cards", sum(row.count for row in host), least=1)
    switches = {end for row in cables for end in (row.a, row.b)} | {row.b for row in host}
    for row in host:
        of_server.setdefault(row.a, []).extend([row.b] * row.count)
        if row.a in switches:
            raise TopologyError(f"{row.where}: {row.a!r} is a switch too; expected a server")
        if (row.bandwidth_Bps, row.latency_s) != (host[0].bandwidth_Bps, host[0].latency_s):
            raise TopologyError(
                f"{row.where}: cards of {row.bandwidth_Bps:g} B/s and {row.latency_s:g} s; "
                f"expected those of {host[0].where}: {host[0].bandwidth_Bps:g} B/s and "
                f"{host[0].latency_s:g} s"
            )
    width = len(of_server[host[0].a])
    for name, cards in of_server.items():
        if len(cards) != width:
            raise TopologyError(
                f"server {name!r} has {len(cards)} cards; expected {width}, as {host[0].a!r} has"
            )
    rates = {
        "gpus_per_server": width,
        "host_bandwidth_Bps": host[0].bandwidth_Bps,
        "host_latency_s": host[0].latency_s,
    }
    return [leaf for cards in of_server.values() for leaf in cards], rates, cables
