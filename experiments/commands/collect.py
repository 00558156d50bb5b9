"""`topomoe collect`: a store of runs as one tidy table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.atomic import check_destinations, write_atomic
from experiments.commands.show import console
from experiments.errors import ExperimentError
from experiments.sweeping.collecting import collect
from experiments.sweeping.progress import counted
from experiments.sweeping.store import open_store
from experiments.sweeping.work import parquet

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

FORMATS = (".parquet", ".csv")


def run(folder: Path, *, out: Path | None, provenance: bool) -> None:
    """Read every run that is done, and write the table."""
    target = folder / "runs.parquet" if out is None else out
    if target.suffix not in FORMATS:
        raise ExperimentError(f"{target}: expected a name that ends in {' or '.join(FORMATS)}")
    store = open_store(folder)
    check_destinations([target])
    table = collect(store, provenance=provenance)
    if table.empty:
        raise ExperimentError(f"{folder}: has no run that is done; expected at least one")
    write_atomic(target, _written(table, target.suffix))
    failed = len(store.failed_ids())
    verb = "is" if failed == 1 else "are"
    rest = f"; {counted(failed, 'failed run')} {verb} not in it" if failed else ""
    console.print(
        f"{counted(len(table), 'run')}, {len(table.columns)} columns written to {target}{rest}",
        soft_wrap=True,
    )


def _written(table: pd.DataFrame, suffix: str) -> str | bytes:
    if suffix == ".csv":
        text: str = table.to_csv(index=False, lineterminator="\n")
        return text
    return parquet(table)
