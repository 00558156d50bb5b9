"""What clusters have in common whose cables stand in a file of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from topologies.checks import whole
from topologies.errors import TopologyError
from topologies.links import NVLINK_BANDWIDTH_BPS, NVLINK_LATENCY_S, ServerLinks
from topologies.parameters import resolved
from topologies.source import fingerprint
from topologies.wiring import CLASSES, Cable, wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class CableFile:
    """Parameters of a cluster whose cables stand in a file.

    Attributes
    ----------
    file
        The file.
    sha256
        Of its content; found out where it is not given, and refused where it differs.
    rail_rule
        As in `Cluster`.
    nvlink_bandwidth_Bps, nvlink_latency_s
        As in `ServerLinks`.
    """

    builder: ClassVar[str]

    file: str
    sha256: str | None = None
    rail_rule: str = "direct"
    nvlink_bandwidth_Bps: float = NVLINK_BANDWIDTH_BPS  # noqa: N815  bytes per second
    nvlink_latency_s: float = NVLINK_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse rates out of range, and a file that cannot be read or has changed."""
        self._servers({})
        object.__setattr__(self, "sha256", fingerprint(self.file, self.sha256))

    def build(self, name: str | None = None) -> Cluster:
        """Read the file and return the cluster."""
        fingerprint(self.file, self.sha256)
        try:
            return self.read(name or self.builder)
        except TopologyError as error:
            raise TopologyError(f"{self.file}: {error}") from None

    def read(self, name: str) -> Cluster:
        """Return the cluster; errors are without the file's name."""
        raise NotImplementedError

    def wired(self, rows: Sequence[Cable], name: str) -> Cluster:
        """Return the cluster of these cables, the network cards' included."""
        cards, rates, cables = split_rows(rows)
        said = {"name": name, "builder": self.builder, "parameters": resolved(self)}
        return wire(self._servers(rates), cards, cables, rail_rule=self.rail_rule, said=said)

    def _servers(self, of_cards: dict[str, Any]) -> ServerLinks:
        return ServerLinks(
            nvlink_bandwidth_Bps=self.nvlink_bandwidth_Bps,
            nvlink_latency_s=self.nvlink_latency_s,
            **of_cards,
        )


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
