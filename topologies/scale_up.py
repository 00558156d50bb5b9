"""Scale-up domains such as NVL72: many GPUs on one NVLink fabric, a network behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from topologies.checks import whole
from topologies.errors import TopologyError
from topologies.links import NVLINK_LATENCY_S, ServerLinks
from topologies.parameters import make
from topologies.rails import RailLinks, RailShape

if TYPE_CHECKING:
    from topologies.cluster import Cluster

NVLINK5_BANDWIDTH_BPS = 900e9
"""NVLink 5: 1800 GB/s both ways."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp(RailLinks):
    """Parameters of scale-up domains with a scale-out network behind them.

    A domain -- the 72 GPUs of a GB200 NVL72 rack -- is one *server* everywhere in topomoe: every
    two of its GPUs talk over NVLink at zero hops. Its compute trays (18 of 4 GPUs) are no level
    of their own; they show in the rails: every GPU has a network card, and card i of a tray,
    which is card i of every `rails` in the domain, is on rail i. Domains come in groups with a
    leaf per rail; every leaf is cabled to every spine.

    Attributes
    ----------
    domains
        Scale-up domains.
    gpus_per_server
        GPUs, and cards, of a domain; 72 by default.
    rails
        Cards of a tray, 4 by default: a divisor of `gpus_per_server`. 1 puts all cards of a
        group on one leaf.
    domains_per_group
        Domains that share leaves; 1 by default.
    spines
        Spines that a leaf is cabled to; 0 makes rails without spines, of one group.
    nvlink_bandwidth_Bps
        NVLink 5 by default.
    rail_rule, oversubscription, cable_latency_s
        As in `RailLinks`.

    Raises
    ------
    TopologyError
        If a number is out of range, or rails or groups do not divide.
    """

    builder: ClassVar[str] = "scale-up"

    domains: int
    spines: int
    gpus_per_server: int = 72
    rails: int = 4
    domains_per_group: int = 1
    nvlink_bandwidth_Bps: float = NVLINK5_BANDWIDTH_BPS  # noqa: N815  bytes per second
    nvlink_latency_s: float = NVLINK_LATENCY_S

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and what does not divide."""
        ServerLinks.__post_init__(self)
        whole("gpus_per_server", self.gpus_per_server, least=2)
        for name in ("domains", "rails", "domains_per_group"):
            whole(name, getattr(self, name), least=1)
        for name, number, of in (
            ("rails", self.gpus_per_server, "GPUs of a domain"),
            ("domains_per_group", self.domains, "domains"),
        ):
            if number % getattr(self, name):
                raise TopologyError(
                    f"{name} is {getattr(self, name)}; expected a divisor of the {number} {of}"
                )
        whole("spines", self.spines, least=0 if self._shape.groups == 1 else 1)
        self.check_rails(self._shape)

    @property
    def _shape(self) -> RailShape:
        groups, size = self.domains // self.domains_per_group, self.domains_per_group
        return RailShape(groups, size, self.rails, self.spines, planes=False)

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        return self.build_rails(self._shape, name)


def scale_up(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build scale-up domains from the parameters of `ScaleUp`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> scale_up(domains=4, spines=2, name="nv")
    <Cluster 'nv' (scale-up): 288 GPUs in 4 servers of 72, 18 switches, 32 cables between switches>
    """
    return make(ScaleUp, parameters).build(name)
