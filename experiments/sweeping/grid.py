"""A sweep file: what all runs share, and the axes along which they differ."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import ExperimentError
from experiments.run_files import located, resolve_run
from experiments.sweeping.keys import Settings, check_key, flat, with_settings
from experiments.tables import read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from experiments.spec import RunSpec

KEYS = ("base", "grid", "zip", "list", "tables")
TABLES = ("links", "layers", "gpus", "utilisation", "hops")
"""Tables of a run that a store can keep; those of `experiments.programs`, without its imports."""


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Settings that go together, one entry a step along the axis.

    Attributes
    ----------
    kind
        ``grid``, ``zip`` or ``list``.
    steps
        The settings of every step.
    """

    kind: str
    steps: tuple[Settings, ...]

    @property
    def keys(self) -> list[str]:
        """Keys that any step sets."""
        return list(dict.fromkeys(key for step in self.steps for key in step))


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Every combination of the steps of all axes, on top of a base.

    Attributes
    ----------
    where
        The file's name, which starts every error.
    folder
        Where the files that runs name are looked up from.
    base
        Parsed TOML of a run file; it need not be complete.
    axes
        The last one changes first.
    tables
        Tables a store is to keep of every run.
    """

    where: str
    folder: Path
    base: dict[str, Any]
    axes: tuple[Axis, ...]
    tables: tuple[str, ...] = TABLES

    @property
    def size(self) -> int:
        """Number of combinations."""
        return prod(len(axis.steps) for axis in self.axes)

    def settings(self) -> Iterator[Settings]:
        """Return what the axes set, for every combination."""
        for steps in product(*(axis.steps for axis in self.axes)):
            yield {key: value for step in steps for key, value in step.items()}

    def resolve(self, settings: Settings) -> RunSpec:
        """Return the run of a combination.

        Raises
        ------
        ExperimentError, WorkloadError
            If it is none.
        """
        return resolve_run(with_settings(self.base, settings), self.folder, "")


def read_sweep(path: Path, override: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep file.

    Parameters
    ----------
    path
        TOML with ``base`` (a run file's tables, or the name of a run file), and any of ``grid``
        (key = list of values: all combinations), ``[[zip]]`` (lists of one length, in step) and
        ``[[list]]`` (the settings of a step each), all with any dotted key of a run file; and
        ``tables``, which a store is to keep (by default all).
    override
        Settings by dotted key on top of the base; files are looked up from where we are.

    Raises
    ------
    ExperimentError
        If the file, a key or an axis is wrong; one line.
    """
    content, where = read_toml(path), str(path)
    for key in content:
        if key not in KEYS:
            raise ExperimentError(f"{where}: unknown key '{key}'; allowed: {', '.join(KEYS)}")
    base = _base(content.get("base", {}), path)
    axes = (*_grid(content, where), *_zips(content, where), *_list(content, where))
    override = dict(override or {})
    _once(axes, override, where)
    tables = _tables(content.get("tables", list(TABLES)), where)
    there = located(with_settings({}, override), Path.cwd())
    base = with_settings(base, dict(flat(there)))
    return Sweep(where, path.parent.resolve(), base, axes, tables)


def _base(base: Any, path: Path) -> dict[str, Any]:
    """Return the tables all runs share; a run file's files are looked up from its own folder."""
    if isinstance(base, str):
        run_file = path.parent / base
        return located(read_toml(run_file), run_file.parent.resolve())
    if not isinstance(base, dict):
        raise ExperimentError(f"{path}: base is {base!r}; expected a table or a run file's name")
    for key, _ in flat(base):
        _known(key, f"{path}: base", "key")
    return base


def _grid(content: dict[str, Any], where: str) -> Iterator[Axis]:
    table = _table(content.get("grid", {}), f"{where}: grid")
    if "grid" in content and not table:
        raise ExperimentError(f"{where}: grid: has no axis; expected key = [values]")
    for key, values in flat(table):
        steps = _values(key, values, f"{where}: grid")
        yield Axis("grid", tuple({key: value} for value in steps))


def _zips(content: dict[str, Any], where: str) -> Iterator[Axis]:
    for number, table in enumerate(_tables_of(content, "zip", where)):
        place = f"{where}: zip {number + 1}"
        columns = {key: _values(key, values, place) for key, values in flat(table)}
        lengths = {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise ExperimentError(f"{place}: {found}; expected lists of one length")
        rows = zip(*columns.values(), strict=True)
        steps = tuple(dict(zip(columns, row, strict=True)) for row in rows)
        if not steps:
            raise ExperimentError(f"{place}: has no axis; expected key = [values]")
        yield Axis("zip", steps)


def _list(content: dict[str, Any], where: str) -> Iterator[Axis]:
    entries = _tables_of(content, "list", where)
    steps = tuple(dict(flat(table)) for table in entries)
    for step in steps:
        for key in step:
            _known(key, f"{where}: list")
    if steps:
        yield Axis("list", steps)
    elif "list" in content:
        raise ExperimentError(f"{where}: list is empty; expected [[list]] tables")


def _values(key: str, values: Any, place: str) -> list[Any]:
    _known(key, place)
    if not isinstance(values, list):
        raise ExperimentError(f"{place}: axis '{key}' is {values!r}; expected a list of values")
    if not values:
        raise ExperimentError(f"{place}: axis '{key}' is empty; expected at least one value")
    return values


def _known(key: str, place: str, what: str = "axis") -> None:
    try:
        check_key(key, what)
    except ExperimentError as error:
        raise ExperimentError(f"{place}: {error}") from None


def _tables_of(content: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    tables = content.get(key, [])
    if not isinstance(tables, list):
        raise ExperimentError(f"{where}: {key} is no list of tables; expected [[{key}]]")
    return [_table(each, f"{where}: {key}") for each in tables]


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ExperimentError(f"{place} is {value!r}; expected a table of dotted keys")
    return value


def _tables(names: Any, where: str) -> tuple[str, ...]:
    if not isinstance(names, list) or any(name not in TABLES for name in names):
        raise ExperimentError(
            f"{where}: tables is {names!r}; expected a list of {', '.join(TABLES)}"
        )
    return tuple(name for name in TABLES if name in names)


def _once(axes: tuple[Axis, ...], override: Settings, where: str) -> None:
    """See that nothing is set twice."""
    seen: dict[str, None] = {}
    for axis in axes:
        for key in axis.keys:
            if key in seen:
                raise ExperimentError(f"{where}: '{key}' is on two axes; expected it on one")
            seen[key] = None
    for key in override:
        if key in seen:
            raise ExperimentError(
                f"--set {key}: it is an axis of {where}; expected a key of the base"
            )
