"""Workload files: the parameters of a synthetic workload, fitted or written by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from experiments.errors import ExperimentError
from experiments.tables import Table, read_toml, resolve
from workloads import R1_LIKE, LoadCurve, Skew, SyntheticWorkload, Topics, WorkloadError
from workloads.readers.json_file import parse_json, read_text_file

if TYPE_CHECKING:
    from pathlib import Path

    from workloads import MoEModel

FORMAT, VERSION = "topomoe-workload", 1
MAX_BYTES = 16 << 20


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Numbers = Annotated[tuple[float, ...], BeforeValidator(_as_tuple)]


class LoadsTable(Table):
    """How uneven loads are; see `workloads.LoadCurve`."""

    log_loads: Numbers
    layer_spread: Numbers = ()
    peak_sigma: float = 0.0
    group_correlation: float = 0.0

    @model_validator(mode="after")
    def _is_a_curve(self) -> LoadsTable:
        self.curve()
        return self

    def curve(self) -> LoadCurve:
        """Return the curve."""
        return LoadCurve(**self.model_dump())


class TopicsTable(Table):
    """What ties choices together; see `workloads.Topics`."""

    count: int
    strength: float
    affinity: float = 0.0
    home: float = 0.0
    seq_len: int = 1024
    domains: dict[str, float] = Field(default_factory=dict)
    domain_separation: float = 0.0
    decode_share: float | None = None
    phase_separation: float = 0.0
    drift: float = 0.0
    drift_tokens: int = 1 << 20

    @model_validator(mode="after")
    def _are_topics(self) -> TopicsTable:
        self.topics()
        return self

    def topics(self) -> Topics:
        """Return the topics."""
        return Topics(**{**self.model_dump(), "domains": tuple(self.domains.items())})


class WorkloadFile(Table):
    """A synthetic workload, of any model and seed.

    Attributes
    ----------
    format, version
        What the file is.
    name
        Whose likeness it is, for captions.
    loads
        How uneven loads are; by default R1-like.
    topics
        What ties choices together; by default nothing.
    """

    format: Literal["topomoe-workload"]
    version: Literal[1]
    name: str
    loads: LoadsTable | None = None
    topics: TopicsTable | None = None

    def workload(self, model: MoEModel, seed: int) -> SyntheticWorkload:
        """Return the workload of a model, drawn from a seed."""
        skew: Skew | LoadCurve = R1_LIKE if self.loads is None else self.loads.curve()
        topics = None if self.topics is None else self.topics.topics()
        return SyntheticWorkload(model, seed, skew, topics, f"like {self.name}")


def fitted_file(name: str, curve: LoadCurve, topics: Topics | None) -> WorkloadFile:
    """Return the file of a fitted workload, numbers rounded as it is written."""
    loads = {key: _rounded(getattr(curve, key)) for key in LoadsTable.model_fields}
    table: dict[str, Any] = {"format": FORMAT, "version": VERSION, "name": name, "loads": loads}
    if topics is not None:
        values = {key: _rounded(getattr(topics, key)) for key in TopicsTable.model_fields}
        table["topics"] = {**values, "domains": _shares(topics)}
    return resolve(WorkloadFile, table, name)


def read_workload(path: Path) -> WorkloadFile:
    """Read a workload file, TOML or JSON.

    Raises
    ------
    ExperimentError
        It cannot be read or is no workload; one line with the file and the key.
    """
    return resolve(WorkloadFile, _content(path), str(path))


def workload_text(file: WorkloadFile, *, as_json: bool) -> str:
    """Return a workload file's content."""
    content = file.model_dump(mode="json", exclude_none=True)
    if as_json:
        return json.dumps(content, indent=1, allow_nan=False) + "\n"
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in content.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _content(path: Path) -> dict[str, Any]:
    if path.suffix == ".toml":
        return read_toml(path)
    if path.suffix != ".json":
        raise ExperimentError(f"{path}: expected a workload file, .toml or .json")
    try:
        content = parse_json(read_text_file(path, limit=MAX_BYTES))
    except WorkloadError as error:
        raise ExperimentError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ExperimentError(f"{path}: expected a workload, an object with 'format': {FORMAT!r}")
    return content


def _shares(topics: Topics) -> dict[str, float]:
    """Return the domains' shares, rounded so that they still sum to 1."""
    shares = {name: round(share, 6) for name, share in topics.domains}
    if shares:
        last = next(reversed(shares))
        shares[last] = round(1.0 - sum(share for name, share in shares.items() if name != last), 6)
    return shares


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    return tuple(_rounded(each) for each in value) if isinstance(value, tuple) else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    # Texts, numbers and lists of them are written alike in JSON and TOML; DEL is not.
    return json.dumps(value).replace("\x7f", "\\u007f")
