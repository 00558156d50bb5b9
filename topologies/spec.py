"""A cluster by its builder's name and parameters: what files and sweeps hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from topologies.checks import shown
from topologies.custom import Links
from topologies.dragonfly import Dragonfly
from topologies.edge_list import Edges
from topologies.errors import TopologyError
from topologies.fat_tree import FatTree
from topologies.full_mesh import FullMesh
from topologies.graphml import GraphFile
from topologies.leaf_spine import LeafSpine
from topologies.measured import Measured
from topologies.multi_plane import MultiPlane
from topologies.parameters import make, resolved
from topologies.rail import Rail
from topologies.scale_up import ScaleUp
from topologies.slim_fly import SlimFly
from topologies.torus import Torus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from topologies.cluster import Cluster
    from topologies.parameters import Builder

BUILDERS: dict[str, type[Builder]] = {
    kind.builder: kind
    for kind in (
        Dragonfly,
        Edges,
        FatTree,
        FullMesh,
        GraphFile,
        LeafSpine,
        Links,
        Measured,
        MultiPlane,
        Rail,
        ScaleUp,
        SlimFly,
        Torus,
    )
}
"""Parameter class of every builder, by name."""

_KEYS = ("builder", "name", "parameters")


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A named builder with its parameters, checked when made.

    Attributes
    ----------
    builder
        A key of `BUILDERS`.
    parameters
        The builder's parameters; those left out are filled in, so that equal clusters have
        equal specs.
    name
        Of the cluster; the builder's name by default.

    Raises
    ------
    TopologyError
        If the builder or a parameter is unknown, missing or refused.
    """

    builder: str
    parameters: Mapping[str, Any]
    name: str = ""

    def __post_init__(self) -> None:
        """Check builder and parameters, and fill in what was left out."""
        if self.builder not in BUILDERS:
            allowed = ", ".join(sorted(BUILDERS))
            raise TopologyError(f"unknown builder {shown(self.builder)}; allowed: {allowed}")
        object.__setattr__(self, "parameters", resolved(self._make()))
        object.__setattr__(self, "name", self.name or self.builder)

    def _make(self) -> Builder:
        return make(BUILDERS[self.builder], self.parameters)

    def build(self) -> Cluster:
        """Return the cluster."""
        return self._make().build(self.name)

    def to_mapping(self) -> dict[str, Any]:
        """Return what `from_mapping` reads, ready for JSON."""
        return {"builder": self.builder, "name": self.name, "parameters": dict(self.parameters)}

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], *, where: str = "cluster") -> ClusterSpec:
        """Return the spec that a table of a file holds.

        Parameters
        ----------
        data
            ``builder``, ``parameters`` (a table) and, if it is to have one, ``name``.
        where
            Starts every error.

        Raises
        ------
        TopologyError
            If a key is unknown or missing, or of the wrong type, or the spec is refused.
        """
        for key in data:
            if key not in _KEYS:
                raise TopologyError(f"{where}: unknown key {key!r}; allowed: {', '.join(_KEYS)}")
        for key in ("builder", "parameters"):
            if key not in data:
                raise TopologyError(f"{where}: missing key {key!r}")
        for key, kind in (("builder", str), ("name", str), ("parameters", dict)):
            if not isinstance(data.get(key, kind()), kind):
                expected = "a table" if kind is dict else "a string"
                raise TopologyError(f"{where}: {key} is {shown(data[key])}; expected {expected}")
        try:
            return cls(data["builder"], data["parameters"], data.get("name", ""))
        except TopologyError as error:
            raise TopologyError(f"{where}: {error}") from None
