"""Where a layer's local search starts, and the least load cap it can meet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from placement.search.copies_bound import pairs_of
from placement.search.layer import LayerSearch, arrange

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVEL_PROPOSALS = 300
_HALVINGS = 8


def starts_of(
    layer: LayerSearch,
    first: NDArray[np.integer],
    *,
    number: int,
    rng: np.random.Generator,
    level: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Return so many starts: `first`, level loads, items used together, then random ones.

    Where moves have a budget all starts are `first`, which must keep it.

    Parameters
    ----------
    layer
        The layer.
    first
        int [items]: places to start from at any rate.
    number
        Starts wanted.
    rng
        Source of the random ones.
    level
        int64 [items]: places of level loads; by default items are dealt hottest first. The only
        start, if one is wanted and `first` is above the load caps.
    """
    if layer.moves is not None and layer.moves.most is not None:
        return [np.asarray(first, dtype=np.int64)] * number
    starts = [np.asarray(first, dtype=np.int64)]
    if number > 1 and layer.loads is not None:
        starts.append(hottest_first(layer) if level is None else level)
    elif level is not None and excess_factor(layer, starts[0]) > 1:
        starts = [level]
    if number > len(starts) and layer.copies is not None:
        starts.append(together(layer))
    while len(starts) < number:
        seats = np.repeat(np.arange(len(layer.slots)), layer.slots)
        starts.append(rng.permutation(seats)[: layer.items])
    return starts


def hottest_first(layer: LayerSearch) -> NDArray[np.int64]:
    """Longest processing time first: each item to the coolest place with a slot.

    Several domains count with their worst. A place that holds its share of an expert's replicas
    comes last.
    """
    places = len(layer.slots)
    loads = layer.loads
    load = np.ones((1, layer.items)) if loads is None else loads.load / loads.beta[:, None]
    heat, free = np.zeros((len(load), places)), layer.slots.astype(np.int64)
    held = np.zeros((int(layer.expert.max()) + 1, places), dtype=np.int64)
    place = np.empty(layer.items, dtype=np.int64)
    for item in np.argsort(-load.max(axis=0), kind="stable"):
        expert = layer.expert[item]
        after = (heat + load[:, item, None]).max(axis=0)
        barred = held[expert] >= layer.most_replicas
        at = int(np.lexsort((np.arange(places), after, barred, free == 0))[0])
        place[item] = at
        heat[:, at] += load[:, item]
        free[at] -= 1
        held[expert, at] += 1
    return place


def together(layer: LayerSearch) -> NDArray[np.int64]:
    """Fill place after place: the item used most, then those used most with what is there."""
    if layer.copies is None:
        return hottest_first(layer)
    pair = pairs_of(layer.copies.item, layer.items)
    uses, open_ = np.diag(pair).copy(), np.ones(layer.items, dtype=bool)
    place = np.empty(layer.items, dtype=np.int64)
    for at, slots in enumerate(layer.slots):
        bond = uses.copy()
        for turn in range(min(int(slots), int(open_.sum()))):
            item = int(np.argmax(np.where(open_, bond, -1.0)))
            bond = pair[item].copy() if turn == 0 else bond + pair[item]
            place[item], open_[item] = at, False
    return place


def least_beta(
    layer: LayerSearch, first: NDArray[np.integer], *, rng: np.random.Generator
) -> tuple[float, NDArray[np.int64]]:
    """Find how far the layer's beta must be raised, and an arrangement that meets it then.

    Moves keep their budget.

    Parameters
    ----------
    layer
        A layer with loads.
    first
        int [items]: a place for every item, within the moves allowed.
    rng
        Source of the proposals.

    Returns
    -------
    float
        Factor on beta, 1 if beta can be met as it is: the least found by bisection.
    int64 [items]
    """
    moves = None if layer.moves is None else replace(layer.moves, price=0.0)
    bare = replace(layer, copies=None, linear=None, moves=moves)
    high, best = quick_beta(layer, first)
    low = factor = 1.0
    for _ in range(_HALVINGS):
        if high <= low:
            break
        found = arrange(
            _scaled(bare, factor), [best], proposals=_LEVEL_PROPOSALS * layer.items, rng=rng
        )
        reached = max(1.0, excess_factor(bare, found.place))
        if reached < high:
            high, best = reached, found.place
        if reached > factor:
            low = factor
        if low == 1.0 and high == 1.0:
            break
        factor = (low + high) / 2
    return high, best


def quick_beta(layer: LayerSearch, first: NDArray[np.integer]) -> tuple[float, NDArray[np.int64]]:
    """Say what `least_beta` starts from: `first` or, without a budget, items dealt hottest first.

    Of the two the lighter, in excess of replicas before load.
    """
    options = [np.asarray(first, dtype=np.int64)]
    if layer.moves is None or layer.moves.most is None:
        options.append(hottest_first(layer))
    best = min(options, key=lambda place: (doubled(layer, place), excess_factor(layer, place)))
    return max(1.0, excess_factor(layer, best)), best


def doubled(layer: LayerSearch, place: NDArray[np.int64]) -> int:
    """Slots of an expert on a place beyond those allowed."""
    held = np.bincount(layer.expert * len(layer.slots) + place)
    return int(np.maximum(held - layer.most_replicas, 0).sum())


def excess_factor(layer: LayerSearch, place: NDArray[np.int64]) -> float:
    """Greatest load of a place in any domain, over its cap."""
    loads, places = layer.loads, len(layer.slots)
    if loads is None:
        return 0.0
    heat = np.stack([np.bincount(place, row, places) / row.sum() for row in loads.load])
    factor = float((heat.max(axis=1) * places / loads.beta).max())
    return 1.0 if abs(factor - 1.0) < 1e-11 else factor


def _scaled(layer: LayerSearch, factor: float) -> LayerSearch:
    if layer.loads is None:
        return layer
    return replace(layer, loads=replace(layer.loads, beta=layer.loads.beta * factor))
