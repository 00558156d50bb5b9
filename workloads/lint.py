"""What should make one doubt a recording before a placement is fitted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workloads.trace_statistics import load_variance, total_variation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workloads.trace_counts import TraceCounts
    from workloads.trace_statistics import WorkloadStatistics

UNLIKE = 1.5
"""So many times the difference seen elsewhere is called unlike."""
MOST_ERROR = 0.05
"""Standard error of a load over the mean load beyond which tokens are called too few."""
LEAST_CORRELATION = 0.95
"""Below it the loads of two phases are called different."""
LEAST_EXPECTED = 10.0
"""Choices that an expert of mean load should have before one without any is called dead."""


def lint_load(load: NDArray[np.float64], *, top_k: int) -> tuple[str, ...]:
    """Return warnings on loads, one line each.

    Parameters
    ----------
    load
        float64 [layers, experts], any scale.
    top_k
        Choices of a token: a layer needs more experts than that in use.
    """
    used = (load > 0).sum(axis=1)
    dead = np.flatnonzero((used <= top_k) & (used < load.shape[1]))
    found = []
    if len(dead):
        found.append(
            f"dead layers: {len(dead)} use no more experts than a token takes; layer "
            f"{int(dead[0])} uses {int(used[dead[0]])} of {load.shape[1]}"
        )
    unused = np.argwhere((load == 0) & (used > top_k)[:, None])
    if len(unused):
        layer, expert = (int(i) for i in unused[0])
        found.append(
            f"dead experts: {len(unused)} were never chosen, the first is expert {expert} of "
            f"layer {layer}"
        )
    return tuple(found)


def lint_trace(counts: TraceCounts, figures: WorkloadStatistics) -> tuple[str, ...]:
    """Return warnings on a trace, one line each.

    Parameters
    ----------
    counts, figures
        Of the trace.
    """
    load = counts.counts
    expected = counts.tokens * counts.top_k / counts.experts
    found = [
        line
        for line in lint_load(load.astype(np.float64), top_k=counts.top_k)
        # Of few tokens, experts without any are to be expected.
        if expected >= LEAST_EXPECTED or line.startswith("dead layers")
    ]
    found += _few_tokens(counts, figures)
    found += _warm_up(counts)
    if figures.prefill_decode_correlation is not None:
        mean = figures.prefill_decode_correlation
        if mean < LEAST_CORRELATION:
            found.append(
                f"mixed phases: loads of prefill and decode correlate by {mean:.2f} only, in one "
                f"layer by {figures.prefill_decode_least:.2f}; a placement for one is none for "
                "the other"
            )
    return tuple(found)


def window_distances(counts: TraceCounts) -> NDArray[np.float64]:
    """Return how far every window is from all others, float64 [windows]: total variation."""
    whole = counts.counts
    shares = []
    for window in counts.windows:
        rest = whole - window
        shares.append(
            total_variation(
                window / window.sum(axis=1, keepdims=True), rest / rest.sum(axis=1, keepdims=True)
            )
        )
    return np.array(shares)


def _few_tokens(counts: TraceCounts, figures: WorkloadStatistics) -> list[str]:
    error, peak = figures.load_error, figures.max_over_mean_error
    if error is None or peak is None or error <= MOST_ERROR:
        return []
    needed = counts.tokens * (error / MOST_ERROR) ** 2
    alone = "" if counts.sequences > 1 else ", if tokens were independent (one sequence only)"
    said = (
        f"too few tokens: standard error of a load {100 * error:.1f} % of the mean load, of "
        f"max/mean {peak:.2f}{alone}; about {needed:,.0f} tokens like these would give "
        f"{100 * MOST_ERROR:.0f} %"
    )
    return [said]


def _warm_up(counts: TraceCounts) -> list[str]:
    if len(counts.windows) < 3:
        return []
    away, noise = window_distances(counts), _noise(counts)
    first, others = float(away[0]), float(away[1:].max())
    if first <= UNLIKE * max(others, noise):
        return []
    said = (
        f"warm-up: the first {counts.tokens // len(counts.windows):,} tokens differ from the rest "
        f"by a total variation of {first:.3f}, other windows by {others:.3f} at most; leave them "
        "out"
    )
    return [said]


def _noise(counts: TraceCounts) -> float:
    """Return the total variation to expect between a window and the rest without any drift.

    A normal variable of variance v has a mean absolute value of ``sqrt(2 v / pi)``; a window of
    1/w of the tokens has w times the variance, the rest w/(w-1) times.
    """
    variance, _ = load_variance(counts)
    windows = len(counts.windows)
    factor = windows + windows / (windows - 1)
    return float(0.5 * np.sqrt(2.0 / np.pi * factor * variance).sum() / len(variance))
