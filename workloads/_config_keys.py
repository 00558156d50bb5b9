"""Keys of a model's ``config.json``: each read with its type and range, each refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workloads.errors import WorkloadError
from workloads.regular import check_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_FILE_BYTES = 16 << 20
"""Largest file that is parsed; lists of unquantised modules make some of them half a megabyte."""
MAX_INTEGER = 1 << 24
"""Largest width, vocabulary or count that is believed."""
MAX_LAYERS = 1 << 12
"""Most layers that are believed: their numbers are listed one by one."""


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """The content of a file, or of an object inside it.

    Attributes
    ----------
    content
        Values by key.
    inside
        What stands before a key in messages: empty, or the name of the object with a dot.
    """

    content: Mapping[str, Any]
    inside: str = ""

    def integer(self, *names: str, least: int = 1, most: int = MAX_INTEGER) -> int:
        """Return the integer under the first of `names` that is there.

        Raises
        ------
        WorkloadError
            If none is there, one is no integer in the range, or two of them differ.
        """
        value = self.optional(*names, least=least, most=most)
        if value is None:
            raise self.missing("' or '".join(names), f"an integer from {least} to {most}")
        return value

    def optional(self, *names: str, least: int = 1, most: int = MAX_INTEGER) -> int | None:
        """Return the integer under the first of `names` that is there and not null, else None."""
        there = [name for name in names if self.content.get(name) is not None]
        values = [self._integer(name, least, most) for name in there]
        if len(set(values)) > 1:
            raise WorkloadError(
                f"key '{self.inside}{there[0]}' is {values[0]}, but '{there[1]}' is {values[1]}; "
                "expected the same"
            )
        return values[0] if values else None

    def nullable(self, name: str, *, least: int = 1, most: int = MAX_INTEGER) -> int | None:
        """Return the integer under a key that must be there, None where it is null."""
        if name not in self.content:
            raise self.missing(name, f"an integer from {least} to {most}, or null for none")
        return self.optional(name, least=least, most=most)

    def flag(self, name: str) -> bool:
        """Return a boolean; false where it is absent or null."""
        value = self.content.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return bool(value)

    def word(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """Return a text that must be one of `allowed`; `default` where it is absent or null."""
        value = self.content.get(name)
        if value is None:
            return default
        if value not in allowed:
            raise self.wrong(name, f"one of {', '.join(allowed)}")
        return str(value)

    def integers(self, name: str, *, least: int, most: int) -> list[int]:
        """Return a list of integers; an empty one where it is absent or null."""
        values = self.content.get(name)
        if values is None:
            return []
        if not isinstance(values, list) or not all(_is_integer(x, least, most) for x in values):
            raise self.wrong(name, f"a list of integers from {least} to {most}")
        return values

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; an empty one where it is absent or null."""
        values = self.content.get(name)
        if values is None:
            return []
        if not isinstance(values, list) or not all(isinstance(x, str) for x in values):
            raise self.wrong(name, "a list of texts")
        return values

    def table(self, name: str) -> ConfigKeys | None:
        """Return the object under a key; None where it is absent or null."""
        value = self.content.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return ConfigKeys(value, f"{self.inside}{name}.")

    def missing(self, name: str, expected: str) -> WorkloadError:
        """Return the error for a key that is not there."""
        state = "null" if self.content.get(name, 0) is None else "missing"
        return WorkloadError(f"key '{self.inside}{name}' is {state}; expected {expected}")

    def wrong(self, name: str, expected: str) -> WorkloadError:
        """Return the error for a key whose value is not what it must be."""
        return WorkloadError(
            f"key '{self.inside}{name}' is {shown(self.content.get(name))}; expected {expected}"
        )

    def _integer(self, name: str, least: int, most: int) -> int:
        value = self.content[name]
        if not _is_integer(value, least, most):
            raise self.wrong(name, f"an integer from {least} to {most}")
        return int(value)


def _is_integer(value: Any, least: int, most: int) -> bool:
    # JSON booleans are ints to Python: compare the types themselves.
    return type(value) is int and least <= value <= most


def shown(value: Any) -> str:
    """Return a value as JSON, shortened where it is long."""
    try:
        text = json.dumps(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def parse(file: Path) -> ConfigKeys:
    """Parse a file that holds one JSON object, every key in it once.

    Raises
    ------
    WorkloadError
        If it cannot be read or is none.
    """
    try:
        check_regular(file)
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except WorkloadError:
        raise
    except (OSError, ValueError) as error:  # the latter for a path that none can be
        reason = getattr(error, "strerror", None) or error
        raise WorkloadError(f"cannot be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise WorkloadError(f"larger than {MAX_FILE_BYTES} bytes, the most that is read")
    try:
        content = json.loads(data, object_pairs_hook=_once)
    except WorkloadError:
        raise
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"not valid JSON (truncated?): {error}") from None
    if not isinstance(content, dict):
        raise WorkloadError("expected an object with the keys of a Hugging Face config.json")
    return ConfigKeys(content)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise WorkloadError(f"key {twice!r} is there twice; expected each key once")
    return content
