"""Is B worth it: two sides of runs, paired by what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import ExperimentError
from experiments.report.differences import corrected, paired
from experiments.report.measures import MEASURES
from experiments.report.runs import SEEDS, read_runs, shown, varying
from experiments.sweeping.progress import counted
from experiments.sweeping.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.report.differences import Difference
    from experiments.report.measures import Measure
    from experiments.report.runs import ReportRun

_SHORTEST_ID = 6
_TOKENS = ("model", "tokens", "sha256.workload", "workload.", "attention.", "dispatch.")
"""Keys that decide which tokens are routed, and what each sends."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of two alternatives.

    Attributes
    ----------
    name
        As it was asked for.
    runs
        Of it, at least one.
    """

    name: str
    runs: list[ReportRun]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What is known of B against A.

    Attributes
    ----------
    headline, details
        The answer in a sentence, and what to know beside it.
    rows
        The metric asked for in every cell, p-values corrected over them.
    others
        All other figures, cell by cell, each figure corrected by itself.
    unpaired
        Runs of both sides without a counterpart.
    """

    headline: str
    details: tuple[str, ...]
    rows: list[Difference]
    others: list[Difference]
    unpaired: int


def choose_sides(folder: Path | None, names: tuple[str, str]) -> tuple[Side, Side]:
    """Find what A and B name: two stores, or runs, policies or placement files of one store.

    Raises
    ------
    ExperimentError
        If a name is none of these, or fits several runs.
    """
    if folder is None:
        paths = [Path(name) for name in names]
        runs = read_runs([open_store(path) for path in paths])
        has = [set(open_store(path).ids()) for path in paths]
        one, two = ([run for run in runs if run.run_id in ids] for ids in has)
    else:
        runs = read_runs([open_store(folder)])
        one, two = (_named(runs, name, folder) for name in names)
    for name, side in zip(names, (one, two), strict=True):
        if not side:
            raise ExperimentError(f"--compare {name}: has no run that is done; expected some")
    shown_as = names if folder is not None else _short(names)
    return Side(shown_as[0], one), Side(shown_as[1], two)


def answer(one: Side, two: Side, measure: Measure) -> Answer:
    """Compare B with A.

    Raises
    ------
    ExperimentError
        If no run of one side has a counterpart on the other but itself, or one has several.
    """
    treated, keys = _told_apart(one, two)
    pairs = _pairs(one, two, keys)
    if all(first.run_id == second.run_id for first, second in pairs):
        raise ExperimentError(
            f"--compare {one.name} {two.name}: the same runs on both sides; expected alternatives"
        )
    rows = _rows(pairs, keys, (one.name, two.name), measure)
    if not rows:
        raise ExperimentError(f"--metric {measure.key}: these runs do not have it on both sides")
    others = [
        row
        for each in MEASURES
        if each.key != measure.key
        for row in _rows(pairs, keys, (one.name, two.name), each)
    ]
    unpaired = len(one.runs) + len(two.runs) - 2 * len(pairs)
    details = _details(one, two, treated, pairs, unpaired)
    return Answer(_headline(rows, (one.name, two.name)), details, rows, others, unpaired)


def _short(names: tuple[str, str]) -> tuple[str, str]:
    """Call stores by their folder alone: a page is for others, too; by their paths if need be."""
    one, two = (Path(name).resolve().name for name in names)
    return (one, two) if one != two else names


def _named(runs: list[ReportRun], name: str, folder: Path) -> list[ReportRun]:
    by_id = [run for run in runs if len(name) >= _SHORTEST_ID and run.run_id.startswith(name)]
    if len(by_id) > 1:
        raise ExperimentError(f"--compare {name}: fits {len(by_id)} runs; expected more of its id")
    if by_id:
        return by_id
    file = Path(name).name
    found = [run for run in runs if run.policy == name or run.spec.get("placement.file") == file]
    if found:
        return found
    allowed = ", ".join(sorted({run.policy for run in runs}))
    raise ExperimentError(
        f"--compare {name}: {folder} has no such run, policy or placement file; allowed: the id "
        f"of a run (at least {_SHORTEST_ID} characters), {allowed}; topomoe worth compares "
        "placement files that were not swept"
    )


