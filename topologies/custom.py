"""Clusters that list their links, in a TOML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from topologies.cards import RAIL_RULES
from topologies.checks import shown, whole
from topologies.errors import TopologyError
from topologies.links import ServerLinks
from topologies.parameters import resolved
from topologies.wiring import Cable, cable, named, wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from topologies.cluster import Cluster

_SERVER_KEYS = ("leaf", "count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links(ServerLinks):
    """Parameters of a cluster that lists its links.

    Attributes
    ----------
    servers
        Tables of ``leaf`` -- the switch that a server's cards are cabled to, or a list of one
        per card -- and ``count``, 1 by default: so many such servers. GPUs are numbered in
        this order.
    links
        Tables of ``a`` and ``b``, two switches, and ``bandwidth_Bps`` or ``part``; ``count``
        (parallel cables), ``latency_s`` and ``class`` (``local`` or ``global``) may be left out.
    rail_rule
        As in `Cluster`.

    Raises
    ------
    TopologyError
        Naming the table and the key that is refused.
    """

    builder: ClassVar[str] = "links"

    servers: Sequence[Mapping[str, Any]]
    links: Sequence[Mapping[str, Any]] = ()
    rail_rule: str = "direct"

    def __post_init__(self) -> None:
        """Refuse tables that are no servers or no cables, and what they do not join."""
        ServerLinks.__post_init__(self)
        for name in ("servers", "links"):
            if not isinstance(getattr(self, name), list | tuple):
                raise TopologyError(
                    f"{name} is {shown(getattr(self, name))}; expected a list of tables"
                )
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.rail_rule not in RAIL_RULES:
            raise TopologyError(
                f"rail_rule is {shown(self.rail_rule)}; allowed: {', '.join(RAIL_RULES)}"
            )
        self.build()  # what is listed here is short, and refused where the file is named

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        said = {"name": name or self.builder, "builder": self.builder, "parameters": resolved(self)}
        return wire(self, self._cards(), self._cables(), rail_rule=self.rail_rule, said=said)

    def _cables(self) -> list[Cable]:
        return [cable(table, where=f"links[{at}]") for at, table in enumerate(self.links)]

    def _cards(self) -> list[str]:
        """Return the switch of every GPU's card."""
        cards: list[str] = []
        for at, table in enumerate(self.servers):
            try:
                leaves, count = self._leaves(table)
            except TopologyError as error:
                raise TopologyError(f"servers[{at}]: {error}") from None
            whole("the number of GPUs", len(cards) + len(leaves) * count, least=1)
            cards += leaves * count
        if not cards:
            raise TopologyError("servers is empty; expected at least one table")
        return cards

    def _leaves(self, table: Any) -> tuple[list[str], int]:
        """Return the switches of a server's cards, and how many such servers there are."""
        if not isinstance(table, dict):
            raise TopologyError(f"is {shown(table)}; expected a table of leaf and count")
        for key in table:
            if key not in _SERVER_KEYS:
                raise TopologyError(f"unknown key {shown(key)}; allowed: {', '.join(_SERVER_KEYS)}")
        count = table.get("count", 1)
        whole("count", count, least=1)
        if not isinstance(table.get("leaf"), list):
            return [named(table, "leaf")] * self.gpus_per_server, count
        leaves = [named({"leaf": each}, "leaf") for each in table["leaf"]]
        if len(leaves) != self.gpus_per_server:
            raise TopologyError(
                f"leaf names {len(leaves)} switches; expected one, or one per card: "
                f"{self.gpus_per_server}"
            )
        return leaves, count
