"""How the networks' kernels are compiled."""

from __future__ import annotations

from typing import Any, TypeVar

from numba import njit

F = TypeVar("F")


def compiled(function: F) -> F:
    """Compile without reference counts.

    The kernels allocate nothing and need none; counting for every array that a function takes
    from the state made the packet network six times slower.
    """
    options: dict[str, Any] = {"cache": True, "_nrt": False}
    dispatcher: F = njit(**options)(function)
    return dispatcher


def inlined(function: F) -> F:
    """Compile into the callers: a call would copy the whole state, some hundred words."""
    options: dict[str, Any] = {"cache": True, "_nrt": False, "forceinline": True}
    dispatcher: F = njit(**options)(function)
    return dispatcher
