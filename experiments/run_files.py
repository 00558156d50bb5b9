"""From the TOML of a run to its specification."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from experiments.clusters import is_file
from experiments.run import with_default_policy
from experiments.spec import RunSpec
from experiments.tables import read_toml, resolve
from workloads import is_config_path

if TYPE_CHECKING:
    from pathlib import Path

FILE_KEYS = (
    ("workload", ("load", "judge", "trace", "file")),
    ("placement", ("file", "previous", "domains")),
)
"""Keys of a run that name files, by table."""


def read_run(path: Path) -> RunSpec:
    """Read a run file; the files it names are looked up from its own folder."""
    return resolve_run(read_toml(path), path.parent, str(path))


def resolve_run(content: dict[str, Any], folder: Path, where: str) -> RunSpec:
    """Resolve parsed TOML, whose files are looked up from `folder`; `where` starts every error."""
    return with_default_policy(resolve(RunSpec, located(content, folder), where))


def located(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content with the files it names looked up from `folder`."""
    found = dict(content)
    for table, keys in FILE_KEYS:
        section: Any = found.get(table)
        if isinstance(section, dict):
            there = {key: _from(folder, section[key]) for key in keys if key in section}
            found[table] = section | there
    cluster = found.get("cluster")
    if isinstance(cluster, str) and is_file(cluster):
        found["cluster"] = str(folder / cluster)
    model = found.get("model")
    if isinstance(model, str) and is_config_path(model):
        # Unlike a Path, this keeps the slash that tells a folder from a preset.
        found["model"] = os.path.join(folder, model)  # noqa: PTH118
    return found


def _from(folder: Path, value: Any) -> Any:
    if isinstance(value, str):
        return str(folder / value)
    if isinstance(value, list):
        return [folder / each if isinstance(each, str) else each for each in value]
    return value
