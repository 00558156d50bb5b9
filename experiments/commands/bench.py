"""`topomoe bench`: what is fast, side by side with what a user would pick instead."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.table import Table

from experiments.atomic import check_destinations, write_atomic
from experiments.benchmarks.section import TARGET_HEADER, target_texts
from experiments.benchmarks.sections import SECTIONS, data_folder
from experiments.commands.show import console, write_json
from experiments.errors import ExperimentError
from experiments.markdown import markdown_table
from experiments.replaying import replay
from experiments.run import place, prepare
from experiments.spec import AttentionSpec, NetworkSpec, PlacementSpec, RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from experiments.benchmarks.section import Rows, Section
    from placement import Placement

T = TypeVar("T")

_CASE = RunSpec(
    model="DeepSeek-R1",
    cluster="facts-fat-tree",
    attention=AttentionSpec(kind="pipelined"),
    placement=PlacementSpec(layer_slots=16, server_slots=464),
)


def run(
    *,
    json_file: Path | None,
    everything: bool = False,
    table: Path | None = None,
    only: str | None = None,
) -> None:
    """Run the benchmarks, print their tables, and write the figures if asked for.

    Files are written after every topic, so that a run that is stopped leaves what it measured.

    Parameters
    ----------
    everything
        Also what takes long: every load, every cluster, and the paper's program on 64 servers.
    table
        File for the tables, requirements first, as Markdown.
    only
        Part of the titles of the topics to measure; None for all, the replay first.
    """
    check_destinations([json_file, table])
    sections = _chosen(only)
    console.print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    rows: Rows = []
    if only is None:
        rows = _replays(place(_CASE.placement, prepare(_CASE)).placement)
        _show(["what", "figure"], [[row["what"], row["text"]] for row in rows], "The simulator")
    measured: dict[str, Rows] = {}
    for section, found in _sections(sections, everything):
        measured[section.title] = found
        if table is not None:
            write_atomic(table, page(measured))
        required = _judged(measured, sections)
        write_json(json_file, {"rows": rows, "sections": measured, "required": required})
    _show(TARGET_HEADER, target_texts(_judged(measured, sections)), "What is required")


def _chosen(only: str | None) -> tuple[Section, ...]:
    """Return the topics whose titles hold a text, in any case.

    Raises
    ------
    ExperimentError
        If there is none; the message lists the titles.
    """
    if only is None:
        return SECTIONS
    found = tuple(each for each in SECTIONS if only.lower() in each.title.lower())
    if not found:
        titles = "; ".join(each.title for each in SECTIONS)
        raise ExperimentError(f"--only {only!r}: no topic has it in its title; titles: {titles}")
    return found


def page(measured: Mapping[str, Rows]) -> str:
    """Return requirements and tables as Markdown, from the rows by title of their section."""
    required = markdown_table(TARGET_HEADER, target_texts(_judged(measured)))
    tables = [each.markdown(measured[each.title]) for each in SECTIONS if measured.get(each.title)]
    parts = ("### What is required, and the worst case measured", required, *tables)
    return "\n\n".join(parts) + "\n"


def _judged(measured: Mapping[str, Rows], sections: Iterable[Section] = SECTIONS) -> Rows:
    """Return everything that is required beside what was measured, or that it was not."""
    return [row for each in sections for row in each.judged(measured.get(each.title, []))]


def _sections(sections: Iterable[Section], everything: bool) -> Iterator[tuple[Section, Rows]]:
    """Measure and print topic after topic; without recorded data those that need none."""
    data = data_folder()
    if data is None:
        console.print("no recorded loads and traces: their tables are left out ($TOPOMOE_DATA)")
    for section in sections:
        if data is None and section.needs_data:
            continue
        with console.status(f"{section.title} ..."):
            found = section.rows(data or Path(), everything)
        if found:
            _show(section.header, section.texts(found), section.title)
        yield section, found


def _show(header: list[str], texts: list[list[str]], title: str) -> None:
    shown = Table(*header, title=title, title_justify="left", show_edge=False)
    for cells in texts:
        shown.add_row(*cells)
    console.print(shown)


def _replays(placement: Placement) -> list[dict[str, Any]]:
    """Tokens per second of both networks, compiled beforehand."""
    console.print("replaying ...", style="dim")
    rows = []
    for spec in (_CASE, _packet(_CASE)):
        case = prepare(spec)
        replay(spec, case, placement)
        seconds, result = _timed(lambda spec=spec, case=case: replay(spec, case, placement))  # type: ignore[misc]
        rate = result.tokens / seconds
        text = f"{rate:,.0f} tokens/s ({result.tokens} tokens x 58 layers in {seconds:.2f} s)"
        rows.append(_row(f"replay, {spec.network.kind}", text, rate))
        if result.usage.chunks is not None:
            crossings = int(result.usage.chunks.sum())
            text = f"{crossings / seconds / 1e6:.2f} million/s ({crossings:,} in all)"
            rows.append(_row("chunks crossing a link, packet", text, crossings / seconds))
    return rows


def _packet(spec: RunSpec) -> RunSpec:
    network = NetworkSpec(kind="packet", routing="hash")
    return spec.model_copy(update={"tokens": 256, "network": network})


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def _row(what: str, text: str, value: float) -> dict[str, Any]:
    return {"what": what, "text": text, "value": value}
