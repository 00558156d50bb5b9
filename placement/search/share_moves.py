"""A budget of moves shared out to layers, where they gain most."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError
from placement.search.layer import arrange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.search.layer import LayerSearch

_PARTS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Budgets tried, as shares of a layer's items."""
PROPOSALS = 300
"""Swaps proposed per item in a short search, at most."""
_EXCESS_PRICE = 1e6
"""Load above a cap comes before any gain."""


def share_moves(
    layers: list[LayerSearch],
    first: list[NDArray[np.int64]],
    most: int | None,
    *,
    bounds: list[float],
    seed: int,
    proposals: int = PROPOSALS,
    deadline: float = np.inf,
) -> list[LayerSearch]:
    """Give every layer a budget of moves, the budgets summing to at most `most`.

    Short searches say what every layer gains from some budgets; moves go where the concave hull
    of these curves is steepest, and what no layer has use for is shared out evenly.

    Parameters
    ----------
    layers
        Layers with a previous place for their items.
    first
        int64 [items] each: places at first. Items that had to leave their previous place for
        these are moves that a layer cannot do without.
    most
        Moves over all layers; None leaves the layers as they are.
    bounds
        Lower bound of every layer's value: one that has reached it needs no moves.
    seed
        Of the short searches.
    proposals
        Swaps proposed per item in each of them.
    deadline
        ``time.perf_counter`` value by which they should end.

    Raises
    ------
    InfeasibleError
        If the first places take more moves.
    """
    if most is None:
        return layers
    budget = np.array([layer.moved(start) for layer, start in zip(layers, first, strict=True)])
    rest = most - int(budget.sum())
    if rest < 0:
        raise InfeasibleError(
            f"max_moves {most} is too small: equally many slots on every GPU take at least "
            f"{budget.sum()} moves from the previous placement"
        )
    steps = _steps(layers, first, bounds=bounds, seed=seed, proposals=proposals, deadline=deadline)
    for slope, number, _, width in sorted(steps):
        if slope < 0:
            given = min(width, rest)
            budget[number] += given
            rest -= given
    budget += rest // len(layers)
    budget[: rest % len(layers)] += 1
    return [
        replace(layer, moves=None if layer.moves is None else replace(layer.moves, most=int(own)))
        for layer, own in zip(layers, budget, strict=True)
    ]


def _steps(
    layers: list[LayerSearch],
    first: list[NDArray[np.int64]],
    *,
    bounds: list[float],
    seed: int,
    proposals: int,
    deadline: float,
) -> list[tuple[float, int, int, int]]:
    """Return the hulls' pieces: what a move gains, layer, moves before it, moves it is long."""
    steps: list[tuple[float, int, int, int]] = []
    for number, (layer, start) in enumerate(zip(layers, first, strict=True)):
        now = time.perf_counter()
        until = now + (deadline - now) / (len(layers) - number)
        budgets, values = _curve(
            layer,
            start,
            bound=bounds[number],
            seed=(seed, number),
            proposals=proposals,
            deadline=until,
        )
        for left, right in _hull(budgets, values):
            width = budgets[right] - budgets[left]
            steps.append(((values[right] - values[left]) / width, number, budgets[left], width))
    return steps


def _curve(
    layer: LayerSearch,
    start: NDArray[np.int64],
    *,
    bound: float,
    seed: tuple[int, int],
    proposals: int,
    deadline: float,
) -> tuple[list[int], list[float]]:
    """Value reached with each budget."""
    forced = layer.moved(start)
    budgets = sorted({forced + int(part * layer.items) for part in _PARTS})
    values: list[float] = []
    for nth, most in enumerate(budgets):
        moves = None if layer.moves is None else replace(layer.moves, most=most)
        now = time.perf_counter()
        if now > deadline:
            return budgets[:nth], values
        found = arrange(
            replace(layer, moves=moves),
            [start],
            proposals=proposals * layer.items,
            rng=np.random.Generator(np.random.PCG64([*seed, most])),
            bound=bound,
            deadline=now + (deadline - now) / (len(budgets) - nth),
        )
        values.append(found.value + _EXCESS_PRICE * found.excess)
    return budgets, values


def _hull(x: list[int], y: list[float]) -> list[tuple[int, int]]:
    """Segments (left, right) of the lower convex hull of points with ascending x."""
    corners: list[int] = []
    for at in range(len(x)):
        while len(corners) > 1:
            a, b = corners[-2], corners[-1]
            if (y[b] - y[a]) * (x[at] - x[a]) < (y[at] - y[a]) * (x[b] - x[a]):
                break
            corners.pop()
        corners.append(at)
    return list(pairwise(corners))
