"""Dotted keys of a run file: which there are, and how they are set."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args, get_origin

from experiments.errors import ExperimentError
from experiments.spec import RunSpec
from experiments.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Settings = dict[str, Any]
"""Values by dotted key."""


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the leaves of nested tables by dotted key; quoted dotted keys are the same."""
    for name, value in content.items():
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(value, Mapping) and value:
            yield from flat(value, key)
        else:
            yield key, value


def check_key(key: str, what: str) -> None:
    """See that a run file has a key of that name.

    Raises
    ------
    ExperimentError
        If it does not, listing those its table has.
    """
    kind: type[Table] = RunSpec
    parts = key.split(".")
    for at, part in enumerate(parts):
        if part not in kind.model_fields:
            table = ".".join(parts[:at])
            allowed = ", ".join(f"{table}.{name}" if table else name for name in kind.model_fields)
            raise ExperimentError(f"unknown {what} '{key}'; allowed: {allowed}")
        inner = _table_of(kind.model_fields[part].annotation)
        if at + 1 < len(parts):
            if inner is None:
                raise ExperimentError(
                    f"unknown {what} '{key}': '{'.'.join(parts[: at + 1])}' is no table"
                )
            kind = inner
        elif inner is not None:
            allowed = ", ".join(f"{key}.{name}" for name in inner.model_fields)
            raise ExperimentError(f"{what} '{key}' is a table; expected one of its keys: {allowed}")


def _table_of(annotation: Any) -> type[Table] | None:
    """Return the table that a key is; None for a value, as a list of tables is one."""
    if get_origin(annotation) is tuple:
        return None
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Table):
            return kind
    return None


def with_settings(content: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with the settings in place; tables that do not change are shared."""
    new = dict(content)
    for key, value in settings.items():
        *path, last = key.split(".")
        table = new
        for part in path:
            inner = table.get(part)
            table[part] = dict(inner) if isinstance(inner, Mapping) else {}
            table = table[part]
        table[last] = value
    return new


def parse_settings(texts: Iterable[str]) -> Settings:
    """Read ``key=value`` of the command line: a TOML value, or else a text without quotes.

    Raises
    ------
    ExperimentError
        If one has no ``=``, an unknown key, or a key that comes twice.
    """
    settings: Settings = {}
    for text in texts:
        key, found, value = text.partition("=")
        if not found:
            raise ExperimentError(f"--set {text}: expected key=value, as in placement.beta=1.5")
        check_key(key, "key")
        if key in settings:
            raise ExperimentError(f"--set {key} is given twice; expected it once")
        settings[key] = _value(value)
    return settings


def _value(text: str) -> Any:
    try:
        content = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return content["value"] if set(content) == {"value"} else text


def said(settings: Mapping[str, Any]) -> str:
    """Write settings as the command line takes them."""
    return " ".join(f"{key}={value}" for key, value in settings.items())
