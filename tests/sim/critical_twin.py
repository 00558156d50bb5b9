"""How long a step takes if communication is free, by layers: one batch, experts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.messages import Traffic


def critical_ns(dispatch: Traffic, combine: Traffic, compute_ns: NDArray[np.int64]) -> int:
    """Duration of the step on a network of infinite bandwidth and no latency.

    The same causality as in the engine: a GPU computes a layer when all its inputs are in and
    its previous layers are done; a token's origin needs the layer before. What remains of the
    step time beyond this is exposed communication.
    """
    gpus = compute_ns.shape[1]
    ready = np.zeros(gpus, dtype=np.int64)
    free = np.zeros(gpus, dtype=np.int64)
    for layer in range(dispatch.layers):
        out, back = dispatch.layer(layer), combine.layer(layer)
        done = free.copy()
        np.maximum.at(done, out.dst, ready[out.src])
        busy = np.unique(out.dst)
        free[busy] = done[busy] + compute_ns[layer, busy]
        ready = np.zeros(gpus, dtype=np.int64)
        np.maximum.at(ready, back.dst, free[back.src])
    return int(ready.max(initial=0))