def _told_apart(one: Side, two: Side) -> tuple[list[str], list[str]]:
    """Return the keys that make the sides, and those by which runs of both are paired.

    A key with one value on A and another one on B tells the sides apart; so do the options of
    placements where the policies do.
    """
    keys = varying([*one.runs, *two.runs])
    treated = [key for key in keys if _values(one, key).isdisjoint(_values(two, key))]
    options = ("placement.", "sha256.placement.")
    if any(key.startswith(options) for key in treated):
        treated += [key for key in keys if key.startswith(options) and key not in treated]
    # The hash of what a key names follows the key.
    treated += [f"sha256.{key}" for key in treated if f"sha256.{key}" in keys]
    return list(dict.fromkeys(treated)), [key for key in keys if key not in treated]


def _values(side: Side, key: str) -> set[object]:
    return {run.spec.get(key) for run in side.runs}


def _pairs(one: Side, two: Side, keys: list[str]) -> list[tuple[ReportRun, ReportRun]]:
    first, second = ({_key(run, keys): run for run in side.runs} for side in (one, two))
    for side, found in ((one, first), (two, second)):
        if len(found) < len(side.runs):
            inner = [key for key in varying(side.runs) if key not in keys]
            raise ExperimentError(
                f"--compare {side.name}: has several runs that differ by {', '.join(inner[:3])} "
                "alone; expected one for each of the other side: name one policy or run"
            )
    pairs = [(run, second[key]) for key, run in first.items() if key in second]
    if not pairs:
        raise ExperimentError(
            f"--compare {one.name} {two.name}: no run of one has a counterpart in the other; "
            f"they differ by {', '.join(keys[:4]) or 'nothing'} in ways that do not pair"
        )
    return pairs


def _key(run: ReportRun, keys: list[str]) -> tuple[object, ...]:
    return tuple(run.spec.get(key) for key in keys)


def _rows(
    pairs: list[tuple[ReportRun, ReportRun]],
    keys: list[str],
    names: tuple[str, str],
    measure: Measure,
) -> list[Difference]:
    cells: dict[str, list[tuple[float, float]]] = {}
    apart = [key for key in keys if key not in SEEDS and not key.startswith("sha256.")]
    for one, two in pairs:
        values = one.value(measure.key), two.value(measure.key)
        if values[0] is not None and values[1] is not None:
            cell = ", ".join(shown(one.spec.get(key)) for key in apart)
            cells.setdefault(cell, []).append((values[0], values[1]))
    found = [
        paired(
            (cell, names[1], names[0]), measure, *(list(side) for side in zip(*both, strict=True))
        )
        for cell, both in cells.items()
    ]
    return corrected(found)


def _headline(rows: Sequence[Difference], names: tuple[str, str]) -> str:
    """Answer in one sentence, and claim no more than the tests allow."""
    one, two = names
    what = rows[0].measure.label
    if len(rows) == 1:
        row = rows[0]
        return f"{_word(row)}: {what} of {two} against {one} {row.change()}; {row.verdict()}."
    better = sum(row.significant and row.better for row in rows)
    worse = sum(row.significant and not row.better for row in rows)
    open_ = len(rows) - better - worse
    word = "Yes" if better == len(rows) else "No" if worse and not better else "It depends"
    if better == worse == 0:
        word = "Not shown"
    return (
        f"{word}: of {len(rows)} cases {what} of {two} is better than that of {one} in {better}, "
        f"worse in {worse}, and in {open_} no difference is significant."
    )


def _word(row: Difference) -> str:
    if not row.significant:
        return "Not shown"
    return "Yes" if row.better else "No"


def _details(
    one: Side,
    two: Side,
    treated: list[str],
    pairs: list[tuple[ReportRun, ReportRun]],
    unpaired: int,
) -> tuple[str, ...]:
    first, second = pairs[0]
    said = [
        f"{key}: {shown(first.spec.get(key))} in A, {shown(second.spec.get(key))} in B"
        for key in treated
        if not key.startswith("sha256.") and first.spec.get(key) != second.spec.get(key)
    ]
    lines = [
        f"A is {one.name}, B is {two.name}; {counted(len(pairs), 'pair')} of runs.",
        f"What differs: {'; '.join(said) if said else 'nothing but what the files hold'}.",
    ]
    other = [key for key in treated if key.startswith(_TOKENS)]
    if other:
        lines.append(
            f"A and B do not carry the same work: {', '.join(other)}. "
            "A difference may come of that."
        )
    if unpaired:
        verbs = ("has", "does") if unpaired == 1 else ("have", "do")
        lines.append(
            f"{counted(unpaired, 'run')} {verbs[0]} no counterpart on the other side and "
            f"{verbs[1]} not count."
        )
    lines.append("What moving the experts costs, topomoe worth says.")
    return tuple(lines)
