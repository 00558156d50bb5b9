"""`topomoe bench`: what is fast, side by side with what a user would pick instead."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from rich.table import Table

from experiments.atomic import check_destinations, write_atomic
from experiments.benchmarks.sections import SECTIONS, data_folder
from experiments.clusters import find_cluster
from experiments.commands.show import console, write_json
from experiments.run import Setting, place, prepare, replay
from experiments.spec import AttentionSpec, NetworkSpec, PlacementSpec, RunSpec
from placement import IlpLoad, NaiveIlpLoad, Pipelined, Placement, PlacementProblem
from topologies import Router
from workloads import model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from experiments.benchmarks.sections import Section

T = TypeVar("T")

_CASE = RunSpec(
    model="DeepSeek-R1",
    cluster="facts-fat-tree",
    attention=AttentionSpec(kind="pipelined"),
    placement=PlacementSpec(layer_slots=16, server_slots=464),
)


def run(*, json_file: Path | None, everything: bool = False, table: Path | None = None) -> None:
    """Run the benchmarks, print their tables, and write the figures if asked for.

    Parameters
    ----------
    everything
        Also what takes long: every load, every cap, and the paper's program on 64 servers.
    table
        File for the tables of the recorded data, as Markdown.
    """
    check_destinations([json_file, table])
    console.print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    console.print("preparing loads and traces ...", style="dim")
    setting = prepare(_CASE)
    placement = place(_CASE.placement, setting).placement
    rows = [*_solvers(setting), *_replays(placement)]
    if everything:
        rows += _larger()
    shown = Table("what", "figure", show_edge=False, header_style="bold")
    for row in rows:
        shown.add_row(row["what"], row["text"])
    console.print(shown)
    measured = _sections(everything)
    if table is not None:
        write_atomic(table, "\n\n".join(s.markdown(found) for s, found in measured) + "\n")
    sections = {section.title: found for section, found in measured}
    write_json(json_file, {"rows": rows, "sections": sections})


def _sections(everything: bool) -> list[tuple[Section, list[dict[str, Any]]]]:
    """Measure and print every topic on recorded data; nothing where there is none."""
    data = data_folder()
    if data is None:
        console.print("no recorded loads and traces: the other tables are left out ($TOPOMOE_DATA)")
        return []
    measured = []
    for section in SECTIONS:
        with console.status(f"{section.title} ..."):
            found = section.rows(data, everything)
        shown = Table(*section.header, title=section.title, title_justify="left", show_edge=False)
        for cells in section.texts(found):
            shown.add_row(*cells)
        console.print(shown)
        measured.append((section, found))
    return measured


def _larger() -> list[dict[str, Any]]:
    """Our flow against the paper's binary program on 64 servers."""
    console.print("the paper's program on 64 servers takes minutes ...", style="dim")
    reference = find_cluster(_CASE.cluster).spec
    cluster = replace(reference, parameters={**reference.parameters, "servers_per_leaf": 8}).build()
    r1 = model(_CASE.model)
    problem = PlacementProblem.build(
        r1,
        Router(cluster).server_distance(),
        Pipelined(r1.layers, cluster.servers, cluster.gpus_per_server),
        prepare(_CASE).workload.profile,
        gpus_per_server=cluster.gpus_per_server,
    )
    seconds, ours = min((_timed(lambda: IlpLoad()(problem)) for _ in range(5)), key=_first)
    naive_s, naive = _timed(lambda: NaiveIlpLoad()(problem))
    text = f"{_solved(naive_s, naive)}: {naive_s / seconds:,.0f} x slower"
    return [
        _row("ilp-load as a flow, R1 on 64 servers (best of 5)", _solved(seconds, ours), seconds),
        _row("as the paper writes it, 64 servers, binary, branch and bound", text, naive_s),
    ]


def _solvers(setting: Setting) -> list[dict[str, Any]]:
    """Our flow against the paper's program in the same solver, on the same problem."""
    console.print("solving each way (the paper's program takes up to a minute) ...", style="dim")
    problem = setting.problem
    seconds, ours = min((_timed(lambda: IlpLoad()(problem)) for _ in range(5)), key=_first)
    rows = [
        _row("ilp-load as a flow, R1 on 32 servers (best of 5)", _solved(seconds, ours), seconds)
    ]
    columns = f"{problem.layers * problem.experts * problem.servers:,} columns"
    for integer, kind in ((False, "relaxed, simplex"), (True, "binary, branch and bound")):
        naive_s, naive = _timed(lambda integer=integer: NaiveIlpLoad(integer=integer)(problem))  # type: ignore[misc]
        text = f"{_solved(naive_s, naive)}: {naive_s / seconds:,.0f} x slower"
        rows.append(_row(f"as the paper writes it, {columns}, {kind}", text, naive_s))
    return rows


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


def _solved(seconds: float, placement: Placement) -> str:
    report = placement.solve
    assert report is not None  # noqa: S101  both policies report
    return f"{seconds:.3f} s, {report.objective_hops:.6f} hops, {report.status}"


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def _first(pair: tuple[float, T]) -> float:
    return pair[0]


def _row(what: str, text: str, value: float) -> dict[str, Any]:
    return {"what": what, "text": text, "value": value}
