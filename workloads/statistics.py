"""How uneven expert loads are: the figures by which recorded and synthetic loads are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workloads._arrays import check_counts
from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gini(load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gini coefficient of every layer, float64 [layers].

    ``sum_i (2i - n - 1) x_i / (n sum x)`` over ascending loads x_1 .. x_n: 0 for equal loads,
    (n-1)/n where one expert takes all.

    Parameters
    ----------
    load
        float64 [layers, experts], any scale.
    """
    check_counts(load, what="load")
    count = load.shape[1]
    weights = 2.0 * np.arange(1, count + 1) - count - 1
    gaps: NDArray[np.float64] = np.sort(load, axis=1) @ weights / (count * load.sum(axis=1))
    return gaps


def top_share(load: NDArray[np.float64], hottest: int) -> NDArray[np.float64]:
    """Return the share of every layer's load on its `hottest` experts, float64 [layers].

    Parameters
    ----------
    load
        float64 [layers, experts], any scale.
    hottest
        How many experts count as hot, 1..experts.
    """
    check_counts(load, what="load")
    _check_ranks(hottest, load.shape[1], least=1)
    share: NDArray[np.float64] = _descending(load)[:, :hottest].sum(axis=1) / load.sum(axis=1)
    return share


def max_over_mean(load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the hottest expert's load over the mean load, float64 [layers].

    Parameters
    ----------
    load
        float64 [layers, experts], any scale.
    """
    check_counts(load, what="load")
    ratio: NDArray[np.float64] = load.max(axis=1) / load.mean(axis=1)
    return ratio


def loglog_slope(load: NDArray[np.float64], ranks: int | None = None) -> NDArray[np.float64]:
    """Return the exponent of a power law through the hottest experts, float64 [layers].

    Least squares of log load on log rank (1 the hottest), sign turned: Zipf's law gives 1.

    Parameters
    ----------
    load
        float64 [layers, experts], any scale.
    ranks
        How many of the hottest experts the line runs through; by default half of them.

    Raises
    ------
    WorkloadError
        One of those experts has no load, and so no logarithm.
    """
    check_counts(load, what="load")
    used = max(2, load.shape[1] // 2) if ranks is None else ranks
    _check_ranks(used, load.shape[1], least=2)
    hot = _descending(load)[:, :used]
    unused = np.flatnonzero(hot[:, -1] <= 0)
    if len(unused):
        raise WorkloadError(
            f"load of layer {int(unused[0])}: fewer than {used} experts in use, "
            "expected a load for every rank of the slope"
        )
    rank = np.log(np.arange(1, used + 1))
    centred = rank - rank.mean()
    slope: NDArray[np.float64] = -(np.log(hot) @ centred) / (centred @ centred)
    return slope


@dataclass(frozen=True, slots=True)
class LoadStatistics:
    """Means over layers of how uneven loads are.

    Attributes
    ----------
    gini, gini_least, gini_most
        Gini coefficient: mean, least and greatest over layers.
    hottest_share
        Share of the hottest expert.
    max_over_mean, max_over_mean_most
        Hottest expert over the mean expert: mean and greatest over layers.
    top_eighth_share
        Share of the hottest eighth of the experts (32 of 256).
    loglog_slope
        Power-law exponent through the hotter half of the experts.
    """

    gini: float
    gini_least: float
    gini_most: float
    hottest_share: float
    max_over_mean: float
    max_over_mean_most: float
    top_eighth_share: float
    loglog_slope: float

    @classmethod
    def of(cls, load: NDArray[np.float64]) -> LoadStatistics:
        """Summarise loads, float64 [layers, experts], any scale."""
        ginis, peaks = gini(load), max_over_mean(load)
        return cls(
            gini=float(ginis.mean()),
            gini_least=float(ginis.min()),
            gini_most=float(ginis.max()),
            hottest_share=float(top_share(load, 1).mean()),
            max_over_mean=float(peaks.mean()),
            max_over_mean_most=float(peaks.max()),
            top_eighth_share=float(top_share(load, max(1, load.shape[1] // 8)).mean()),
            loglog_slope=float(loglog_slope(load).mean()),
        )


def _descending(load: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort(load, axis=1)[:, ::-1]


def _check_ranks(ranks: int, experts: int, *, least: int) -> None:
    if not least <= ranks <= experts:
        raise WorkloadError(f"{ranks} hottest experts asked for, expected {least}..{experts}")
