"""`topomoe figures`: figures and tables for a paper, from results on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.atomic import check_destinations, write_atomic
from experiments.commands.show import console
from experiments.comparing import compare_policies, shown_metrics
from experiments.comparison_tables import comparison_latex, comparison_markdown
from experiments.errors import ExperimentError, FigureError
from experiments.figures.runs import CATALOGUE, NAMES, draw_figure
from experiments.figures.save import rendered
from experiments.figures.venue import venue
from experiments.labels import check_panels
from experiments.results import read_results

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from experiments.figures.venue import Venue
    from experiments.results import Results


def run(
    path: Path,
    *,
    style: str,
    out: Path | None,
    figures: Sequence[str],
    where: Sequence[str],
    over: Sequence[str],
) -> None:
    """Draw the figures asked for, by default all that the results allow, and write the tables.

    Everything is drawn before the first file is written.
    """
    place = venue(style)
    unknown = [name for name in figures if name not in CATALOGUE]
    if unknown:
        raise FigureError(f"--figure {unknown[0]}: unknown; allowed: {', '.join(NAMES)}")
    results = read_results(path, _conditions(where))
    folder = out or _beside(path) / "figures" / style
    pages: dict[str, dict[str, bytes]] = {}
    drawn: dict[str, list[str]] = {}
    refused: list[str] = []
    for name in figures or NAMES:
        try:
            own = _draw(name, results, place, over)
        except FigureError as error:
            if figures:
                raise
            refused.append(str(error))
        else:
            pages |= own
            drawn[name] = list(own)
    texts = {} if figures else _tables(results, over, refused)
    if not pages and not texts:
        raise FigureError(refused[0])
    if pages:
        texts["figures.md"] = _captions(drawn, results, over, place)
    files: dict[Path, str | bytes] = {
        folder / f"{page}.{kind}": content
        for page, kinds in pages.items()
        for kind, content in kinds.items()
    }
    files |= {folder / name: text for name, text in texts.items()}
    check_destinations(list(files))
    for target, content in files.items():
        write_atomic(target, content)
    for line in refused:
        console.print(f"not drawn: {line}", soft_wrap=True)
    console.print(f"{len(pages)} figures, {len(files)} files written to {folder}", soft_wrap=True)


def _conditions(where: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in where:
        column, equals, value = text.partition("=")
        if not equals:
            raise ExperimentError(f"--where {text}: expected column=value, as in cluster=fat-tree")
        if column in found:
            raise ExperimentError(f"--where {column} is given twice; expected it once")
        found[column] = value
    return found


def _beside(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _draw(
    name: str, results: Results, place: Venue, over: Sequence[str]
) -> dict[str, dict[str, bytes]]:
    pages = draw_figure(name, results, place, over)
    with place.context():
        return {page: rendered(figure) for page, figure in pages.items()}


def _tables(results: Results, over: Sequence[str], refused: list[str]) -> dict[str, str]:
    """Return the tables of the comparison, or say in `refused` why there are none."""
    try:
        runs = results.labelled(over)
        check_panels(runs, "tables")
        compared = compare_policies(runs, shown_metrics(runs), np.random.default_rng(0))
    except FigureError as error:
        refused.append(f"tables: {error}")
        return {}
    return {
        "comparison.md": comparison_markdown(compared),
        "comparison.tex": comparison_latex(compared),
    }


def _captions(
    drawn: dict[str, list[str]], results: Results, over: Sequence[str], place: Venue
) -> str:
    parts = [
        f"# Figures ({place.name}: column {place.column_in:.3f} in, text {place.text_in:.3f} in)"
    ]
    for name, pages in drawn.items():
        parts += [f"![{page}]({page}.png)" for page in pages]
        parts.append(CATALOGUE[name].caption)
    averaged = f", and over {', '.join(over)}" if over else ""
    parts.append(
        f"{len(results.runs)} runs. Means over runs that differ by their seeds alone{averaged}; "
        "bars and bands, where a figure has them, are 95 % bootstrap intervals (expanded "
        "percentiles) of these means, absent where there is one run."
    )
    return "\n\n".join(parts) + "\n"
