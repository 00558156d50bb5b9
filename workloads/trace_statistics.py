"""What sets one workload apart from another: the figures of `topomoe stats` and `topomoe fit`.

Loads differ between experts (`LoadStatistics`); beyond that, a trace tells which experts are
chosen together and after one another, how phases, domains and times differ, and how sure all of
this is. Differences between two distributions are total variations, half the sum of absolute
differences: 0 for equal ones, 1 where they share nothing. Those of counted loads never reach 0:
independent draws from the same loads differ too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.statistics import gini, loglog_slope, max_over_mean, top_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.trace_counts import TraceCounts

TOP_PAIRS = 100
"""One of so many pairs of experts counts as a top pair."""
_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class WorkloadStatistics:
    """Figures of loads or of a trace, means over layers; None where nothing tells.

    Attributes
    ----------
    source
        Where the loads or choices come from.
    layers, experts
        Shape of the routing.
    tokens, sequences, top_k
        Of a trace.
    gini, hottest_share, top_eighth_share, max_over_mean, max_over_mean_most, loglog_slope
        As `LoadStatistics`; no slope where half the experts of no layer have a load.
    unused_experts
        Experts without load, of all layers together.
    pair_excess
        Total variation between pairs of experts chosen together and pairs as expected from the
        experts' loads alone.
    pair_top_share
        Share of the pairs of choices that falls on the most frequent hundredth of all pairs.
    affinity_excess
        Total variation between choices at neighbouring layers together and independent of each
        other.
    prefill_decode_correlation, prefill_decode_least
        Pearson correlation of the loads of both phases: mean and least over layers.
    domain_correlation, domain_least
        The same between domains: mean over pairs of domains and layers, and least.
    drift_neighbours, drift_ends
        Total variation between the loads of neighbouring eighths of the trace, and between the
        first and the last.
    drift_ends_correlation
        Pearson correlation between the first and the last eighth.
    design_effect
        Variance of the counted loads, from how sequences differ, over that of as many
        independent tokens; None with one sequence.
    load_error
        Standard error of a load, root mean square, over the mean load.
    max_over_mean_error
        Standard error of the hottest expert's load over the mean load; it takes for granted
        which expert is hottest.
    """

    source: str
    layers: int
    experts: int
    gini: float
    hottest_share: float
    top_eighth_share: float
    max_over_mean: float
    max_over_mean_most: float
    loglog_slope: float | None
    unused_experts: int
    tokens: int | None = None
    sequences: int | None = None
    top_k: int | None = None
    pair_excess: float | None = None
    pair_top_share: float | None = None
    affinity_excess: float | None = None
    prefill_decode_correlation: float | None = None
    prefill_decode_least: float | None = None
    domain_correlation: float | None = None
    domain_least: float | None = None
    drift_neighbours: float | None = None
    drift_ends: float | None = None
    drift_ends_correlation: float | None = None
    design_effect: float | None = None
    load_error: float | None = None
    max_over_mean_error: float | None = None


def load_statistics(load: NDArray[np.float64], *, source: str) -> WorkloadStatistics:
    """Return the figures that loads alone tell.

    Parameters
    ----------
    load
        float64 [layers, experts], any scale.
    source
        Where they come from.
    """
    peaks = max_over_mean(load)
    return WorkloadStatistics(
        source=source,
        layers=load.shape[0],
        experts=load.shape[1],
        gini=float(gini(load).mean()),
        hottest_share=float(top_share(load, 1).mean()),
        top_eighth_share=float(top_share(load, max(1, load.shape[1] // 8)).mean()),
        max_over_mean=float(peaks.mean()),
        max_over_mean_most=float(peaks.max()),
        loglog_slope=_slope(load),
        unused_experts=int((load == 0).sum()),
    )


def trace_statistics(counts: TraceCounts) -> WorkloadStatistics:
    """Return the figures of a trace.

    Parameters
    ----------
    counts
        As `count_trace` counts them.
    """
    load = _shares(counts.counts)
    loads = load_statistics(load, source=counts.source)
    variance, effect = load_variance(counts)
    hottest = np.take_along_axis(variance, load.argmax(axis=1)[:, None], axis=1)
    return replace(
        loads,
        tokens=counts.tokens,
        sequences=counts.sequences,
        top_k=counts.top_k,
        **_pair_figures(counts),
        **_kind_figures(counts),
        **_drift_figures(counts),
        design_effect=effect,
        load_error=float(np.sqrt(variance.mean()) * counts.experts),
        max_over_mean_error=float(np.sqrt(hottest).mean() * counts.experts),
    )


def load_variance(counts: TraceCounts) -> tuple[NDArray[np.float64], float | None]:
    """Return the variance of the counted loads, and how far it exceeds that of lone tokens.

    Sequences are taken as drawn independently of each other: with c choices of an expert in a
    sequence of n tokens, ``S / (S - 1) * sum (c - n p)^2 / N^2`` is the variance of p = C / N, the
    ratio estimator of cluster sampling (Cochran, Sampling Techniques, 3rd edition, 1977).
    With one sequence, tokens are taken as independent, which tokens of a sequence seldom are.

    Returns
    -------
    float64 [layers, experts], float or None
        Variance of a load, and its mean ratio over layers to that of independent tokens.
    """
    chance = counts.counts / counts.tokens
    alone = chance * (1.0 - chance) / counts.tokens
    if counts.sequences < 2:
        return alone / counts.top_k**2, None
    square, product = counts.squares
    spread = square - 2.0 * chance * product + chance**2 * counts.squared_lengths
    factor = counts.sequences / (counts.sequences - 1) / counts.tokens**2
    together = factor * np.maximum(spread, 0.0)
    known = alone.sum(axis=1) > 0
    effect = together[known].sum(axis=1) / alone[known].sum(axis=1)
    return together / counts.top_k**2, float(effect.mean()) if known.any() else None


def expected_pairs(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how often pairs would be chosen together if only the experts' loads mattered.

    ``d_i d_j`` off the diagonal, with d such that every expert is in as many pairs as it was:
    quasi-independence of a table without its diagonal (Goodman, JASA 63, 1968).

    Parameters
    ----------
    pairs
        float64 [layers, E, E], symmetric, zero on the diagonal.
    """
    rows = pairs.sum(axis=2)
    scale = rows / np.sqrt(rows.sum(axis=1, keepdims=True))
    for _ in range(_ROUNDS):
        others = scale.sum(axis=1, keepdims=True) - scale
        scale = np.sqrt(scale * rows / np.where(others > 0, others, 1.0))
    expected: NDArray[np.float64] = scale[:, :, None] * scale[:, None, :]
    _clear_diagonal(expected)
    return expected


