"""Tori and grids of two, three or any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.checks import shown, whole
from topologies.direct import DirectLinks
from topologies.errors import TopologyError
from topologies.links import ServerLinks
from topologies.parameters import make

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster

MAX_AXES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Torus(DirectLinks):
    """Parameters of a torus: switches at the points of a grid, cabled to their neighbours.

    The two ends of an axis are neighbours, too, unless `wrap` is false. An axis of two has one
    cable between its ends, not two. Switches are numbered row by row, the last axis fastest.
    Routes take any shortest path: no rule here goes axis by axis.

    Attributes
    ----------
    dims
        Switches along every axis, at least 2 each: ``[8, 8]``, ``[4, 4, 4]``.
    servers_per_switch
        1 by default; with one GPU a server, a switch is the router of a GPU.
    wrap
        False makes a grid.
    cable_bandwidth_Bps, cable_latency_s
        As in `DirectLinks`.

    Raises
    ------
    TopologyError
        If a number is out of range.
    """

    builder: ClassVar[str] = "torus"

    dims: Sequence[int]
    servers_per_switch: int = 1
    wrap: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        ServerLinks.__post_init__(self)
        listed = isinstance(self.dims, Sequence) and not isinstance(self.dims, str)
        if not listed or not 1 <= len(self.dims) <= MAX_AXES:
            raise TopologyError(
                f"dims is {shown(self.dims)}; expected a list of 1 to {MAX_AXES} whole numbers"
            )
        object.__setattr__(self, "dims", tuple(self.dims))
        for at, length in enumerate(self.dims):
            whole(f"dims[{at}]", length, least=2)
        whole("servers_per_switch", self.servers_per_switch, least=1)
        if not isinstance(self.wrap, bool):
            raise TopologyError(f"wrap is {shown(self.wrap)}; expected true or false")
        self.check_direct(
            switches=self.switches,
            servers_per_switch=self.servers_per_switch,
            cables=sum(self.switches // n * self._steps(n) for n in self.dims),
        )

    @property
    def switches(self) -> int:
        """Switches in all."""
        return prod(self.dims)

    def _steps(self, length: int) -> int:
        """Cables along a line of that many switches."""
        return length if self.wrap and length > 2 else length - 1

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        at = np.arange(self.switches).reshape(self.dims)
        return self.build_direct(
            np.concatenate([self._along(at, axis) for axis in range(at.ndim)]),
            name,
            servers_per_switch=self.servers_per_switch,
            group_of_switch=np.zeros(self.switches, dtype=np.int32),
        )

    def _along(self, at: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        """Return int64 [cables, 2]: the cables along an axis."""
        there = np.roll(at, -1, axis)
        kept = np.arange(self._steps(at.shape[axis]))
        ends = [np.take(side, kept, axis).ravel() for side in (at, there)]
        return np.stack(ends, axis=1)


def torus(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a torus from the parameters of `Torus`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> torus(dims=[4, 4], name="2d")
    <Cluster '2d' (torus): 128 GPUs in 16 servers of 8, 16 switches, 32 cables between switches>
    """
    return make(Torus, parameters).build(name)
