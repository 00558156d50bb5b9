"""`topomoe validate`: the simulator against theory, other fidelities and published hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from experiments.atomic import check_destinations, write_atomic
from experiments.commands.show import console, write_json
from experiments.errors import RunError
from experiments.markdown import markdown_table
from experiments.validation.line import EXPLAINED, FAILED, PASSED, SHOWN, SKIPPED
from experiments.validation.suite import sections

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from experiments.validation.line import Finding

HEADER = ("what", "source", "expected", "got", "error", "tolerance", "")


def run(
    *, only: str | None = None, json_file: Path | None = None, table: Path | None = None
) -> None:
    """Measure section after section, print what was expected and what came.

    Parameters
    ----------
    only
        Name of a section; all by default.
    json_file
        File for the lines, for programs; written after every section.
    table
        File for the tables, as Markdown; likewise.

    Raises
    ------
    RunError
        If a line that is judged fails. One that misses for a reason stated in ``expected.toml``
        does not: it is counted and named at the end.
    """
    asked = sections(only)
    check_destinations([json_file, table])
    found: list[Finding] = []
    pages: list[str] = []
    for section in asked:
        with console.status(f"{section.title} ..."):
            lines = list(section.findings())
        found += lines
        _show(section.title, lines)
        remarks = [*section.remarks, *reasons(lines)]
        for remark in remarks:
            console.print(remark, style="dim", soft_wrap=True)
        pages.append("\n\n".join([f"### {section.title}", _markdown(lines), *remarks]))
        if table is not None:
            write_atomic(table, "\n\n".join(pages) + "\n")
        write_json(json_file, {"lines": [line.row() for line in found]})
    failed = _count(found, FAILED)
    judged = failed + _count(found, PASSED)
    if failed:
        raise RunError(f"{failed} of {judged} judged lines fail; see the lines marked {FAILED}")
    console.print(
        f"{judged} judged lines pass, {_missed(found)}, {_count(found, SKIPPED)} are skipped, "
        f"{_count(found, SHOWN)} shown alone",
        soft_wrap=True,
    )


def _missed(found: Sequence[Finding]) -> str:
    """How many lines miss for a stated reason, and which."""
    missed = [line for line in found if line.verdict == EXPLAINED]
    names = ", ".join(f"{line.key} {line.case}".strip() for line in missed)
    return f"{len(missed)} miss for a stated reason" + (f" ({names})" if names else "")


def reasons(lines: Sequence[Finding]) -> list[str]:
    """Return why lines miss what is expected of them, once each."""
    found = {
        line.expected.what: " ".join((line.expected.reason or "").split())
        for line in lines
        if line.verdict == EXPLAINED
    }
    return [f"{what}: {reason}" for what, reason in found.items()]


def texts(lines: Sequence[Finding]) -> list[list[str]]:
    """Return the cells of the table, as in `HEADER`."""
    return [
        [
            f"{line.expected.what} ({line.case})" if line.case else line.expected.what,
            line.expected.source,
            "not known" if line.expected.value is None else _numbers(line.expected.numbers),
            "not measured" if line.got is None else _numbers(line.got),
            _error(line),
            line.expected.tolerance,
            line.verdict,
        ]
        for line in lines
    ]


def _markdown(lines: Sequence[Finding]) -> str:
    return markdown_table([name or "verdict" for name in HEADER], texts(lines))


def _count(lines: Sequence[Finding], verdict: str) -> int:
    return sum(line.verdict == verdict for line in lines)


def _show(title: str, lines: Sequence[Finding]) -> None:
    table = Table(title=title, title_justify="left", show_edge=False)
    for name in HEADER:
        table.add_column(name, justify="right" if name in ("expected", "got", "error") else "left")
    for cells in texts(lines):
        table.add_row(*cells)
    console.print(table)


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    """Return the numbers, runs of the same one shortened: 0.5 x 6."""
    shown = [f"{value:.7g}" for value in values]
    if len(shown) > 2 and len(set(shown)) == 1:
        return f"{shown[0]} x {len(shown)}"
    return ", ".join(shown)


def _error(line: Finding) -> str:
    if line.error is None:
        return "-"
    if line.expected.abs:
        return f"{line.error:+.2g}"
    return f"{100 * line.error:+.2g} %" if line.error else "0"
