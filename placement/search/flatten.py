"""Training tokens sampled so that no hot expert drowns the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def flattened(
    chosen: NDArray[np.integer], load: NDArray[np.float64], power: float
) -> NDArray[np.integer]:
    """Sample as many tokens, each in proportion to ``mean over its experts of load ** -power``.

    The sample is systematic: a token of weight w (mean 1) is taken floor(w) or ceil(w) times.

    Parameters
    ----------
    chosen
        int [tokens, k]: the choices in one layer.
    load
        float64 [experts]: their loads among these tokens.
    power
        0 for the tokens as they are, 1 to count experts alike.
    """
    floor = 1.0 / (len(chosen) * chosen.shape[1])
    weight = (np.maximum(load, floor)[chosen] ** -power).mean(axis=1)
    reach = np.cumsum(weight / weight.sum()) * len(chosen)
    taken = np.searchsorted(reach, np.arange(len(chosen)) + 0.5)
    return chosen[np.minimum(taken, len(chosen) - 1)]
