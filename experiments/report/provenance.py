"""Where the runs of a report come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.sweeping.record import DamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments.report.runs import ReportRun
    from experiments.sweeping.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """How the runs came about.

    Attributes
    ----------
    facts
        What holds for all of them: label and text.
    started, host, seconds
        By run id; a dash where a run has no such record.
    failed
        Runs that failed: id and message.
    """

    facts: list[tuple[str, str]]
    started: dict[str, str]
    host: dict[str, str]
    seconds: dict[str, str]
    failed: list[tuple[str, str]]


def provenance(runs: Sequence[ReportRun]) -> Provenance:
    """Gather it; a run whose record is lost is shown without."""
    records = {run.run_id: _record(run) for run in runs}
    stores = list({str(run.store.folder): run.store for run in runs}.values())
    failed = [
        (run_id, _failure(store, run_id)) for store in stores for run_id in store.failed_ids()
    ]
    started, host, seconds = (
        {run_id: _cell(record, key) for run_id, record in records.items()}
        for key in ("started", "host", "run_s")
    )
    return Provenance(_facts(runs, list(records.values())), started, host, seconds, failed)


def _record(run: ReportRun) -> dict[str, Any]:
    try:
        return run.store.provenance(run.run_id)
    except ExperimentError:
        return {}


def _failure(store: Store, run_id: str) -> str:
    """Say why a run failed, or that this is lost: it hides nothing that is done."""
    try:
        return _message(store.failure(run_id))
    except DamagedError:
        return "its reason is damaged"


def _message(failure: dict[str, Any]) -> str:
    return f"{failure.get('kind', 'error')}: {failure.get('message', '')}"


def _cell(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.2f} s" if isinstance(value, float) else str(value)


def _facts(runs: Sequence[ReportRun], records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    started = sorted(str(record["started"]) for record in records if "started" in record)
    seconds = sum(float(record.get("run_s") or 0) for record in records)
    versions: dict[str, dict[str, None]] = {}
    for record in records:
        for name, version in record.get("versions", {}).items():
            versions.setdefault(name, {})[str(version)] = None
    facts = [
        ("stores", ", ".join(dict.fromkeys(run.store.folder.name for run in runs))),
        ("workload", "; ".join(_some(run.metrics.get("workload") for run in runs))),
        ("hosts", ", ".join(_some(record.get("host") for record in records))),
        ("started", f"{started[0]} to {started[-1]}" if started else ""),
        ("time of all runs", f"{seconds:,.1f} s"),
        ("versions", ", ".join(f"{name} {' and '.join(each)}" for name, each in versions.items())),
    ]
    return [(label, text) for label, text in facts if text]


def _some(values: Any) -> list[str]:
    """Return the distinct values, the first few of many."""
    found = list(dict.fromkeys(str(value) for value in values if value is not None))
    return found if len(found) <= 8 else [*found[:7], f"and {len(found) - 7} more"]
