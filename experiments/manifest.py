"""What a result rests on: versions, seeds, the resolved study and every solve."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.expected import Expected
    from experiments.paper import StudyResult
    from experiments.study import Study

_PACKAGES = ("topomoe", "highspy", "matplotlib", "networkx", "numba", "numpy", "pandas", "simpy")


def manifest(
    study: Study, result: StudyResult, workload: str, *, expected: Expected | None = None
) -> dict[str, Any]:
    """Describe how a study's results came about."""
    resolved = study.model_dump(mode="json")
    if study.load is not None:
        # Where a file lies is nobody's business; which one it is, is.
        content = Path(study.load).read_bytes()
        resolved["load"] = Path(study.load).name
        resolved["load_sha256"] = hashlib.sha256(content).hexdigest()
    return {
        "workload": workload,
        "spec": resolved,
        "spec_sha256": spec_hash(resolved),
        **_expected(expected),
        "versions": versions(),
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine()},
        "workers": result.workers,
        "runs": len(result.hops),
        "seconds": round(result.seconds, 3),
        "solves": [
            {key: _plain(value) for key, value in row.items()}
            for row in result.solves.to_dict("records")
        ],
    }


def _expected(expected: Expected | None) -> dict[str, Any]:
    """Name the file of typed-in figures, if there was one."""
    if expected is None:
        return {}
    return {"expected": {"file": expected.name, "sha256": expected.sha256}}


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of everything that results rest on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def spec_hash(resolved: dict[str, Any]) -> str:
    """SHA-256 of a resolved specification's canonical JSON."""
    canonical = json.dumps(resolved, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Replace pandas' missing numbers, which JSON has no word for, by null."""
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  NaN
