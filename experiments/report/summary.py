"""What a report says first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.report.differences import Difference
    from experiments.report.measures import Measure
    from experiments.report.runs import ReportRun

MOST = 6
"""Findings that fit into a summary."""


def scope(runs: Sequence[ReportRun]) -> str:
    """Say what was run."""
    counts = [
        (len(runs), "run"),
        (len({run.policy for run in runs}), "placement"),
        (len({run.spec["cluster"] for run in runs}), "cluster"),
        (len({run.seed for run in runs}), "seed"),
    ]
    models = ", ".join(dict.fromkeys(str(run.spec["model"]) for run in runs))
    parts = [f"{count:,} {word}{'s' * (count != 1)}" for count, word in counts]
    return f"{models}: {', '.join(parts)}."


def findings(
    tested: Sequence[Difference], measure: Measure, runs: Sequence[ReportRun]
) -> list[str]:
    """Say of every cell which placement came out best, and whether that is more than chance."""
    cells = list(dict.fromkeys(run.cell for run in runs))
    said = [_finding(cell, tested, measure, runs) for cell in cells[:MOST]]
    if len(cells) > MOST:
        said.append(f"{len(cells) - MOST} more cases are in the tables below.")
    return [each for each in said if each]


def _finding(
    cell: str, tested: Sequence[Difference], measure: Measure, runs: Sequence[ReportRun]
) -> str:
    means = _means(cell, measure, runs)
    if not means:
        return ""
    sign = -1 if measure.more_is_better else 1
    best = min(means, key=lambda policy: (sign * means[policy], policy))
    value = f"{measure.text(means[best])} {measure.unit}".strip()
    lead = f"{cell}: best" if cell else "Best"
    start = f"{lead} mean {measure.label} with {best}, {value}"
    rows = [each for each in tested if each.cell == cell]
    row = next((each for each in rows if each.policy == best), None)
    if row is not None:
        return f"{start}: {row.change()} against {row.reference}; {row.verdict()}."
    if not rows:
        return f"{start}; nothing to compare with."
    # The reference itself is best: how close the next one comes.
    following = min(rows, key=lambda each: (sign * means[each.policy], each.policy))
    return f"{start}; next {following.policy}, {following.change()}; {following.verdict()}."


def _means(cell: str, measure: Measure, runs: Sequence[ReportRun]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for run in runs:
        value = run.value(measure.key)
        if run.cell == cell and value is not None:
            values.setdefault(run.policy, []).append(value)
    return {policy: sum(each) / len(each) for policy, each in values.items()}
