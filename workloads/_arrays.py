"""Checks and freezing shared by the data types of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

ROW_SUM_TOLERANCE = 1e-9
"""How far the loads of a layer may be from 1 in sum: rounding, not a missing expert."""


def frozen(array: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return `array` as `dtype`, read-only; a copy unless nobody can write to it already.

    Parameters
    ----------
    array
        Any array; the caller has checked that its values fit `dtype`.
    dtype
        The element type wanted.
    """
    if array.dtype == dtype and not _writable(array):
        return array
    copy = np.array(array, dtype=dtype)
    copy.setflags(write=False)
    return copy


def _writable(array: NDArray[Any]) -> bool:
    """Whether the memory of `array` can be written to through it or through what it views."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return True
        owner = owner.base
    return owner is not None


def check_counts(counts: NDArray[np.float64], *, what: str) -> None:
    """Refuse what is no load of any expert, naming layer and expert.

    Parameters
    ----------
    counts
        float64 [layers, experts].
    what
        The quantity, as the message shall call it ("load", "count").

    Raises
    ------
    WorkloadError
        Not two-dimensional, empty, NaN, infinite, negative, or a layer without any.
    """
    if counts.ndim != 2 or 0 in counts.shape:
        raise WorkloadError(f"{what}: expected [layers, experts], got shape {counts.shape}")
    bad = np.argwhere(~(np.isfinite(counts) & (counts >= 0)))
    if len(bad):
        layer, expert = (int(i) for i in bad[0])
        value = float(counts[layer, expert])
        raise WorkloadError(
            f"{what} of layer {layer}, expert {expert} is {value}: expected a finite number >= 0"
        )
    empty = np.flatnonzero(~counts.any(axis=1))
    if len(empty):
        raise WorkloadError(
            f"{what} of layer {int(empty[0])} is zero for all {counts.shape[1]} experts: "
            "expected at least one expert in use"
        )


def check_load(load: NDArray[np.float64]) -> None:
    """Refuse loads that are no probabilities over the experts of every layer.

    Parameters
    ----------
    load
        float64 [layers, experts].

    Raises
    ------
    WorkloadError
        As `check_counts`, or a row that does not sum to 1.
    """
    check_counts(load, what="load")
    off = np.flatnonzero(np.abs(load.sum(axis=1) - 1.0) > ROW_SUM_TOLERANCE)
    if len(off):
        layer = int(off[0])
        total = float(load[layer].sum())
        raise WorkloadError(f"load of layer {layer} sums to {total!r}: expected 1")
