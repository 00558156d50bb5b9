"""Expert time on a GPU, and how long a step would take if communication were free."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.messages import Traffic
    from workloads import MoEModel


def expert_seconds(model: MoEModel, flops_per_s: float) -> float:
    """Seconds a GPU computes one choice of a token: 2 operations per parameter of an expert."""
    return 2 * model.parameters_per_expert / flops_per_s


def expert_ns(expert_tokens: NDArray[np.int64], seconds_per_token: float) -> NDArray[np.int64]:
    """int64 [layers, gpus]: time to process `expert_tokens` at a constant rate, rounded up."""
    if not (isfinite(seconds_per_token) and seconds_per_token >= 0):
        raise SimulationError(
            f"expert_seconds_per_token must be finite and 0 or more, got {seconds_per_token}"
        )
    longest = float(expert_tokens.max(initial=0)) * seconds_per_token
    if longest >= 1e9:
        raise SimulationError(f"expert time of {longest:.3g} s in one layer; expected below 1e9 s")
    duration: NDArray[np.int64] = np.ceil(expert_tokens * (seconds_per_token * 1e9) - 1e-6).astype(
        np.int64
    )
    return duration


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
