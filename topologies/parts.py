"""Link parts by name, so that a cluster file may say ``host = "ndr"`` instead of numbers.

Rates are per direction: vendors quote NVLink both ways and networks in bits. Latencies are halves
and differences of end-to-end times of small messages, measured in DeepSeek-V3 (ISCA'25), table 5:
NVLink 3.33 us; under one leaf 2.8 us on InfiniBand, 3.6 us on RoCE; across leaves 3.7 and 5.6 us.
Nothing of the kind is published for newer parts, which take those of the generation measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from topologies.checks import shown
from topologies.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Kind = Literal["nvlink", "network"]


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of link that can be bought.

    Attributes
    ----------
    name, kind
        ``nvlink`` parts join GPUs inside a server, ``network`` parts everything else.
    bandwidth_Bps
        Of each direction.
    latency_s
        Of a GPU's own link: half of a small message's time under one switch.
    cable_latency_s
        Of a cable between switches; None for NVLink.
    about, source
        The vendor's figure, and where it and the latencies are from.
    """

    name: str
    kind: Kind
    bandwidth_Bps: float  # noqa: N815  bytes per second
    latency_s: float
    cable_latency_s: float | None
    about: str
    source: str


_ISCA = "latency: DeepSeek-V3 (ISCA'25), table 5"
_AS_NVLINK = f"{_ISCA}, an H800's"
_AS_NDR = f"{_ISCA}, InfiniBand NDR's"
_AS_ROCE = f"{_ISCA}, RoCE's at 400 Gb/s"


def _nvlink(name: str, bandwidth_gb: float, about: str, source: str) -> Part:
    return Part(
        name, "nvlink", bandwidth_gb * 1e9, 1.665e-6, None, about, f"{source}; {_AS_NVLINK}"
    )


def _infiniband(name: str, bandwidth_gb: float, about: str, source: str) -> Part:
    return Part(name, "network", bandwidth_gb * 1e9, 1.4e-6, 0.45e-6, about, source)


def _ethernet(name: str, bandwidth_gb: float, about: str, source: str) -> Part:
    return Part(name, "network", bandwidth_gb * 1e9, 1.8e-6, 1e-6, about, f"{source}; {_AS_ROCE}")


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        _nvlink("nvlink3", 300, "600 GB/s both ways (A100)", "NVIDIA A100 data sheet"),
        _nvlink("nvlink4", 450, "900 GB/s both ways (H100, H200)", "NVIDIA H100 data sheet"),
        _nvlink("nvlink4-h800", 200, "400 GB/s both ways (H800)", "DeepSeek-V3 (ISCA'25)"),
        _nvlink("nvlink5", 900, "1800 GB/s both ways (B200, GB200)", "NVIDIA GB200 NVL72 page"),
        _infiniband("hdr", 25, "InfiniBand HDR, 200 Gb/s", f"NVIDIA ConnectX-6; {_AS_NDR}"),
        _infiniband("ndr", 50, "InfiniBand NDR, 400 Gb/s", f"NVIDIA ConnectX-7; {_ISCA}"),
        _infiniband("xdr", 100, "InfiniBand XDR, 800 Gb/s", f"NVIDIA ConnectX-8; {_AS_NDR}"),
        _ethernet("200gbe", 25, "Ethernet, 200 Gb/s", "IEEE 802.3bs"),
        _ethernet("400gbe", 50, "Ethernet, 400 Gb/s", "IEEE 802.3bs"),
        _ethernet("800gbe", 100, "Ethernet, 800 Gb/s", "IEEE 802.3df"),
    )
}
"""Every part by name."""

_PLACES: dict[str, tuple[Kind, dict[str, str]]] = {
    "host": ("network", {"host_bandwidth_Bps": "bandwidth_Bps", "host_latency_s": "latency_s"}),
    "nvlink": (
        "nvlink",
        {"nvlink_bandwidth_Bps": "bandwidth_Bps", "nvlink_latency_s": "latency_s"},
    ),
    "cable": (
        "network",
        {
            "cable_bandwidth_Bps": "bandwidth_Bps",
            "local_bandwidth_Bps": "bandwidth_Bps",
            "global_bandwidth_Bps": "bandwidth_Bps",
            "cable_latency_s": "cable_latency_s",
        },
    ),
}
PLACES = tuple(_PLACES)
"""Where a cluster's parameters may name a part: network cards, NVLink, cables of switches."""


def part(name: Any, kind: Kind, *, where: str) -> Part:
    """Return the part of that name and kind.

    Raises
    ------
    TopologyError
        Naming the place, what stands there and the parts that fit.
    """
    found = PARTS.get(name) if isinstance(name, str) else None
    if found is None or found.kind != kind:
        allowed = ", ".join(each.name for each in PARTS.values() if each.kind == kind)
        raise TopologyError(f"{where} is {shown(name)}; allowed: {allowed}")
    return found


def with_parts(parameters: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the parameters with the names of parts resolved to numbers.

    A number that is given beside a part's name stands. On trees ``cable`` gives the latency
    alone, as the widths of their trunks follow from the oversubscription.

    Parameters
    ----------
    parameters
        Of a builder, some of `PLACES` among them.
    known
        Parameters that the builder has.

    Raises
    ------
    TopologyError
        If a part is unknown or of the wrong kind.
    """
    given = {name: value for name, value in parameters.items() if name not in _PLACES}
    for place, (kind, columns) in _PLACES.items():
        if place in parameters and place not in known:
            chosen = part(parameters[place], kind, where=place)
            numbers = {to: getattr(chosen, of) for to, of in columns.items() if to in known}
            given = numbers | given
    return given
