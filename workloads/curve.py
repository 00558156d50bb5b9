"""Loads as uneven as recorded ones: the curve of sorted loads, fitted to a recording."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from workloads._arrays import check_counts
from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.model import MoEModel

MAX_LOG_LOAD = 50.0
"""Beyond it one expert would outweigh another by more than floats resolve."""


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """How uneven loads are, by their sorted logarithms.

    A layer's sorted log loads are the curve, plus a standard normal number of the layer times
    their spread, and one more for the hottest expert. Which expert takes which load is drawn
    anew: the curve does not say which experts were hot.

    Attributes
    ----------
    log_loads
        Log loads at equally many quantiles, ascending, of any mean.
    layer_spread
        By how much each differs between layers, at as many quantiles; empty for not at all.
    peak_sigma
        Standard deviation of the hottest expert's log load beyond that.
    group_correlation
        Correlation of the experts of one routing group in the ranking of a layer, 0 to 1;
        without groups in the model it has no effect.
    """

    log_loads: tuple[float, ...]
    layer_spread: tuple[float, ...] = ()
    peak_sigma: float = 0.0
    group_correlation: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("log_loads", "layer_spread"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
            if not all(abs(x) <= MAX_LOG_LOAD for x in getattr(self, name)):
                raise WorkloadError(
                    f"curve: {name} must be numbers of -{MAX_LOG_LOAD:g}..{MAX_LOG_LOAD:g}"
                )
        if not self.log_loads or any(a > b for a, b in pairwise(self.log_loads)):
            raise WorkloadError("curve: log_loads must ascend, at least one of them")
        if len(self.layer_spread) not in (0, len(self.log_loads)):
            raise WorkloadError(
                f"curve: {len(self.layer_spread)} of layer_spread, expected none or "
                f"{len(self.log_loads)} as log_loads"
            )
        if not 0 <= self.peak_sigma <= MAX_LOG_LOAD:
            raise WorkloadError(
                f"curve: peak_sigma is {self.peak_sigma}, expected 0..{MAX_LOG_LOAD:g}"
            )
        if not 0 <= self.group_correlation <= 1:
            raise WorkloadError(
                f"curve: group_correlation is {self.group_correlation}, expected 0..1"
            )

    def at(self, experts: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return log loads and spread of so many experts, float64 [experts], by interpolation."""
        known = (np.arange(len(self.log_loads)) + 0.5) / len(self.log_loads)
        wanted = (np.arange(experts) + 0.5) / experts
        spread = self.layer_spread or (0.0,) * len(self.log_loads)
        return np.interp(wanted, known, self.log_loads), np.interp(wanted, known, spread)


def fit_curve(load: NDArray[np.float64], model: MoEModel) -> LoadCurve:
    """Return the curve of recorded loads.

    The curve is the mean over layers of their sorted log loads, the spread the first principal
    component of what remains, the peak's deviation what then remains of the hottest experts.
    Experts without load count as half the least load there is.

    Parameters
    ----------
    load
        float64 [layers, experts], any scale.
    model
        Gives the routing groups.
    """
    check_counts(load, what="load")
    share = load / load.sum(axis=1, keepdims=True)
    floored = np.maximum(share, share[share > 0].min() / 2)
    ranked = np.log(np.sort(floored, axis=1))
    ranked -= ranked.mean(axis=1, keepdims=True)
    curve = ranked.mean(axis=0)
    left = ranked - curve
    scores, sizes, parts = np.linalg.svd(left, full_matrices=False)
    # The sign of a component is arbitrary: the hottest expert's spread is positive.
    sign = -1.0 if parts[0, -1] < 0 else 1.0
    sigma = float(sizes[0] * scores[:, 0].std())
    peak = left[:, -1] - sizes[0] * scores[:, 0] * parts[0, -1]
    return LoadCurve(
        log_loads=tuple(curve.tolist()),
        layer_spread=tuple((sign * sigma * parts[0]).tolist()),
        peak_sigma=float(peak.std()),
        group_correlation=_group_correlation(share, model),
    )


def _group_correlation(load: NDArray[np.float64], model: MoEModel) -> float:
    """Return the correlation of normal scores between experts of a group, pairs of all layers."""
    layers, experts = load.shape
    groups = model.n_group or 1
    size = experts // groups
    if groups < 2 or size < 2:
        return 0.0
    inverse = NormalDist().inv_cdf
    scores = np.array([inverse((i + 0.5) / experts) for i in range(experts)])
    ranks = np.argsort(np.argsort(load, axis=1, kind="stable"), axis=1)
    grouped = scores[ranks].reshape(layers, -1, size)
    products = grouped.sum(axis=2) ** 2 - (grouped**2).sum(axis=2)
    found = products.mean() / (size * (size - 1)) / (scores**2).mean()
    # Scores of a layer sum to 0, which takes their mean's variance, r / groups + (1 - r) / experts,
    # from both covariance and variance.
    left = 1.0 - found
    correlation = (found + left / experts) / (1.0 - left * (1.0 / groups - 1.0 / experts))
    return float(np.clip(correlation, 0.0, 1.0))
