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

from topologies.cable_file import CableFile
from topologies.checks import shown
from topologies.errors import TopologyError
from topologies.source import read_text
from topologies.wiring import KEYS, Cable, cable

if TYPE_CHECKING:
    from typing import Any

    from topologies.cluster import Cluster

_NUMBERS = {"count": int, "bandwidth_Bps": float, "latency_s": float}


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges(CableFile):
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
    sha256, rail_rule, nvlink_bandwidth_Bps, nvlink_latency_s
        As in `CableFile`.
    """

    builder: ClassVar[str] = "edges"

    def read(self, name: str) -> Cluster:
        """Read the file and return the cluster."""
        return self.wired(read_rows(read_text(Path(self.file), kind="CSV")), name)


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
