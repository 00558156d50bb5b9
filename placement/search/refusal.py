"""Why no arrangement was found, and what would do."""

from __future__ import annotations

import time
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError
from placement.search.bounds import least_hottest
from placement.search.start import least_beta, quick_beta

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.search.layer import LayerSearch

_ROUNDING = 1e-9


def refusal(
    layers: list[LayerSearch],
    first: list[NDArray[np.int64]],
    *,
    failed: int,
    scope: str,
    seed: int,
    deadline: float = np.inf,
) -> InfeasibleError:
    """Return the error to raise: layer, expert, and the least beta that works for all layers.

    Parameters
    ----------
    layers, first
        All layers with their caps, and places within their budgets of moves.
    failed
        A layer for which no arrangement within the caps was found.
    scope
        What a place is called.
    seed
        Of the search for the least beta.
    deadline
        ``time.perf_counter`` value after which a quick packing says which beta works.
    """
    layer = layers[failed]
    if layer.loads is None or layer.loads.price is not None:
        return _without_loads(failed, layer, scope)
    factor, worst = _least(failed, layer, first[failed], (seed, deadline)), failed
    if factor <= 1 + _ROUNDING:
        return _without_loads(failed, layer, scope)
    for number, other in enumerate(layers):
        # Only a layer that a quick packing leaves above the worst so far can be worse.
        if number != failed and quick_beta(other, first[number])[0] > factor:
            found = _least(number, other, first[number], (seed, deadline))
            if found > factor:
                factor, worst = found, number
    return _beyond(worst, layers[worst], factor, scope)


def _least(
    number: int, layer: LayerSearch, first: NDArray[np.int64], effort: tuple[int, float]
) -> float:
    seed, deadline = effort
    if time.perf_counter() > deadline:
        return quick_beta(layer, first)[0]
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    return least_beta(layer, first, rng=rng)[0]


def _without_loads(number: int, layer: LayerSearch, scope: str) -> InfeasibleError:
    text = f"layer {number}: no arrangement found{_budget(layer)}"
    if np.bincount(layer.expert).max() > 1:
        text += f" with at most {layer.most_replicas} replicas of an expert on a {_name(scope)}"
    return InfeasibleError(text)


def _beyond(number: int, layer: LayerSearch, factor: float, scope: str) -> InfeasibleError:
    """Say what the hottest slot of the worst layer carries and which beta would do."""
    assert layer.loads is not None  # noqa: S101  the caller's
    beta, places = float(layer.loads.beta[0]), len(layer.slots)
    share = (layer.loads.load / layer.loads.load.sum(axis=1, keepdims=True)).max(axis=0)
    hottest = int(np.argmax(share))
    expert, alone = layer.expert[hottest], float(share[hottest]) * places
    # Rounded up: the beta that is named must work; and the proof down.
    least = ceil(beta * factor * 1e4 - _ROUNDING) / 1e4
    proven = floor(float(least_hottest(layer).max()) * 1e4) / 1e4
    text = f"beta {beta:g} {'cannot be' if proven > beta else 'was not'} met in layer {number}"
    text += f"{_budget(layer)}: "
    if alone > beta:
        text += f"a slot of expert {expert} alone carries {alone:.4g} x the mean "
        text += f"{_name(scope)} load; "
    text += f"the least workable beta found is {least:.4f}"
    if least - proven > 1.5e-4:
        text += f" (proven: not below {proven:.4f})"
    if alone > beta:
        replicas = ceil(alone * int((layer.expert == expert).sum()) / beta - _ROUNDING)
        text += f", or {replicas} replicas of that expert"
    return InfeasibleError(text)


def _budget(layer: LayerSearch) -> str:
    moves = layer.moves
    return "" if moves is None or moves.most is None else f" within {moves.most} moves"


def _name(scope: str) -> str:
    return "GPU" if scope == "gpu" else scope
