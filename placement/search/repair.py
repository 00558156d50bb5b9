"""A hard beta within a budget of moves: the moves it cannot do without come first."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from placement.balance import Places, layer_caps
from placement.balance.caps import TOLERANCE
from placement.balance.mend import fewest_leaving, mended
from placement.errors import InfeasibleError
from placement.moves.keep_gpus import keep_gpus
from placement.search.layer import mended_layer
from placement.search.start import excess_factor
from placement.slots import place_on_gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.search.layer import LayerSearch
    from placement.search.local_search import LocalSearch

_GRID = 1e4
"""Betas are named to four digits, rounded up."""
_LOOSER = (1.0, 1.002, 1.01, 1.03, 1.1, 1.3)
"""Factors tried on the least beta that the proven number of moves leaves open."""


def repaired(
    search: LocalSearch, problem: PlacementProblem, previous: Placement
) -> tuple[Placement, NDArray[np.float64]]:
    """Bring a previous placement, one slot an expert, below beta at few moves.

    Relaxed, layers that cannot meet beta get the least that can be packed; and where that takes
    more than `max_moves`, all get the least beta found that does not.

    Returns
    -------
    Placement
        The one to start from.
    float64 [layers]
        Most load of a place over the mean.

    Raises
    ------
    InfeasibleError
        If a layer cannot meet a hard beta, or not within the moves: says how many would do.
    """
    assert search.beta is not None  # noqa: S101  the caller's
    assert search.max_moves is not None  # noqa: S101  the caller's
    caps = layer_caps(problem, search.beta, relax=True, scope=search.scope, seed=search.seed)
    task = _Repair(search, problem, previous)
    if caps.short.any() and not search.relax:
        # The caps' own message, unless moves are short as well.
        if task.fewest(caps.cap) <= search.max_moves:
            layer_caps(problem, search.beta, scope=search.scope, seed=search.seed)
        raise task.refusal(caps.cap, caps.short)
    place = task.within(caps.cap)
    if place is None and not search.relax:
        raise task.refusal(caps.cap, caps.short)
    cap = caps.cap
    if place is None:
        least = np.full(problem.layers, task.least() / task.places.server.size)
        cap = np.maximum(cap, np.minimum(least, task.hottest(task.home)))
        place = task.within(cap)
    placement = previous if place is None else task.placed(place)
    return placement, cap * task.places.server.size


class _Repair:
    """One previous placement to be brought below caps."""

    def __init__(self, search: LocalSearch, problem: PlacementProblem, previous: Placement) -> None:
        self.search, self.problem, self.previous = search, problem, previous
        self.places = Places.of(problem, search.scope)
        self.size = problem.gpus_per_server // self.places.per_server
        self.home = previous.gpu_of_expert.astype(np.int64) // self.size

    def fewest(self, cap: NDArray[np.float64]) -> int:
        """Proven least number of moves."""
        rows = zip(self.problem.profile.load, self.home, cap, strict=True)
        return sum(
            fewest_leaving(load, home, most, self.places.server.size) for load, home, most in rows
        )

    def found(self, cap: NDArray[np.float64]) -> tuple[NDArray[np.int64], int] | None:
        """Places below the caps and their moves; None if they were not met."""
        place = mended(self.problem, self.places, self.home, cap)
        if (self.hottest(place) > cap * (1 + TOLERANCE)).any():
            return None
        return place, int((place != self.home).sum())

    def within(self, cap: NDArray[np.float64]) -> NDArray[np.int64] | None:
        """Places below the caps within the budget, or None."""
        most = self.search.max_moves or 0
        if self.fewest(cap) > most:
            return None
        found = self.found(cap)
        return found[0] if found is not None and found[1] <= most else None

    def least(self) -> float:
        """Least beta found, to four digits, that the budget can meet: at worst without a move."""
        places, most = self.places.server.size, self.search.max_moves or 0
        start = float(self.hottest(self.home).max()) * places
        low, high = ceil((self.search.beta or 1.0) * _GRID), ceil(start * _GRID)
        while high - low > 1:
            half = (low + high) // 2
            few = self.fewest(self._caps(half / _GRID)) <= most
            low, high = (low, half) if few else (half, high)
        for factor in _LOOSER:
            beta = min(ceil(high * factor) / _GRID, ceil(start * _GRID) / _GRID)
            if self.within(self._caps(beta)) is not None:
                return beta
        return ceil(start * _GRID) / _GRID

    def hottest(self, place: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [layers]: load of the hottest place."""
        places, load = self.places.server.size, self.problem.profile.load
        flat = (np.arange(len(load))[:, None] * places + place).ravel()
        heat = np.bincount(flat, load.ravel(), len(load) * places).reshape(len(load), places)
        hottest: NDArray[np.float64] = heat.max(axis=1)
        return hottest

    def placed(self, place: NDArray[np.int64]) -> Placement:
        """Turn places into a placement; experts keep their GPU where their server stays."""
        if (place == self.home).all():
            return self.previous
        if self.size > 1:
            place = keep_gpus(self.problem, place, self.previous.gpu_of_expert.astype(np.int64))
        return place_on_gpus(self.problem, place, policy=self.search.name)

    def refusal(self, cap: NDArray[np.float64], short: NDArray[np.bool_]) -> InfeasibleError:
        """Say how many moves beta takes, and what this budget can do."""
        found = None if short.any() else self.found(cap)
        return too_few_moves(
            self.search,
            fewest=self.fewest(cap),
            found=None if found is None else found[1],
            least=self.least(),
        )

    def _caps(self, beta: float) -> NDArray[np.float64]:
        return np.full(self.problem.layers, beta / self.places.server.size)


