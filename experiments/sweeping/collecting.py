"""From a store to one tidy table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.sweeping.keys import flat
from experiments.sweeping.record import VersionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from experiments.sweeping.record import Record
    from experiments.sweeping.store import Store

PROVENANCE = ("run_s", "place_s", "solve_s", "host", "started")
"""Columns that say how a run came about; they differ from machine to machine."""


def collect(
    store: Store, *, runs: Iterable[str] | None = None, provenance: bool = False
) -> pd.DataFrame:
    """Return a row per run that is done, by run id.

    Parameters
    ----------
    store
        Where the runs are.
    runs
        Ids of those wanted; by default all, sorted.
    provenance
        Whether to add the columns ``provenance.run_s`` and so on, None where lost; see
        `PROVENANCE`.

    Returns
    -------
    pandas.DataFrame
        ``run``; every key of the run file by its dotted name; ``sha256.KEY`` of what the keys
        name; and the figures by name, nested ones dotted. Lists are JSON texts, but lists of
        tables, which stay in the runs' own files. None where a run has no such figure.

    Raises
    ------
    DamagedError, VersionError
        If the file of a run is not whole, or of another version.
    """
    import pandas as pd  # noqa: PLC0415  slow to import

    rows = []
    for run_id in store.ids() if runs is None else runs:
        row = run_row(store.read_done(run_id))
        if provenance:
            about = _provenance(store, run_id)
            row |= {f"provenance.{name}": about.get(name) for name in PROVENANCE}
        rows.append(row)
    return pd.DataFrame(rows)


def _provenance(store: Store, run_id: str) -> dict[str, Any]:
    """Return how a run came about; nothing where that is lost, for its figures are whole."""
    try:
        return store.provenance(run_id)
    except VersionError:
        raise
    except ExperimentError:
        return {}


def run_row(record: Record) -> dict[str, Any]:
    """Return the cells of a run, by column."""
    hashes = {f"sha256.{key}": about["sha256"] for key, about in record.inputs.items()}
    return {
        "run": record.run_id,
        **_cells(record.spec),
        **hashes,
        **_cells(record.metrics),
    }


def _cells(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _cell(value) for key, value in flat(content) if not _tabular(value)}


def _tabular(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value
