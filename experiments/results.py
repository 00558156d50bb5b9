"""Results on disk: the runs of a store, or the table that was collected from one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.errors import FigureError
from experiments.labels import labelled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from experiments.sweeping import Store


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Runs to draw.

    Attributes
    ----------
    name
        What messages call them.
    runs
        A row per run; see `experiments.sweeping.collect`, with its provenance.
    store
        Where the tables of links and layers are; None for a collected table.
    """

    name: str
    runs: pd.DataFrame
    store: Store | None = None

    def labelled(self, over: Sequence[str] = ()) -> pd.DataFrame:
        """Return the runs with their labels; see `experiments.labels.labelled`."""
        return labelled(self.runs, over)

    def arrays(self, table: str, over: Sequence[str] = ()) -> pd.DataFrame:
        """Return one of the tables beside the runs, with the labels of its runs in front.

        Raises
        ------
        FigureError
            If a run has no such table.
        """
        import pandas as pd  # noqa: PLC0415  slow to import

        if self.store is None:
            raise FigureError(
                f"{self.name}: holds no table of {table}; expected the store it was collected from"
            )
        columns = ["run", "model", "cluster", "setting", "series", "replicate"]
        parts = []
        for row in self.labelled(over)[columns].itertuples(index=False, name=None):
            labels = dict(zip(columns, row, strict=True))
            own = self.store.arrays(labels["run"], [table]).get(table)
            if own is None:
                raise FigureError(
                    f"{self.name}: run {labels['run'][:12]} has no table of {table}; name it in "
                    "the sweep's `tables` and sweep again"
                )
            parts.append(own.rename(columns={"class": "link_class"}).assign(**labels))
        return pd.concat(parts, ignore_index=True)


def read_results(path: Path, where: Mapping[str, str] | None = None) -> Results:
    """Read a store, or a table that was collected from one (.parquet or .csv).

    Parameters
    ----------
    path
        The folder or the file.
    where
        The text of the value wanted in each of some columns.

    Raises
    ------
    ExperimentError
        If there is nothing to read, a column is unknown, or no run matches.
    """
    runs, store = _read(path)
    for column, value in (where or {}).items():
        if column not in runs.columns:
            found = ", ".join(map(str, runs.columns))
            raise FigureError(f"--where {column}: no such column; allowed: {found}")
        texts = runs[column].map(_text)
        if not (texts == value).any():
            found = ", ".join(dict.fromkeys(texts))
            raise FigureError(f"--where {column}={value}: no such run; found: {found}")
        runs = runs[texts == value]
    if runs.empty:
        raise FigureError(f"{path}: has no run that is done; expected at least one")
    return Results(str(path), runs.reset_index(drop=True), store)


def _read(path: Path) -> tuple[pd.DataFrame, Store | None]:
    import pandas as pd  # noqa: PLC0415  slow to import

    from experiments.sweeping import collect, open_store  # noqa: PLC0415  slow to import

    if path.is_dir():
        store = open_store(path)
        return collect(store, provenance=True), store
    readers: dict[str, Any] = {".parquet": pd.read_parquet, ".csv": pd.read_csv}
    if path.suffix not in readers or not path.is_file():
        raise FigureError(
            f"{path}: expected a store of runs, or the .parquet or .csv collected from one"
        )
    try:
        table: pd.DataFrame = readers[path.suffix](path)
    except (OSError, ValueError) as error:
        raise FigureError(f"{path}: is no table: {error}") from error
    return table, None


def _text(value: Any) -> str:
    """Write a value as the command line does: 2.0 as 2, absence as none."""
    if value is None or value != value:  # noqa: PLR0124  NaN
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
