"""The runs of a report: what each is called, and which of them belong together."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.sweeping.keys import flat

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from experiments.sweeping.store import Store

SEEDS = ("workload.seed", "network.seed", "dispatch.seed", "placement.search_seed")
"""Keys that only draw the dice anew."""
_POLICY = ("placement.policy", "placement.file")


@dataclass(frozen=True, slots=True, eq=False)
class ReportRun:
    """A run as a report tells of it.

    Attributes
    ----------
    run_id, store
        Where it is read from.
    spec
        Values by dotted key, with ``sha256.KEY`` of the files that keys name.
    metrics
        Its figures.
    policy
        Name of the policy with those options that vary among the runs.
    cell
        What else varies, but seeds: runs of one cell differ by policy and seed alone.
    seed
        Values of the seeds that vary.
    """

    run_id: str
    store: Store
    spec: dict[str, Any]
    metrics: dict[str, Any]
    policy: str = ""
    cell: str = ""
    seed: str = ""

    def value(self, key: str) -> float | None:
        """Return a figure, None where the run has none."""
        found = self.metrics.get(key)
        return float(found) if isinstance(found, int | float) else None


def read_runs(stores: Iterable[Store]) -> list[ReportRun]:
    """Read all runs that are done, each once, named by what tells them apart.

    Raises
    ------
    ExperimentError
        If there are none, or one cannot be read.
    """
    found: dict[str, ReportRun] = {}
    stores = list(stores)
    for store in stores:
        for run_id in store.ids():
            if run_id not in found:
                found[run_id] = _read(store, run_id)
    if not found:
        where = ", ".join(str(store.folder) for store in stores)
        raise ExperimentError(f"{where}: has no run that is done; expected at least one")
    return rename(list(found.values()))


def rename(runs: list[ReportRun]) -> list[ReportRun]:
    """Return the runs, sorted, each named by what tells it apart from these others."""
    return sorted(_named(runs), key=lambda run: (run.cell, run.policy, run.seed, run.run_id))


def varying(runs: Sequence[ReportRun]) -> list[str]:
    """Return the keys whose values differ among runs, in the order of run files."""
    keys = dict.fromkeys(key for run in runs for key in run.spec)
    return [key for key in keys if len({run.spec.get(key) for run in runs}) > 1]


def shown(value: Any) -> str:
    """Return a value of a run file as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read(store: Store, run_id: str) -> ReportRun:
    record = store.read_done(run_id)
    spec = {
        key: json.dumps(value) if isinstance(value, list | dict) else value
        for key, value in flat(record.spec)
    }
    hashes = {f"sha256.{key}": about["sha256"] for key, about in record.inputs.items()}
    return ReportRun(run_id, store, spec | hashes, record.metrics)


def _named(runs: list[ReportRun]) -> list[ReportRun]:
    keys = [key for key in varying(runs) if not _explained(runs, key)]
    placed = ("placement.", "sha256.placement.")
    options = [key for key in keys if key.startswith(placed) and key not in _POLICY + SEEDS]
    seeds = [key for key in keys if key in SEEDS]
    rest = [key for key in keys if not key.startswith(placed) and key not in seeds]
    return [
        replace(
            run,
            policy=_policy(run, options),
            cell=", ".join(_part(run, key) for key in rest),
            seed=", ".join(shown(run.spec.get(key)) for key in seeds),
        )
        for run in runs
    ]


def _explained(runs: list[ReportRun], key: str) -> bool:
    """Whether the hash of what a key names says no more than the name."""
    if not key.startswith("sha256."):
        return False
    name = key.removeprefix("sha256.")
    return len({(run.spec.get(name), run.spec.get(key)) for run in runs}) == len(
        {run.spec.get(name) for run in runs}
    )


def _policy(run: ReportRun, options: list[str]) -> str:
    """Name the policy, or the file and its policy, and the options that tell it apart."""
    file = run.spec.get("placement.file")
    name = str(file or run.metrics.get("policy") or run.spec.get("placement.policy"))
    given = [key for key in options if run.spec.get(key) not in (None, False, "[]")]
    said = [f"{_word(key)} {shown(run.spec[key])[:24]}" for key in given]
    return ", ".join([name, *said])


def _part(run: ReportRun, key: str) -> str:
    value = shown(run.spec.get(key))
    # Models, clusters and kinds speak for themselves.
    speaks = isinstance(run.spec.get(key), str)
    return value if speaks and "sha256" not in key else f"{_word(key)} {value[:24]}"


def _word(key: str) -> str:
    return key.replace("sha256.", "SHA-256 of ").replace("placement.", "").rpartition(".")[2]
