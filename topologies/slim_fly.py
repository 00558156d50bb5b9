"""Slim Flies: McKay-Miller-Siran graphs, whose switches are all at most two hops apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topologies.checks import whole
from topologies.cluster import LinkClass
from topologies.direct import DirectLinks
from topologies.errors import TopologyError
from topologies.galois import field, prime_power
from topologies.links import ServerLinks
from topologies.parameters import make

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topologies.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class SlimFly(DirectLinks):
    """Parameters of a Slim Fly (Besta and Hoefler, 2014, after McKay, Miller and Siran, 1998).

    With q = 4w + d, d one of -1, 0, 1, there are 2 q^2 switches of (3q - d) / 2 cables. The first
    q^2 are (x, y), the others (m, c), with elements of the field of q elements: (x, y) and
    (x, y') are joined where y - y' is in one set of generators, (m, c) and (m, c') where c - c'
    is in another, and (x, y) and (m, c) where y = m x + c. Switches are numbered in that order;
    the group of (x, y) is x, and of (m, c) m: the racks of the paper.

    Attributes
    ----------
    q
        A power of a prime that leaves the remainder 0, 1 or 3 by 4.
    p
        Servers of a switch; None for half of its cables, rounded up, which the paper balances.
    cable_bandwidth_Bps, cable_latency_s
        As in `DirectLinks`.

    Raises
    ------
    TopologyError
        If a number is out of range, or there is no such graph.
    """

    builder: ClassVar[str] = "slim-fly"

    q: int
    p: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and orders without a graph."""
        ServerLinks.__post_init__(self)
        whole("q", self.q, least=3)
        if self.p is not None:
            whole("p", self.p, least=1)
        if self.q % 4 == 2 or prime_power(self.q) is None:
            raise TopologyError(
                f"q is {self.q}, {'twice an odd number' if self.q % 4 == 2 else 'no prime power'}, "
                "for which there is no such graph; expected a prime power of the form 4w - 1, 4w "
                "or 4w + 1, such as 5, 7, 8, 9, 11, 13, 16, 17, 25"
            )
        _, switches, cables = slim_fly_counts(self.q)
        self.check_direct(
            switches=switches, servers_per_switch=self.servers_per_switch, cables=cables
        )

    @property
    def servers_per_switch(self) -> int:
        """Servers of a switch."""
        return -(-_radix(self.q) // 2) if self.p is None else self.p

    def build(self, name: str | None = None) -> Cluster:
        """Return the cluster."""
        cables = self._cables()
        group = np.tile(np.repeat(np.arange(self.q), self.q), 2)
        near = group[cables[:, 0]] == group[cables[:, 1]]
        return self.build_direct(
            cables,
            name,
            servers_per_switch=self.servers_per_switch,
            group_of_switch=group,
            link_class=np.where(near, LinkClass.LOCAL, LinkClass.GLOBAL),
        )

    def _cables(self) -> NDArray[np.int64]:
        """Return int64 [cables, 2]: inside the first half, inside the second, between them."""
        q, numbers = self.q, field(self.q)
        parts = []
        for half, generators in enumerate(_generators(q, numbers.powers)):
            joined = np.isin(numbers.difference, generators)
            low, high = np.nonzero(np.triu(joined, k=1))
            base = half * q * q + q * np.arange(q)[:, None]
            parts.append(np.stack([(base + low).ravel(), (base + high).ravel()], axis=1))
        x, y, m = np.indices((q, q, q)).reshape(3, -1)
        c = numbers.difference[y, numbers.product[m, x]]
        parts.append(np.stack([q * x + y, q * q + q * m + c], axis=1))
        return np.concatenate(parts)


def slim_fly_counts(q: int) -> tuple[int, int, int]:
    """Return the endpoints, switches and cables that a balanced Slim Fly of order q would have.

    By formula, also where there is no such graph (q = 28 of published tables): 2 q^2 switches
    of (3q - d) / 2 cables each and half as many endpoints, rounded up.

    Raises
    ------
    TopologyError
        If q is no number of the form 4w - 1, 4w or 4w + 1.
    """
    whole("q", q, least=3)
    if q % 4 == 2:
        raise TopologyError(f"q is {q}; expected a number of the form 4w - 1, 4w or 4w + 1")
    switches, radix = 2 * q * q, _radix(q)
    return switches * -(-radix // 2), switches, switches * radix // 2


def _radix(q: int) -> int:
    """Cables of a switch."""
    return (3 * q - {0: 0, 1: 1, 3: -1}.get(q % 4, 0)) // 2


def _generators(q: int, powers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two sets of generators, each the same with all signs changed."""
    if q % 4 == 3:
        w = (q + 1) // 4
        first = np.r_[0 : 2 * w - 1 : 2, 2 * w - 1 : 4 * w - 2 : 2]
        return powers[first], powers[(first + 1) % (q - 1)]
    even = np.arange(0, q - 1, 2)
    return powers[even], powers[(even + 1) % (q - 1)]


def slim_fly(*, name: str | None = None, **parameters: Any) -> Cluster:
    """Build a Slim Fly from the parameters of `SlimFly`.

    Raises
    ------
    TopologyError
        If a parameter is unknown, missing or refused.

    Examples
    --------
    >>> slim_fly(q=5, p=1, gpus_per_server=1, name="sf")
    <Cluster 'sf' (slim-fly): 50 GPUs in 50 servers of 1, 50 switches, 175 cables between switches>
    """
    return make(SlimFly, parameters).build(name)
