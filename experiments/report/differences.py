"""What policies differ by on common traces, and whether chance explains it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from experiments.errors import ExperimentError
from experiments.report.measures import percent
from experiments.statistics import compare_pairs, fewest_pairs, holm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from experiments.report.measures import Measure
    from experiments.report.runs import ReportRun
    from experiments.statistics import PairedComparison

LEVEL = 0.05
"""Of a false alarm, over all rows of a table together."""
_ROUNDING = 1e-9
REFERENCES = ("round-robin", "contiguous")
"""Policies that others are held against, where they are among the runs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One side against another in one cell.

    Attributes
    ----------
    cell
        What both have in common.
    policy, reference
        What is compared, and with what.
    measure
        The figure.
    found
        Means, difference with its interval, and the test.
    p_value
        Raised for the number of tests that are read together (Holm).
    tests
        How many these are.
    """

    cell: str
    policy: str
    reference: str
    measure: Measure
    found: PairedComparison
    p_value: float
    tests: int = 1

    @property
    def share(self) -> float | None:
        """Difference over the reference's mean; None where that is 0."""
        return self.found.difference.mean / self.found.before if self.found.before else None

    @property
    def none(self) -> bool:
        """Whether both are equal, but for rounding."""
        return abs(self.found.difference.mean) <= _ROUNDING * abs(self.found.before)

    @property
    def significant(self) -> bool:
        """Whether there is a difference, and chance an unlikely explanation of it."""
        return self.p_value <= LEVEL and not self.none

    @property
    def better(self) -> bool:
        """Whether the difference is on the good side, significant or not."""
        change = self.found.difference.mean
        return change > 0 if self.measure.more_is_better else change < 0

    def change(self) -> str:
        """Return the difference in percent with its 95 % interval, where there is one."""
        span, mean = self.found.difference, self.found.before
        if self.share is None:
            return f"{self.measure.text(span.mean)} {self.measure.unit}".strip()
        if span.low is None or span.high is None:
            return percent(self.share)
        low, high = span.low / mean, span.high / mean
        return f"{percent(self.share)} [{100 * low:+.1f}, {100 * high:+.1f}]"

    def verdict(self) -> str:
        """Say in a few words what the difference is worth."""
        pairs = f"{self.found.pairs} pair{'s' * (self.found.pairs != 1)}"
        if self.none:
            return f"no difference ({pairs})"
        if self.significant:
            word = "better" if self.better else "worse"
            return f"{word}, significant (p = {self.p_value:.2g}, {pairs})"
        fewest = fewest_pairs(LEVEL / self.tests)
        if self.found.pairs < fewest:
            among = f" among {self.tests} tests" * (self.tests > 1)
            return f"not significant: {pairs}, where at least {fewest} are needed{among}"
        return f"not significant (p = {self.p_value:.2g}, {pairs})"


def reference_of(policies: Iterable[str], wanted: str | None) -> str:
    """Return the policy that others are held against.

    Raises
    ------
    ExperimentError
        If the wanted one is not among them.
    """
    names = sorted(set(policies))
    if wanted is not None:
        if wanted not in names:
            raise ExperimentError(
                f"--reference '{wanted}': no run has this policy; allowed: {', '.join(names)}"
            )
        return wanted
    return next((name for name in REFERENCES if name in names), names[0])


def differences(runs: Sequence[ReportRun], measure: Measure, reference: str) -> list[Difference]:
    """Hold every policy against the reference, seed by seed, in every cell that has both."""
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        value = run.value(measure.key)
        if value is not None:
            cells.setdefault(run.cell, {}).setdefault(run.policy, {})[run.seed] = value
    found = [
        each
        for cell, policies in cells.items()
        for policy, seeds in policies.items()
        if policy != reference and reference in policies
        for each in _paired((cell, policy, reference), measure, policies[reference], seeds)
    ]
    return corrected(found)


def corrected(found: list[Difference]) -> list[Difference]:
    """Raise the p-values of tests that are read together."""
    if not found:
        return []
    raised = holm([each.p_value for each in found])
    return [
        replace(each, p_value=float(p), tests=len(found))
        for each, p in zip(found, raised, strict=True)
    ]


def paired(
    names: tuple[str, str, str],
    measure: Measure,
    before: Sequence[float],
    after: Sequence[float],
) -> Difference:
    """Compare figures of the same tokens; `names` are cell, policy and reference."""
    # Of what is compared: the same resamples in every report, however many rows it has.
    seed = zlib.crc32("\0".join((*names, measure.key)).encode())
    found = compare_pairs(before, after, np.random.default_rng(seed))
    return Difference(*names, measure, found, found.p_value)


def _paired(
    names: tuple[str, str, str],
    measure: Measure,
    before: dict[str, float],
    after: dict[str, float],
) -> list[Difference]:
    common = [seed for seed in before if seed in after]
    if not common:
        return []
    one, two = ([side[seed] for seed in common] for side in (before, after))
    return [paired(names, measure, one, two)]
