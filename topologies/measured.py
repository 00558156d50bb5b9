"""Clusters known by what was measured between every two ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from topologies.checks import MAX_BANDWIDTH_BPS, MAX_LATENCY_S, MIN_BANDWIDTH_BPS, shown, size
from topologies.errors import TopologyError
from topologies.links import ServerLinks, from_links
from topologies.matrix_file import read_matrix
from topologies.measured_cost import MeasuredCost
from topologies.parameters import resolved
from topologies.source import fingerprint

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from topologies.cluster import Cluster

    Rates = tuple[NDArray[np.float64], NDArray[np.float64], MeasuredCost]

QUANTITIES = ("bandwidth_Bps", "cost", "latency_s")
_MEGABYTE = 1e6
_STEPS = 1000
"""Of plain costs: parts that the least of them is counted in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(ServerLinks):
    """Parameters of a cluster of which a rank-to-rank matrix was measured.

    Placement weighs the matrix itself, as the mean over the ranks of two servers: `latency_s` in
    nanoseconds, `bandwidth_Bps` in nanoseconds per megabyte (averaged so), a plain `cost` in
    thousandths of its least entry between servers. Entries of one server's ranks are not read:
    inside a server links are those of the parameters.

    For simulation every server has a switch, with a cable to every other. Which links of the real
    fabric two pairs share is not in the matrix, so nothing is shared between servers but their
    network cards. A latency becomes the path's, cards included; a bandwidth, taken as that of one
    pair of ranks at a time, the width of a lane per card. What was not measured is as in other
    clusters, and for a plain `cost` that is all: its seconds are not measured.

    Attributes
    ----------
    file
        ``.npy`` or CSV without a header: [ranks, ranks], from the row's rank to the column's;
        rank r is GPU r. The diagonal is not read.
    quantity
        What it holds: ``latency_s``, ``bandwidth_Bps`` or ``cost``.
    sha256
        Of the file's content; found out where it is not given, and refused where it differs.

    Raises
    ------
    TopologyError
        If a number is out of range, or the file cannot be read or has changed.
    """

    builder: ClassVar[str] = "measured"

    file: str
    quantity: str = "cost"
    sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse parameters out of range, and a file that cannot be read or has changed."""
        ServerLinks.__post_init__(self)
        if self.quantity not in QUANTITIES:
            raise TopologyError(
                f"quantity is {shown(self.quantity)}; allowed: {', '.join(QUANTITIES)}"
            )
        object.__setattr__(self, "sha256", fingerprint(self.file, self.sha256))

    def build(self, name: str | None = None) -> Cluster:
        """Read the matrix and return the cluster."""
        fingerprint(self.file, self.sha256)
        matrix = read_matrix(Path(self.file))
        try:
            return self._built(matrix, name)
        except TopologyError as error:
            raise TopologyError(f"{self.file}: {error}") from None

    def _built(self, matrix: NDArray[np.float64], name: str | None) -> Cluster:
        ranks, width = len(matrix), self.gpus_per_server
        if ranks % width:
            raise TopologyError(f"{ranks} ranks do not fill servers of {width} (gpus_per_server)")
        servers = ranks // width
        size(gpus=ranks, gpus_per_server=width, cables=servers * (servers - 1) // 2)
        bandwidth, latency, measured = self._rates(matrix)
        low, high = np.triu_indices(servers, k=1)
        both = [
            np.stack([rate[low, high], rate[high, low]], axis=1) for rate in (bandwidth, latency)
        ]
        return from_links(
            np.stack([low, high], axis=1),
            leaf_of_gpu=np.repeat(np.arange(servers), width),
            servers=self._own_links(),
            bandwidth_Bps=both[0],
            latency_s=both[1],
            group_of_switch=np.zeros(servers, dtype=np.int32),
            measured=measured,
            name=name or self.builder,
            builder=self.builder,
            parameters=resolved(self),
            notes=(f"distances measured, in {measured.unit}",),
        )

    def _own_links(self) -> ServerLinks:
        """Return the links of a server; measured latencies hold those of the cards already."""
        given: dict[str, Any] = {
            name: getattr(self, name) for name in ServerLinks.__dataclass_fields__
        }
        if self.quantity == "latency_s":
            given["host_latency_s"] = 0.0
        return ServerLinks(**given)

    def _rates(self, matrix: NDArray[np.float64]) -> Rates:
        """Return bandwidth and latency [servers, servers] of the cables, and the costs."""
        servers = len(matrix) // self.gpus_per_server
        server = np.arange(len(matrix)) // self.gpus_per_server
        far = server[:, None] != server
        lane = np.full((servers, servers), self.gpus_per_server * self.host_bandwidth_Bps)
        late = np.zeros((servers, servers))
        if self.quantity == "latency_s":
            _within(matrix, far, 0.0, MAX_LATENCY_S)
            late = self._by_server(matrix)
            return lane, late, _cost(late * 1e9, "ns")
        if self.quantity == "bandwidth_Bps":
            _within(matrix, far, MIN_BANDWIDTH_BPS, MAX_BANDWIDTH_BPS)
            inverse = np.zeros_like(matrix)
            inverse[far] = 1.0 / matrix[far]
            seconds = self._by_server(inverse)
            apart = seconds > 0
            lane[apart] = self.gpus_per_server / seconds[apart]
            return lane, late, _cost(seconds * 1e9 * _MEGABYTE, "ns per MB")
        cost = self._by_server(matrix)
        least = cost[cost > 0].min(initial=np.inf)
        if not np.isfinite(least):
            least = 1.0
        return lane, late, _cost(cost / least * _STEPS, f"thousandths of the least ({least:g})")

    def _by_server(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return [servers, servers]: the mean over the ranks of both, 0 inside a server."""
        servers, width = len(matrix) // self.gpus_per_server, self.gpus_per_server
        mean: NDArray[np.float64] = matrix.reshape(servers, width, servers, width).mean(axis=(1, 3))
        np.fill_diagonal(mean, 0.0)
        return mean


def _within(matrix: NDArray[np.float64], far: NDArray[np.bool_], low: float, high: float) -> None:
    bad = far & ~((matrix >= low) & (matrix <= high))
    if bad.any():
        row, column = (int(at) for at in np.argwhere(bad)[0])
        raise TopologyError(
            f"row {row}, column {column}: is {matrix[row, column]:g}; expected a number from "
            f"{low:g} to {high:g} between ranks of different servers"
        )


def _cost(values: NDArray[np.float64], unit: str) -> MeasuredCost:
    """Round costs to whole numbers, as distances are."""
    if values.max(initial=0.0) > 2**53:
        raise TopologyError(
            f"costs of {values.max():g} {unit}; expected at most 2^53, to count them exactly"
        )
    return MeasuredCost(np.rint(values).astype(np.int64), unit)
