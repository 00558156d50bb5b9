"""What names a run: the hash of everything that decides its result."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.clusters import find_cluster
from experiments.errors import ExperimentError
from experiments.manifest import spec_hash
from experiments.spec import input_files
from workloads import config_file, is_config_path

if TYPE_CHECKING:
    from experiments.spec import RunSpec

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """A run by its content.

    Attributes
    ----------
    spec
        The resolved specification, every key of it; files by their names alone, for where one
        lies is nobody's business.
    inputs
        What the spec only names, by dotted key: ``name`` and the ``sha256`` of the content, of
        files, of the cluster, and of the module of a policy of the user's own.
    """

    spec: dict[str, Any]
    inputs: dict[str, dict[str, str]]

    @property
    def run_id(self) -> str:
        """SHA-256 of the canonical JSON of both."""
        return content_id(self.spec, self.inputs)


def content_id(spec: dict[str, Any], inputs: dict[str, Any]) -> str:
    """Return the name of a run, 64 hexadecimal digits."""
    return spec_hash({"spec": spec, "inputs": inputs})


def identify(spec: RunSpec) -> Identity:
    """Hash what a run reads, and name it.

    Raises
    ------
    ExperimentError
        If a file, a cluster or the module of a policy is not there.
    """
    files = dict.fromkeys(path for path in input_files(spec) if path is not None)
    inputs: dict[str, dict[str, str]] = {}
    content = spec.model_dump(mode="json")
    if is_config_path(spec.model):
        content["model"] = str(config_file(spec.model))
    table = _named(content, "", files, inputs)
    if is_config_path(spec.model):
        table["model"] = Path(spec.model).name
    for path in files:
        # Named by an input file, as the links of a cluster are.
        if all(about["sha256"] != digest(Path(path)) for about in inputs.values()):
            inputs[f"files.{Path(path).name}"] = _content(path)
    if spec.cluster not in files:
        cluster = find_cluster(spec.cluster).spec.to_mapping()
        inputs["cluster"] = {"name": spec.cluster, "sha256": spec_hash(cluster)}
    if spec.placement.file is None and ":" in spec.placement.policy:
        inputs["placement.policy"] = _module(spec.placement.policy)
    return Identity(table, inputs)


def _named(value: Any, key: str, files: dict[str, None], inputs: dict[str, dict[str, str]]) -> Any:
    """Replace the files among the leaves by their names, and note their hashes in `inputs`."""
    if isinstance(value, dict):
        return {
            name: _named(each, f"{key}.{name}" if key else name, files, inputs)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_named(each, f"{key}.{at}", files, inputs) for at, each in enumerate(value)]
    if not isinstance(value, str) or value not in files:
        return value
    inputs[key] = _content(value)
    return inputs[key]["name"]


def _content(path: str) -> dict[str, str]:
    return {"name": Path(path).name, "sha256": digest(Path(path))}


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names; kept while they stay as they are.

    Raises
    ------
    ExperimentError
        If it cannot be read.
    """
    try:
        if not path.is_dir():
            return _digest(str(path), *_state(path))
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return spec_hash(
            {each.relative_to(path).as_posix(): _digest(str(each), *_state(each)) for each in files}
        )
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from error


def _state(path: Path) -> tuple[int, int, int]:
    """What changes with a file's content."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ino


@lru_cache(maxsize=1024)
def _digest(path: str, _size: int, _mtime_ns: int, _inode: int) -> str:
    found = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _module(policy: str) -> dict[str, str]:
    """Name a policy of the user's own, with the content of its module."""
    name = policy.partition(":")[0]
    try:
        found = find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise ExperimentError(f"policy '{policy}': there is no module '{name}' to import")
    return {"name": policy, "sha256": digest(Path(found.origin))}
