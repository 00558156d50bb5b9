"""Compiled swaps of experts between devices, for weights on pairs of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True)
def gather_pairs(
    weight: NDArray[np.float64],
    load: NDArray[np.float64],
    device: NDArray[np.int64],
    devices: int,
    cap: float,
) -> float:
    """Swap experts, in place, while that puts more pair weight on one device.

    The first swap that gains is taken, pairs of experts in ascending order, until none gains.
    Counts stay as they are; no device heated beyond `cap`.

    Parameters
    ----------
    weight
        float64 [E, E], symmetric; the diagonal does not matter.
    load
        float64 [E].
    device
        int64 [E]: changed.
    devices
        Number of devices.
    cap
        Most load on a device that a swap changes.

    Returns
    -------
    float: weight of the pairs that share a device, each pair once.
    """
    link = _links(weight, device, devices)
    heat = np.zeros(devices)
    for a in range(len(device)):
        heat[device[a]] += load[a]
    least = 1e-12 * np.abs(link).sum()
    while _sweep(weight, load, device, link, heat, cap, least):
        pass
    kept = 0.0
    for a in range(len(device)):
        kept += link[a, device[a]]
    return kept / 2


@njit(cache=True)
def _links(
    weight: NDArray[np.float64], device: NDArray[np.int64], devices: int
) -> NDArray[np.float64]:
    """float64 [E, devices]: pair weight of every expert with each device, itself left out."""
    link = np.zeros((len(device), devices))
    for a in range(len(device)):
        for b in range(len(device)):
            if a != b:
                link[a, device[b]] += weight[a, b]
    return link


@njit(cache=True)
def _sweep(
    weight: NDArray[np.float64],
    load: NDArray[np.float64],
    device: NDArray[np.int64],
    link: NDArray[np.float64],
    heat: NDArray[np.float64],
    cap: float,
    least: float,
) -> bool:
    """Go once over all pairs of experts, swapping those that gain more than `least`."""
    moved = False
    for a in range(len(device)):
        for b in range(a + 1, len(device)):
            x, y = device[a], device[b]
            if x == y:
                continue
            gain = link[a, y] - link[a, x] + link[b, x] - link[b, y] - 2 * weight[a, b]
            shift = load[b] - load[a]
            if gain > least and heat[x] + shift <= cap and heat[y] - shift <= cap:
                _move(weight, link, a, x, y)
                _move(weight, link, b, y, x)
                heat[x] += shift
                heat[y] -= shift
                device[a], device[b] = y, x
                moved = True
    return moved


@njit(cache=True)
def _move(
    weight: NDArray[np.float64], link: NDArray[np.float64], expert: int, old: int, new: int
) -> None:
    """Account for an expert that goes from device `old` to `new`."""
    for other in range(len(link)):
        if other != expert:
            link[other, old] -= weight[other, expert]
            link[other, new] += weight[other, expert]