def too_few_moves(
    search: LocalSearch, *, fewest: int, found: int | None, least: float | None = None
) -> InfeasibleError:
    """Return the error to raise.

    Parameters
    ----------
    fewest
        Moves proven to be needed.
    found
        Moves of the repair found, if one was.
    least
        A beta that the budget can meet, if one was found.
    """
    most = search.max_moves or 0
    text = f"beta {search.beta:g} was not met within {most} moves (max_moves): "
    text += "cooling the places above it takes " if found is not None or fewest > most else ""
    if fewest > most or found is not None:
        text += f"at least {fewest} (proven)"
    if found is not None:
        text += f", {found} as found; max_moves {found} would do"
    elif fewest <= most:
        text += "no repair of the previous placement was found"
    if least is not None:
        text += f"; within {most} moves the least workable beta found is {least:.4f}"
    return InfeasibleError(text)


def repaired_layers(
    search: LocalSearch, layers: list[LayerSearch], first: list[NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """Bring every layer below its hard caps by swaps of its slots, replicas too.

    Relaxed, the layers that take fewest moves are mended, as far as the budget goes.

    Parameters
    ----------
    layers, first
        Layers with their previous places, and int64 [items] places to start from.

    Raises
    ------
    InfeasibleError
        If repairs that meet all caps were found and take more than `max_moves`.
    """
    hard = search.beta is not None and search.beta_price is None
    if not hard or search.max_moves is None:
        return first
    pairs = list(zip(layers, first, strict=True))
    place = [mended_layer(layer, start) for layer, start in pairs]
    before = np.array([layer.moved(start) for layer, start in pairs])
    moves = np.array([layer.moved(at) for layer, at in zip(layers, place, strict=True)])
    met = all(excess_factor(layer, at) <= 1 for layer, at in zip(layers, place, strict=True))
    if met and before.sum() <= search.max_moves < moves.sum() and not search.relax:
        raise too_few_moves(
            search, fewest=sum(_fewest(layer) for layer in layers), found=int(moves.sum())
        )
    kept = list(first)
    rest = search.max_moves - int(before.sum())
    for at in np.argsort(moves - before, kind="stable").tolist():
        if moves[at] - before[at] <= rest:
            kept[at] = place[at]
            rest -= int(moves[at] - before[at])
    return kept


def _fewest(layer: LayerSearch) -> int:
    if layer.loads is None or layer.moves is None:
        return 0
    places = len(layer.slots)
    return max(
        fewest_leaving(load, layer.moves.previous, beta * load.sum() / places, places)
        for load, beta in zip(layer.loads.load, layer.loads.beta, strict=True)
    )
