"""Policies beside each other: means, intervals, the best, and what is not significantly worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.errors import FigureError, StatisticsError
from experiments.labels import PLACE
from experiments.statistics import (
    compare_pairs,
    fewest_pairs,
    holm,
    mean_interval,
    pairs_needed,
)
from placement import POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

METRICS = {
    "hops_per_token_layer": ("hops", 1.0),
    "balance_gpu": ("busiest GPU / mean", 1.0),
    "busiest_link_s": ("busiest link, us", 1e6),
    "step_s": ("step, ms", 1e3),
    "tpot_s": ("TPOT, ms", 1e3),
}
"""Figures that tables show, what they call them, and their unit; less is better in all."""
LEVEL = 0.05
_ROUNDING = 1e-9
"""Part of a figure below which a difference is that of floating-point sums."""


def shown_metrics(runs: pd.DataFrame) -> list[str]:
    """Return those of `METRICS` that every run has.

    Raises
    ------
    FigureError
        If there is none.
    """
    found = [
        name
        for name in METRICS
        if name in runs.columns and pd.to_numeric(runs[name], errors="coerce").notna().all()
    ]
    if not found:
        raise FigureError(f"runs: no column to compare; expected one of {', '.join(METRICS)}")
    return found


def compare_policies(
    runs: pd.DataFrame, metrics: Sequence[str], rng: np.random.Generator
) -> pd.DataFrame:
    """Compare the policies of every model, setting and cluster with the best one there.

    Parameters
    ----------
    runs
        Labelled runs; see `experiments.labels`.
    metrics
        Columns, of which less is better.
    rng
        Draws resamples.

    Returns
    -------
    pandas.DataFrame
        A row per place, metric and series: ``mean``, ``low`` and ``high`` (95 % bootstrap, NaN
        for a single run), ``runs``, ``best`` (least mean), ``pairs`` that it has with the best,
        ``p_value`` of the paired sign-flip test against it, raised after Holm for the policies
        of the place, ``significant`` at 5 %, and ``needed``, the seeds with which a difference of
        the size and spread seen shows in four sweeps of five (NaN where that cannot be told). The
        best itself, and what has no common replicate with it, has p NaN.
    """
    parts, seed = [], int(rng.integers(2**63))
    for place, own in runs.groupby(list(PLACE), sort=False):
        for metric in metrics:
            figures = pd.to_numeric(own.set_index(["replicate", "series"])[metric])
            values = figures.unstack()  # noqa: PD010  a matrix is wanted
            # The same resamples for every figure, so that equal figures have equal intervals.
            table = _compared(values[_in_order(values.columns)], np.random.default_rng(seed))
            for column, value in zip(PLACE, place, strict=True):
                table[column] = str(value)
            parts.append(table.assign(metric=metric))
    return pd.concat(parts, ignore_index=True)


def _in_order(series: Iterable[str]) -> list[str]:
    """Return the series as figures list them: built-in policies first, the others by name."""
    ranks = {name: at for at, name in enumerate(POLICIES)}
    return sorted(series, key=lambda name: (ranks.get(name.partition(" ")[0], len(ranks)), name))


def _compared(values: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Compare columns of replicates with the one of the least mean."""
    means = values.mean()
    best = means.index[int(np.argmin(means.to_numpy()))]
    rows: list[dict[str, Any]] = []
    for series in values.columns:
        interval = mean_interval(values[series].dropna().to_numpy(), rng)
        least, own = _paired(values[best].to_numpy(), values[series].to_numpy())
        tested = series != best and len(own) > 0
        pair = compare_pairs(least, own, rng) if tested else None
        rows.append(
            {
                "series": series,
                "mean": interval.mean,
                "low": np.nan if interval.low is None else interval.low,
                "high": np.nan if interval.high is None else interval.high,
                "runs": interval.count,
                "best": bool(np.isclose(means[series], means[best], rtol=_ROUNDING, atol=0.0)),
                "pairs": len(own),
                "p_value": np.nan if pair is None else pair.p_value,
                "needed": np.nan if pair is None else _needed(own - least, values.shape[1] - 1),
            }
        )
    table = pd.DataFrame(rows)
    tests = table["p_value"].notna().to_numpy()
    table.loc[tests, "p_value"] = holm(table.loc[tests, "p_value"].to_numpy())
    return table.assign(significant=table["p_value"] <= LEVEL)


def _paired(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what both have, the other's equal to the one's where rounding alone differs."""
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    return one, np.where(np.isclose(other, one, rtol=_ROUNDING, atol=0.0), one, other)


def _needed(differences: NDArray[np.float64], tests: int) -> float:
    """Return the seeds that would likely show it in one of so many tests; NaN if unknown."""
    if len(differences) < 2 or differences.mean() <= 0:
        return np.nan
    spread, mean = float(differences.std(ddof=1)), float(differences.mean())
    try:
        return pairs_needed(spread, mean, level=LEVEL / tests)
    except StatisticsError:
        return np.nan


def remarks(compared: pd.DataFrame) -> list[str]:
    """Say what the marks of a table mean, and what the runs cannot tell."""
    runs = sorted(set(compared["runs"]))
    if runs == [1]:
        return ["One run of each: no intervals, and no difference can be called significant."]
    count = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    lines = [
        (
            f"Mean of {count} runs, plus or minus the wider side of the 95 % bootstrap interval. "
            "Bold: least mean. Dagger: not significantly above it (sign-flip test on pairs of "
            "equal seeds, 5 %, Holm's correction for the policies of a block)."
        )
    ]
    tested = compared[compared["p_value"].notna()]
    policies = tested.groupby([*PLACE, "metric"])["series"].transform("size")
    pairs, wanted = tested["pairs"], policies.map(lambda tests: fewest_pairs(LEVEL / tests))
    if (pairs < wanted).any():
        lines.append(
            f"So few pairs ({int(pairs.min())}) cannot show a difference between so many policies: "
            f"expected at least {int(wanted.max())} seeds."
        )
    return lines
