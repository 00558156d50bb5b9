"""Cluster files: TOML that names a builder and its parameters, or lists its links.

.. code-block:: toml

    name = "two pods"
    builder = "fat-tree"

    [parameters]
    pods = 2
    leaves_per_pod = 4
    servers_per_leaf = 4
    aggregations_per_pod = 4
    cores_per_aggregation = 4
    host = "ndr"

.. code-block:: toml

    name = "two racks"

    [parameters]
    nvlink = "nvlink5"

    [[servers]]
    leaf = "leaf-1"
    count = 4

    [[servers]]
    leaf = "leaf-2"
    count = 4

    [[links]]
    a = "leaf-1"
    b = "leaf-2"
    count = 8
    part = "xdr"

Edge lists and matrices (CSV), GraphML and matrices of NumPy are clusters, too, with the parameters
of their builder as they are by default; a TOML file that names builder and ``file`` sets others.
"""

from __future__ import annotations

import csv
import tomllib
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topologies.errors import TopologyError
from topologies.matrix_file import is_number
from topologies.source import read_text
from topologies.spec import ClusterSpec

if TYPE_CHECKING:
    from os import PathLike

SUFFIXES = (".toml", ".csv", ".graphml", ".npy")
"""Endings of cluster files."""

_LISTS = ("servers", "links")


def read_cluster(path: str | PathLike[str]) -> ClusterSpec:
    """Read a cluster file; a cluster without a name takes the file's.

    A CSV file that begins with numbers is a matrix, any other an edge list. Files that a TOML
    file names are looked for beside it.

    Raises
    ------
    TopologyError
        In one line that starts with the file's name: if the file cannot be read, is no TOML,
        or holds a key, builder or parameter that is unknown, missing or refused.
    """
    path = Path(path)
    if path.suffix in SUFFIXES[1:]:
        try:
            return ClusterSpec(_builder(path), {"file": str(path)}, path.stem)
        except TopologyError as error:
            # Errors of the file itself come behind its builder's name.
            said = str(error).split(f"{path}: ", 1)[-1]
            raise TopologyError(f"{path}: {said}") from None
    try:
        data = tomllib.loads(read_text(path, kind="a TOML file"))
    except RecursionError:
        raise TopologyError(f"{path}: is not TOML: nested too deeply") from None
    except TopologyError:
        raise
    except ValueError as error:
        # Bad TOML, or a number of thousands of digits.
        raise TopologyError(f"{path}: is not TOML: {error}") from None
    return ClusterSpec.from_mapping({"name": path.stem} | _arranged(data, path), where=str(path))


def _builder(path: Path) -> str:
    """Return the builder that a file without one is meant for."""
    if path.suffix == ".csv":
        start = StringIO(read_text(path, kind="CSV")[: 1 << 16])
        try:
            first = next((cells for cells in csv.reader(start) if cells), [])
        except csv.Error:
            return "edges"
        return "measured" if any(is_number(cell) for cell in first) else "edges"
    return {".graphml": "graphml", ".npy": "measured"}[path.suffix]


def _arranged(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Move lists of servers and links to the parameters, and find the file that these name."""
    listed = {name: data[name] for name in _LISTS if name in data}
    rest = {name: value for name, value in data.items() if name not in listed}
    parameters = rest.get("parameters", {})
    if listed:
        rest = {"builder": "links", "parameters": parameters} | rest
        if isinstance(parameters, dict):
            rest["parameters"] = parameters | listed
    elif isinstance(parameters, dict) and isinstance(parameters.get("file"), str):
        rest["parameters"] = parameters | {"file": str(path.parent / parameters["file"])}
    return rest
