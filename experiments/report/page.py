"""The report as one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.report.details import LAYERS, read_details
from experiments.report.differences import differences
from experiments.report.measures import MEASURES
from experiments.report.provenance import provenance
from experiments.report.summary import findings, scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.report.compare import Answer
    from experiments.report.differences import Difference
    from experiments.report.measures import Measure
    from experiments.report.runs import ReportRun

MAX_BYTES = 8_000_000
"""Of the whole file."""
_DETAIL_BYTES = 4_000_000
_SHAPES = ("circle", "square", "triangle", "diamond", "cross")


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """What a report is asked to show.

    Attributes
    ----------
    title
        Of the page.
    runs
        All of them, in the order of the table.
    measure
        The figure that decides.
    reference
        Policy the others are held against.
    answer
        Of a comparison of two sides; None for a report of all.
    """

    title: str
    runs: Sequence[ReportRun]
    measure: Measure
    reference: str
    answer: Answer | None = None


def render(page: Page) -> str:
    """Return the page as HTML.

    Raises
    ------
    ExperimentError
        If it would be larger than `MAX_BYTES`, or what it shows cannot be read.
    """
    html: str = _environment().get_template("page.html.j2").render(_context(page))
    size = len(html.encode())
    if size > MAX_BYTES:
        raise ExperimentError(
            f"the report of {len(page.runs):,} runs takes {size / 1e6:.1f} MB; expected at most "
            f"{MAX_BYTES / 1e6:g}: sweep into several stores"
        )
    return html


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  slow to import

    return Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _context(page: Page) -> dict[str, Any]:
    tested = _tested(page)
    style, script = _asset("report.css"), _asset("report.js")
    columns = [each for each in MEASURES if any(_has(run, each) for run in page.runs)]
    details = read_details(page.runs, _DETAIL_BYTES)
    return {
        "page": page,
        "scope": scope(page.runs),
        "findings": [] if page.answer else findings(tested, page.measure, page.runs),
        "tested": tested,
        "answer": page.answer,
        "columns": columns,
        "cells": _distinct(run.cell for run in page.runs),
        "policies": _distinct(run.policy for run in page.runs),
        "seeds": any(run.seed for run in page.runs),
        "details": details,
        "layers": LAYERS,
        "provenance": provenance(page.runs),
        "style": _raw(style),
        "script": _raw(script),
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
        "data": _raw(_data(page, columns, details)),
    }


def _tested(page: Page) -> list[Difference]:
    if page.answer is not None:
        return page.answer.rows
    return differences(page.runs, page.measure, page.reference)


def _has(run: ReportRun, measure: Measure) -> bool:
    return run.value(measure.key) is not None


def _distinct(values: Any) -> list[str]:
    return list(Counter(values))


def _data(page: Page, columns: Sequence[Measure], details: Any) -> str:
    """Return what the script reads, as JSON that cannot end its element."""
    content = {
        "measures": [
            {"key": each.key, "title": each.title, "more": each.more_is_better} for each in columns
        ],
        "runs": [
            {
                "id": run.run_id,
                "policy": run.policy,
                "cell": run.cell,
                "seed": run.seed,
                "values": [_scaled(run, each) for each in columns],
            }
            for run in page.runs
        ],
        "policies": _looks(page.runs),
        "reference": page.reference,
        "metric": page.measure.key,
        "layers": {key: title for key, (title, _) in LAYERS.items()},
        "drawings": details.drawings,
        "details": details.of_run,
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _scaled(run: ReportRun, measure: Measure) -> float | None:
    value = run.value(measure.key)
    return None if value is None else float(f"{value * measure.scale:.6g}")


def _looks(runs: Sequence[ReportRun]) -> dict[str, dict[str, str]]:
    """Return colour and shape of every policy; the colours are those of the figures."""
    from experiments.figures.style import policy_styles  # noqa: PLC0415  slow to import

    styles = policy_styles(run.policy for run in runs)
    return {
        name: {"colour": look.colour, "shape": _SHAPES[at % len(_SHAPES)]}
        for at, (name, look) in enumerate(styles.items())
    }


def _asset(name: str) -> str:
    from importlib.resources import files  # noqa: PLC0415  only here

    folder = files("experiments.report") / "templates"
    return "\n" + (folder / name).read_text(encoding="utf-8")


def _raw(text: str) -> Any:
    from markupsafe import Markup  # noqa: PLC0415  comes with jinja2

    return Markup(text)  # noqa: S704  our own files, and JSON without angle brackets


def _csp_hash(text: str) -> str:
    """Name a script or style to the browser, which then runs no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
