"""`topomoe show cluster`: a cluster in figures, and a picture of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from experiments.atomic import check_destinations
from experiments.cluster_summary import MAX_SERVERS, summarise
from experiments.clusters import files_of, find_cluster, study_clusters
from experiments.commands.show import console, write_json
from experiments.errors import ExperimentError
from topologies import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

    from experiments.cluster_summary import ClusterSummary
    from topologies import Preset

KINDS = (".pdf", ".png", ".svg")
"""Endings of pictures."""


def run(name: str | None, *, out: Path | None, json_file: Path | None) -> None:
    """Print what there is to say of a cluster and draw it; without a name, list the clusters."""
    if name is None:
        if out is not None or json_file is not None:
            raise ExperimentError("--out and --json need the name of a cluster")
        console.print(_names())
        return
    if out is not None and out.suffix not in KINDS:
        raise ExperimentError(f"{out}: expected a file ending in {', '.join(KINDS)}")
    check_destinations([out, json_file], inputs=files_of(name))
    found = find_cluster(name)
    cluster = found.spec.build()
    summary = summarise(cluster)
    _print(summary, found)
    # The picture goes first: where it fails, nothing is written.
    if out is not None:
        from experiments.figures.cluster import figure  # noqa: PLC0415  loads matplotlib
        from experiments.figures.save import write_figure  # noqa: PLC0415  as above

        write_figure(figure(cluster), out)
        console.print(f"picture: {out}", soft_wrap=True)
    write_json(json_file, {"spec": found.spec.to_mapping(), **summary.to_mapping()})


def _print(summary: ClusterSummary, found: Preset) -> None:
    for line in _about(summary, found):
        console.print(line, soft_wrap=True)
    for table in (_links(summary), _tiers(summary)):
        console.print()
        console.print(table)
    for line in _far(summary):
        console.print(line, soft_wrap=True)


def _names() -> Table:
    table = Table(show_edge=False, header_style="bold")
    for column in ("cluster", "builder", "about"):
        table.add_column(column)
    for name, spec in study_clusters().items():
        table.add_row(name, spec.builder, "of the paper's study")
    for name, each in PRESETS.items():
        table.add_row(name, each.spec.builder, each.about)
    return table


def _about(summary: ClusterSummary, found: Preset) -> list[str]:
    counts = (
        f"{summary.gpus:,} GPUs in {summary.servers:,} servers of {summary.gpus_per_server}, "
        f"{summary.switches:,} switches, {summary.cables:,} cables between switches"
    )
    return [f"{summary.name} ({summary.builder}): {found.about}", counts, *summary.notes]


def _links(summary: ClusterSummary) -> Table:
    table = Table(show_edge=False, header_style="bold")
    table.add_column("links")
    for column in ("cables", "GB/s each way", "latency, us", "TB/s in all"):
        table.add_column(column, justify="right")
    table.add_column("as fast as")
    for row in summary.links:
        table.add_row(
            row.link_class,
            f"{row.cables:,}",
            _range(tuple(rate / 1e9 for rate in row.bandwidth_Bps)),
            _range(tuple(seconds * 1e6 for seconds in row.latency_s)),
            f"{row.total_Bps / 1e12:,.4g}",
            ", ".join(row.parts),
        )
    return table


def _tiers(summary: ClusterSummary) -> Table:
    table = Table(show_edge=False, header_style="bold")
    table.add_column("switches")
    for column in ("count", "ports", "bandwidth to GPUs / the rest"):
        table.add_column(column, justify="right")
    for row in summary.tiers:
        name = "with GPUs" if row.tier == 0 else f"{row.tier} above"
        ratio = "-" if row.oversubscription is None else _range(row.oversubscription)
        table.add_row(name, f"{row.switches:,}", _range(row.ports), ratio)
    return table


def _range(ends: tuple[float, ...]) -> str:
    low, high = (f"{end:.4g}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _far(summary: ClusterSummary) -> list[str]:
    if summary.diameter is None or summary.mean_distance is None:
        if summary.servers == 1:
            return ["a single server: no distances"]
        return [f"distances: not looked at, beyond {MAX_SERVERS:,} servers"]
    mean, most = f"{summary.mean_distance:.6f}", f"{summary.diameter:g}"
    lines = [f"network links between two servers: {mean} in the mean, {most} at most"]
    if summary.measured is not None:
        unit, *costs = summary.measured
        least, between, largest = (f"{cost:,.0f}" for cost in costs)
        lines.append(
            f"measured between two servers, in {unit}: {least} to {largest}, {between} in the "
            "mean; placement weighs these instead"
        )
    return lines
