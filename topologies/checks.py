"""Checks of single parameters and of rows of flows, with one line for each refusal."""

from __future__ import annotations

from sys import float_info
from typing import TYPE_CHECKING, Any

import numpy as np

from topologies.errors import RoutingError, TopologyError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def whole(name: str, value: Any, *, least: int) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises
    ------
    TopologyError
        Naming the parameter, its value and what was expected.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TopologyError(f"{name} is {value!r}; expected a whole number of at least {least}")


def rate(name: str, value: Any, *, zero: bool = False) -> None:
    """Refuse what is not a finite number above zero (or, with `zero`, not below it).

    Raises
    ------
    TopologyError
        Naming the parameter, its value and what was expected.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 <= value <= float_info.max) or (value == 0 and not zero):
        bound = "at least" if zero else "above"
        raise TopologyError(f"{name} is {value!r}; expected a finite number {bound} 0")


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
        raise RoutingError(f"size_bytes holds {array.dtype}; rule 'hash' takes whole bytes")
    return array.astype(np.int64)
