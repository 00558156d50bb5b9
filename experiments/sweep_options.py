"""Options of `topomoe sweep` and `collect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from experiments.limits import MAX_GB, MAX_SECONDS

SweepFile: TypeAlias = Annotated[
    Path, typer.Argument(help="Sweep file (TOML): base, grid, zip, list; see the README.")
]
StoreFolder: TypeAlias = Annotated[Path, typer.Argument(help="Folder of runs: a sweep's --out.")]
SweepFolder: TypeAlias = Annotated[
    Path,
    typer.Option("--out", help="Store of the runs; what is done in it is not done again."),
]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value on top of the base, any dotted key. May be repeated."),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Print the runs, their number and an estimate only.")
]
RetryFailed: TypeAlias = Annotated[
    bool, typer.Option("--retry-failed", help="Try runs again that failed before.")
]
ExecutorName: TypeAlias = Annotated[
    str, typer.Option("--executor", help="process: workers here; dask: a Dask cluster.")
]
SchedulerAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--scheduler", help="Of a Dask cluster, tcp://host:8786; by default one is made here."
    ),
]
RunSeconds: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--time-limit", min=0.001, max=MAX_SECONDS, help="Wall seconds of a run; then it failed."
    ),
]
RunMemory: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--memory-limit", min=0.001, max=MAX_GB, help="GB of a run's process; then it failed."
    ),
]
Sure: TypeAlias = Annotated[bool, typer.Option("--yes", help="More than 10,000 runs are meant.")]
CollectedFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--out", help=".parquet or .csv; by default runs.parquet in the store."),
]
WithProvenance: TypeAlias = Annotated[
    bool,
    typer.Option("--provenance", help="Add seconds and host of every run, which differ each time."),
]
