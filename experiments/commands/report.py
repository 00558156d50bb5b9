"""`topomoe report`: a store of runs as one HTML file, or whether B is worth it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.atomic import check_destinations, write_atomic
from experiments.commands.show import console
from experiments.errors import ExperimentError
from experiments.report import answer, choose_sides, measure_named, read_runs, render
from experiments.report.differences import differences, reference_of
from experiments.report.page import Page
from experiments.report.runs import rename
from experiments.report.summary import findings, scope
from experiments.sweeping.progress import counted
from experiments.sweeping.store import open_store

if TYPE_CHECKING:
    from experiments.report.measures import Measure


def run(
    results: Path | None,
    *,
    out: Path,
    compare: tuple[str, str] | None,
    metric: str,
    reference: str | None,
) -> None:
    """Read the runs, say what they show, and write the page."""
    measure = measure_named(metric)
    if out.suffix not in (".html", ".htm"):
        raise ExperimentError(f"{out}: expected a name that ends in .html")
    if compare is not None and reference is not None:
        raise ExperimentError("--reference goes without --compare, whose A is the reference")
    check_destinations([out])
    if compare is not None:
        page = _comparison(results, compare, measure)
    elif results is not None:
        page = _report(results, measure, reference)
    else:
        raise ExperimentError("no results: expected the folder of a sweep, or --compare A B")
    html = render(page)
    write_atomic(out, html)
    for line in _lines(page):
        console.print(line, soft_wrap=True)
    console.print(
        f"report of {counted(len(page.runs), 'run')}, {len(html) / 1e6:.2f} MB: {out}",
        soft_wrap=True,
    )


def _report(results: Path, measure: Measure, reference: str | None) -> Page:
    runs = read_runs([open_store(results)])
    name = Path(results).resolve().name
    if all(each.value(measure.key) is None for each in runs):
        raise ExperimentError(f"--metric {measure.key}: no run of {results} has this figure")
    policies = [each.policy for each in runs]
    return Page(f"{name}: placements compared", runs, measure, reference_of(policies, reference))


def _comparison(results: Path | None, names: tuple[str, str], measure: Measure) -> Page:
    one, two = choose_sides(results, names)
    found = answer(one, two, measure)
    runs = rename(list({each.run_id: each for each in (*one.runs, *two.runs)}.values()))
    first = {each.run_id for each in one.runs}
    reference = next(each.policy for each in runs if each.run_id in first)
    return Page(f"Is {two.name} worth it against {one.name}?", runs, measure, reference, found)


def _lines(page: Page) -> list[str]:
    if page.answer is not None:
        return [page.answer.headline, *page.answer.details]
    tested = differences(page.runs, page.measure, page.reference)
    return [scope(page.runs), *findings(tested, page.measure, page.runs)]
