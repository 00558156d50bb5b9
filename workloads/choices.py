"""Which experts tokens choose together, and which after one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def coactivation(
    choices: NDArray[np.uint8] | NDArray[np.uint16], experts: int
) -> NDArray[np.float64]:
    """Probability that a token chooses both of two experts of a layer.

    Parameters
    ----------
    choices
        uint8 or uint16 [tokens, layers, k]: the experts of every token, none twice in a layer.
    experts
        Routed experts of a layer; every choice is below it.

    Returns
    -------
    float64 [layers, E, E]
        Symmetric. The diagonal is the probability that a token chooses the expert at all, and
        every layer sums to k * k.
    """
    from workloads._coactivation_kernel import count_together  # noqa: PLC0415  numba loads slowly

    count = np.zeros((choices.shape[1], experts, experts), dtype=np.int64)
    count_together(choices, count)
    share: NDArray[np.float64] = count / len(choices)
    return share


def affinity(choices: NDArray[np.uint8] | NDArray[np.uint16], experts: int) -> NDArray[np.float64]:
    """How often expert i at layer l is followed by expert j at layer l + 1.

    ``affinity[l, i, j]`` is the probability that a given one of a token's k choices at layer l
    is i and a given one at layer l + 1 is j: rows sum to the load of layer l, columns to that of
    layer l + 1. Source of the notion: Yao et al., ExFlow, arXiv 2401.08383.

    Parameters
    ----------
    choices
        uint8 or uint16 [tokens, layers, k]: the experts of every token.
    experts
        Routed experts of a layer; every choice is below it.

    Returns
    -------
    float64 [layers - 1, E, E]
    """
    from workloads._coactivation_kernel import count_followers  # noqa: PLC0415  as above

    tokens, layers, top_k = choices.shape
    count = np.zeros((layers - 1, experts, experts), dtype=np.int64)
    count_followers(choices, count)
    share: NDArray[np.float64] = count / (tokens * top_k * top_k)
    return share
