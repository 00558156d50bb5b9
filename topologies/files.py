"""Cluster files: TOML that names a builder and its parameters.

.. code-block:: toml

    name = "two pods"
    builder = "fat-tree"

    [parameters]
    pods = 2
    leaves_per_pod = 4
    servers_per_leaf = 4
    aggregations_per_pod = 4
    cores_per_aggregation = 4
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from topologies.errors import TopologyError
from topologies.spec import ClusterSpec

if TYPE_CHECKING:
    from os import PathLike


def read_cluster(path: str | PathLike[str]) -> ClusterSpec:
    """Read a cluster file; a cluster without a name takes the file's.

    Raises
    ------
    TopologyError
        In one line that starts with the file's name: if the file cannot be read, is no TOML,
        or holds a key, builder or parameter that is unknown, missing or refused.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TopologyError(f"{path}: is not UTF-8 text; expected a TOML file") from None
    except RecursionError:
        raise TopologyError(f"{path}: is not TOML: nested too deeply") from None
    except ValueError as error:
        # Bad TOML, a number of thousands of digits, a NUL in the path.
        raise TopologyError(f"{path}: is not TOML: {error}") from None
    return ClusterSpec.from_mapping({"name": path.stem} | data, where=str(path))
