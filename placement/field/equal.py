"""Equal counts on every device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem


def equal_counts(problem: PlacementProblem) -> NDArray[np.int64]:
    """How many experts of each layer every GPU takes so that counts are as equal as can be.

    What is left over when experts are shared out evenly goes round the GPUs in one turn that
    continues from layer to layer and passes from server to server. So counts differ by at most
    one between GPUs and between servers, in every layer and over all layers: both caps of any
    feasible problem hold, and their shares per GPU.

    Returns
    -------
    int64 [layers, GPUs]
    """
    servers, inside = problem.servers, problem.gpus_per_server
    gpus = servers * inside
    each, over = divmod(problem.experts, gpus)
    place = np.arange(gpus) % inside * servers + np.arange(gpus) // inside
    first = np.arange(problem.layers)[:, None] * over
    return each + ((place - first) % gpus < over)
