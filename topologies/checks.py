"""Checks of single parameters and of rows of flows, with one line for each refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topologies.errors import RoutingError, TopologyError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


MAX_GPUS = 1 << 22
"""GPUs of a cluster, and switches, servers or ports of any kind."""
MAX_LINKS = 1 << 26
"""Directed links of a cluster; the arrays of so many take about 2 GB."""
MIN_BANDWIDTH_BPS, MAX_BANDWIDTH_BPS = 1.0, 1e18
MAX_LATENCY_S = 1.0
"""Of a link; light goes around the Earth seven times in it."""
MIN_RATIO, MAX_RATIO = 1e-3, 1e3
"""Oversubscription of a tier."""


def whole(name: str, value: Any, *, least: int) -> None:
    """Refuse what is not a whole number of at least `least`, or more than any cluster has.

    Raises
    ------
    TopologyError
        Naming the parameter, its value and what was expected.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TopologyError(
            f"{name} is {shown(value)}; expected a whole number of at least {least}"
        )
    if value > MAX_GPUS:
        raise TopologyError(f"{name} is {shown(value)}; expected at most {MAX_GPUS}")


def bandwidth(name: str, value: Any) -> None:
    """Refuse what is no bandwidth in bytes per second that a link may have.

    Raises
    ------
    TopologyError
        Naming the parameter, its value and what was expected.
    """
    _within(name, value, MIN_BANDWIDTH_BPS, MAX_BANDWIDTH_BPS)


def latency(name: str, value: Any) -> None:
    """Refuse what is no latency in seconds that a link may have.

    Raises
    ------
    TopologyError
        Naming the parameter, its value and what was expected.
    """
    _within(name, value, 0, MAX_LATENCY_S)


def ratio(name: str, value: Any) -> None:
    """Refuse what is no oversubscription.

    Raises
    ------
    TopologyError
        Naming the parameter, its value and what was expected.
    """
    _within(name, value, MIN_RATIO, MAX_RATIO)


def _within(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high):
        raise TopologyError(f"{name} is {shown(value)}; expected a number from {low:g} to {high:g}")


def size(*, gpus: int, gpus_per_server: int, cables: int) -> None:
    """Refuse a cluster too large to be meant, before its arrays are made.

    Parameters
    ----------
    gpus, gpus_per_server
        In all, and of a server.
    cables
        Between switches, each of two directed links.

    Raises
    ------
    TopologyError
        With the size it would have and the most there may be.
    """
    if gpus > MAX_GPUS:
        raise TopologyError(f"the cluster has {shown(gpus)} GPUs; expected at most {MAX_GPUS}")
    links = 2 * gpus * (1 + (gpus_per_server > 1)) + 2 * cables
    if links > MAX_LINKS:
        raise TopologyError(f"the cluster has {shown(links)} links; expected at most {MAX_LINKS}")


def shown(value: Any) -> str:
    """Return a value as messages show it, long ones cut."""
    # Python refuses to write out integers of more than a few thousand digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return "a number of more than 38 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def ring_reach(reach: Any, *, members: int, what: str) -> None:
    """Refuse a reach that is no ring neighbourhood, or that already spans the whole ring.

    Two members of a ring are at most ``members // 2`` apart, so a reach of that much cuts
    nothing.

    Raises
    ------
    TopologyError
        Naming the reach and the range that would leave something out.
    """
    whole("reach", reach, least=1)
    if reach >= members // 2:
        largest = members // 2 - 1
        expected = f"1 to {largest}" if largest > 0 else "none: the ring is too short"
        raise TopologyError(
            f"reach is {reach}, which spans all {members} {what}; expected {expected}"
        )


def indices(name: str, values: ArrayLike, bound: int) -> NDArray[np.int64]:
    """Return int64 [n] after checking that all values lie in 0 to bound - 1.

    Raises
    ------
    RoutingError
        Naming the row and its first value out of range.
    """
    array = np.asarray(values)
    if array.ndim != 1 or not (array.size == 0 or np.issubdtype(array.dtype, np.integer)):
        raise RoutingError(f"{name} is {array.dtype} {array.shape}; expected one row of integers")
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= bound:
        wrong = low if low < 0 else high
        raise RoutingError(f"{name} holds {wrong}; expected 0 to {bound - 1}")
    return array.astype(np.int64)


def sizes(size_bytes: ArrayLike, *, flows: int, whole_bytes: bool) -> NDArray[Any]:
    """Return [flows] after checking that all sizes are finite, not negative and, if asked, whole.

    Raises
    ------
    RoutingError
        If they are not.
    """
    array = np.asarray(size_bytes)
    if array.shape != (flows,):
        raise RoutingError(f"size_bytes has the shape {array.shape}; expected ({flows},)")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise RoutingError("size_bytes holds a negative or infinite size; expected at least 0")
    if not whole_bytes:
        return array.astype(np.float64)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise RoutingError(f"size_bytes holds {array.dtype}; single-path rules take whole bytes")
    return array.astype(np.int64)
