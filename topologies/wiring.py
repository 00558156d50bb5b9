"""From cables between named switches to a cluster: what custom clusters end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies.checks import bandwidth, latency, shown, size, whole
from topologies.cluster import LinkClass
from topologies.errors import TopologyError
from topologies.links import CABLE_LATENCY_S, HOST_LATENCY_S, ServerLinks, from_links
from topologies.parts import part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from topologies.cluster import Cluster

KEYS = ("a", "b", "count", "part", "bandwidth_Bps", "latency_s", "class")
"""What may be said of a cable."""

CLASSES = {"host": LinkClass.HOST, "local": LinkClass.LOCAL, "global": LinkClass.GLOBAL}


@dataclass(frozen=True, slots=True)
class Cable:
    """Cables alike between two named ends.

    Attributes
    ----------
    where
        Starts errors that are about it.
    a, b
        Switches; of a ``host`` cable a server and its leaf.
    count
        Parallel cables; of a ``host`` cable network cards.
    bandwidth_Bps, latency_s
        Of each direction of one of them.
    link_class
        HOST, LOCAL or GLOBAL.
    """

    where: str
    a: str
    b: str
    count: int
    bandwidth_Bps: float  # noqa: N815  bytes per second
    latency_s: float
    link_class: LinkClass


def cable(table: Any, *, where: str, classes: Sequence[str] = ("local", "global")) -> Cable:
    """Return the cable that a table of `KEYS` describes.

    ``a`` and ``b`` have to be there, and ``bandwidth_Bps`` or a ``part``; ``latency_s`` is the
    part's by default, or that of NDR InfiniBand, ``count`` 1 and ``class`` the first of
    `classes`.

    Raises
    ------
    TopologyError
        Starting with `where`: if a key is unknown or missing, or a value is refused.
    """
    try:
        return _cable(table, where, classes)
    except TopologyError as error:
        raise TopologyError(f"{where}: {error}") from None


def _cable(table: Any, where: str, classes: Sequence[str]) -> Cable:
    if not isinstance(table, dict):
        raise TopologyError(f"is {shown(table)}; expected a table of {', '.join(KEYS)}")
    for key in table:
        if key not in KEYS:
            raise TopologyError(f"unknown key {shown(key)}; allowed: {', '.join(KEYS)}")
    a, b = named(table, "a"), named(table, "b")
    if a == b:
        raise TopologyError(f"joins {a!r} to itself; expected two ends")
    kind = table.get("class", classes[0])
    if not isinstance(kind, str) or kind not in classes:
        raise TopologyError(f"class is {shown(kind)}; allowed: {', '.join(classes)}")
    count = table.get("count", 1)
    whole("count", count, least=1)
    rates = _rates(table, host=kind == "host")
    return Cable(where, a, b, count, *rates, CLASSES[kind])


def named(table: Mapping[str, Any], key: str) -> str:
    """Return the name that stands under a key.

    Raises
    ------
    TopologyError
        If there is none, or something else.
    """
    if key not in table:
        raise TopologyError(f"missing key {key!r}")
    name = table[key]
    if not isinstance(name, str) or not name:
        raise TopologyError(f"{key} is {shown(name)}; expected a name")
    return name


def _rates(table: Mapping[str, Any], *, host: bool) -> tuple[float, float]:
    if ("part" in table) == ("bandwidth_Bps" in table):
        raise TopologyError("give 'bandwidth_Bps' or 'part', and not both")
    delay: float = HOST_LATENCY_S if host else CABLE_LATENCY_S
    if "part" in table:
        chosen = part(table["part"], "network", where="part")
        rate = chosen.bandwidth_Bps
        delay = chosen.latency_s if host else chosen.cable_latency_s or delay
    else:
        rate = table["bandwidth_Bps"]
    delay = table.get("latency_s", delay)
    bandwidth("bandwidth_Bps", rate)
    latency("latency_s", delay)
    return float(rate), float(delay)


def wire(
    servers: ServerLinks,
    cards: Sequence[str],
    cables: Sequence[Cable],
    *,
    rail_rule: str,
    said: Mapping[str, Any],
) -> Cluster:
    """Return the cluster.

    Switches are numbered in the order they are named: those with GPUs first.

    Parameters
    ----------
    servers
        Links of a server.
    cards
        [gpus]: the switch that every GPU's network card is cabled to.
    cables
        Between switches.
    rail_rule
        As in `Cluster`.
    said
        Its ``name``, ``builder`` and ``parameters``.

    Raises
    ------
    TopologyError
        If two cables are the same, a switch is cut off, or the cluster is refused.
    """
    _check_once(cables)
    size(
        gpus=len(cards),
        gpus_per_server=servers.gpus_per_server,
        cables=sum(each.count for each in cables),
    )
    number = {name: at for at, name in enumerate(dict.fromkeys(cards))}
    for each in cables:
        for end in (each.a, each.b):
            number.setdefault(end, len(number))
    ends = [(number[each.a], number[each.b]) for each in cables]
    if rail_rule == "direct":
        _check_joined(list(number), ends)
    count = [each.count for each in cables]
    return from_links(
        np.repeat(np.array(ends, dtype=np.int64).reshape(-1, 2), count, axis=0),
        leaf_of_gpu=[number[name] for name in cards],
        servers=servers,
        bandwidth_Bps=np.repeat([each.bandwidth_Bps for each in cables], count),
        latency_s=np.repeat([each.latency_s for each in cables], count),
        link_class=np.repeat([int(each.link_class) for each in cables], count).astype(np.int64),
        group_of_switch=np.zeros(len(number), dtype=np.int32),
        rail_rule=rail_rule,
        **said,
    )


def _check_once(cables: Sequence[Cable]) -> None:
    """Refuse two cables alike: parallel ones are counted, and a row pasted twice is not meant."""
    known: dict[tuple[str, str], str] = {}
    for each in cables:
        low, high = sorted((each.a, each.b))
        if (low, high) in known:
            raise TopologyError(
                f"{each.where}: joins {each.a!r} and {each.b!r}, as {known[low, high]} does; "
                "expected one row, with a count for parallel cables"
            )
        known[low, high] = each.where


def _check_joined(names: Sequence[str], ends: Sequence[tuple[int, int]]) -> None:
    from topologies.validation import components  # noqa: PLC0415  it needs Cluster

    first, second = np.array(ends, dtype=np.int32).reshape(-1, 2).T
    apart = components(len(names), first, second) != 0
    if apart.any():
        raise TopologyError(
            f"no cables lead from {names[0]!r} to {names[int(apart.argmax())]!r}; expected one "
            "connected fabric"
        )
