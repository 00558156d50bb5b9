"""The file of a run: its format, its versions, and whether it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.manifest import spec_hash
from experiments.sweeping.identity import content_id

if TYPE_CHECKING:
    from experiments.sweeping.identity import Identity

RUN_FORMAT, FAILURE_FORMAT = "topomoe-run", "topomoe-failed-run"
VERSION = 1
"""Of the files of a store; a reader takes this one and those before it."""


class DamagedError(ExperimentError):
    """A file of a run that is not what was written."""


class VersionError(ExperimentError):
    """Results of a version that is not known here."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What a run gave, wherever and however it ran.

    Attributes
    ----------
    run_id
        See `experiments.sweeping.identity`.
    spec, inputs
        What it rests on.
    metrics
        Its figures by name, as ``place`` and ``simulate`` give them with ``--json``.
    """

    run_id: str
    spec: dict[str, Any]
    inputs: dict[str, Any]
    metrics: dict[str, Any]


def encode(identity: Identity, metrics: dict[str, Any]) -> str:
    """Return the file of a run: the same bytes for the same spec, inputs and metrics."""
    content = {
        "format": RUN_FORMAT,
        "version": VERSION,
        "id": identity.run_id,
        "spec": identity.spec,
        "inputs": identity.inputs,
        "metrics": metrics,
        "metrics_sha256": spec_hash(metrics),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def decode(data: bytes, where: str) -> Record:
    """Read the file of a run.

    Raises
    ------
    DamagedError
        If it is not what `encode` wrote; one line that starts with `where`.
    VersionError
        If it is of a version that this one does not know.
    """
    content = parse(data, RUN_FORMAT, where)
    try:
        spec, inputs, metrics = content["spec"], content["inputs"], content["metrics"]
        run_id, checksum = content["id"], content["metrics_sha256"]
    except KeyError as error:
        raise DamagedError(f"{where}: has no {error}; expected the file of a run") from None
    if run_id != content_id(spec, inputs) or checksum != spec_hash(metrics):
        raise DamagedError(f"{where}: its content does not match its hashes; expected it whole")
    return Record(run_id, spec, inputs, metrics)


def parse(data: bytes, kind: str, where: str) -> dict[str, Any]:
    """Parse a file of a store and see to its format and version."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedError(f"{where}: is no JSON; expected a file of format '{kind}'") from None
    if not isinstance(content, dict) or content.get("format") != kind:
        raise DamagedError(f"{where}: is not of the format '{kind}'")
    version = content.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise VersionError(
            f"{where}: is of version {version!r}; this topomoe reads versions 1 to {VERSION}: "
            "use the topomoe that wrote it, or another store"
        )
    return content
