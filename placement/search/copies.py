"""Independent evaluation of a placement on tokens: copies sent and load received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement

Scope = Literal["gpu", "server"]
"""What counts as one place."""


def copies_per_token(
    placement: Placement,
    choices: NDArray[np.integer],
    *,
    scope: Scope = "gpu",
    cost: NDArray[np.float64] | None = None,
) -> float:
    """Copies of a token in a layer: one for every distinct place it reaches.

    A replicated expert serves a token from each of its slots with the same probability,
    whatever the token's other choices (the rule `equal`), so that the expectation is ``sum over
    places p of 1 - product over choices e of (1 - share of e's slots on p)``.

    Parameters
    ----------
    placement
        Any placement.
    choices
        int [tokens, layers, k]: the experts of every token.
    scope
        Whether a place is a ``gpu`` or a ``server``.
    cost
        float [layers, places]: what a copy costs; None for 1.

    Returns
    -------
    Mean over tokens and layers, expected under the rule.
    """
    share = _shares(placement, choices, scope)
    total = 0.0
    for layer, of_place in enumerate(share):
        for place, held in enumerate(of_place):
            reached = 1.0 - np.prod(1.0 - held[choices[:, layer]], axis=1).mean()
            total += reached * (1.0 if cost is None else float(cost[layer, place]))
    return float(total) / placement.layers


def judged_loads(
    placement: Placement, choices: NDArray[np.integer], *, scope: Scope = "gpu"
) -> NDArray[np.float64]:
    """Load that tokens bring to every place, over the mean place, replicas sharing equally.

    Parameters
    ----------
    placement, choices, scope
        As for `copies_per_token`.

    Returns
    -------
    float64 [layers, places]: every layer's mean is 1.
    """
    share = _shares(placement, choices, scope)
    load = np.empty(share.shape[:2])
    for layer, of_place in enumerate(share):
        count = np.bincount(choices[:, layer].ravel(), minlength=placement.experts)
        load[layer] = of_place @ count / count.sum() * len(of_place)
    return load


def _shares(
    placement: Placement, choices: NDArray[np.integer], scope: Scope
) -> NDArray[np.float64]:
    """float64 [layers, places, experts]: share of an expert's slots that a place holds."""
    if choices.ndim != 3 or choices.shape[1] != placement.layers:
        raise PlacementError(
            f"choices must be [tokens, {placement.layers} layers, k], got {choices.shape}"
        )
    if choices.max() >= placement.experts:
        raise PlacementError(
            f"choices name expert {choices.max()}, the placement has 0..{placement.experts - 1}"
        )
    inside = 1 if scope == "gpu" else placement.gpus_per_server
    slots = np.zeros((placement.layers, placement.gpus // inside, placement.experts))
    np.add.at(
        slots, (placement.slot_layer, placement.slot_gpu // inside, placement.slot_expert), 1.0
    )
    share: NDArray[np.float64] = slots / placement.replicas[:, None, :]
    return share