def total_variation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the mean over layers of half the sum of absolute differences, axis 0 the layers."""
    return 0.5 * float(np.abs(first - second).sum()) / len(first)


def correlations(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Pearson correlation of every layer, float64 [layers]; NaN for equal loads."""
    one = first - first.mean(axis=1, keepdims=True)
    two = second - second.mean(axis=1, keepdims=True)
    scale = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    product = (one * two).sum(axis=1)
    ratio: NDArray[np.float64] = product / np.where(scale > 0, scale, np.nan)
    return ratio


def _pair_figures(counts: TraceCounts) -> dict[str, Any]:
    excess = top = affinity = None
    if counts.top_k > 1 and counts.experts > 1:
        pairs = counts.pairs.astype(np.float64)
        _clear_diagonal(pairs)
        expected = expected_pairs(pairs)
        total = pairs.sum(axis=(1, 2))
        excess = 0.5 * float((np.abs(pairs - expected).sum(axis=(1, 2)) / total).mean())
        upper = np.triu_indices(counts.experts, 1)
        each = np.sort(pairs[:, upper[0], upper[1]], axis=1)[:, ::-1]
        hottest = max(1, len(upper[0]) // TOP_PAIRS)
        top = float((2.0 * each[:, :hottest].sum(axis=1) / total).mean())
    if len(counts.followers):
        joint = counts.followers / counts.followers.sum(axis=(1, 2), keepdims=True)
        apart = joint.sum(axis=2)[:, :, None] * joint.sum(axis=1)[:, None, :]
        affinity = total_variation(joint, apart)
    return {"pair_excess": excess, "pair_top_share": top, "affinity_excess": affinity}


def _kind_figures(counts: TraceCounts) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, kinds in (("prefill_decode", counts.phases), ("domain", counts.domains)):
        mean, least = _between(kinds)
        figures[f"{name}_correlation"], figures[f"{name}_least"] = mean, least
    return figures


def _between(kinds: NDArray[np.int64] | None) -> tuple[float | None, float | None]:
    """Return mean and least correlation between the kinds that have tokens."""
    loads = [] if kinds is None else [_shares(each) for each in kinds if each.any()]
    values = [correlations(a, b) for a, b in combinations(loads, 2)]
    known = np.concatenate(values) if values else np.empty(0)
    known = known[np.isfinite(known)]
    return (float(known.mean()), float(known.min())) if len(known) else (None, None)


def _drift_figures(counts: TraceCounts) -> dict[str, Any]:
    windows = [_shares(each) for each in counts.windows]
    if len(windows) < 2:
        return {}
    neighbours = [total_variation(a, b) for a, b in pairwise(windows)]
    ends = correlations(windows[0], windows[-1])
    ends = ends[np.isfinite(ends)]
    return {
        "drift_neighbours": float(np.mean(neighbours)),
        "drift_ends": total_variation(windows[0], windows[-1]),
        "drift_ends_correlation": float(ends.mean()) if len(ends) else None,
    }


def _slope(load: NDArray[np.float64]) -> float | None:
    """Return the mean slope over the layers that have one."""
    used = max(2, load.shape[1] // 2)
    enough = (load > 0).sum(axis=1) >= used
    if not enough.any() or load.shape[1] < used:
        return None
    try:
        return float(loglog_slope(load[enough]).mean())
    except WorkloadError:
        return None


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _clear_diagonal(square: NDArray[np.float64]) -> None:
    side = np.arange(square.shape[1])
    square[:, side, side] = 0.0
