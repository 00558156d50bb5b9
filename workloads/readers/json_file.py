"""JSON of strangers: limited in size, no key twice, every value checked for its type."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads.errors import WorkloadError
from workloads.regular import check_regular

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

MAX_FILE_BYTES = 256 << 20
"""Largest text file that is parsed; JSON takes several times its size in memory."""


def read_text_file(file: Path, *, limit: int | None = None) -> bytes:
    """Return the content of a file of limited size.

    Raises
    ------
    WorkloadError
        It cannot be read, is no regular file, or is larger than `limit` bytes
        (`MAX_FILE_BYTES` by default); one line without the
        file's name, as all errors here.
    """
    limit = MAX_FILE_BYTES if limit is None else limit
    try:
        check_regular(file)
        with file.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise WorkloadError(f"cannot be read: {error.strerror or error}") from None
    if len(content) > limit:
        raise WorkloadError(f"larger than {limit} bytes, the most that is read")
    return content


def parse_json(content: bytes) -> Any:
    """Parse JSON; a key that stands twice in an object is an error.

    Raises
    ------
    WorkloadError
        It is no JSON.
    """
    try:
        return json.loads(content, object_pairs_hook=_once)
    except WorkloadError:
        raise
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"not valid JSON (truncated?): {error}") from None


def parse_json_lines(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Parse one JSON object a line; return each with ``line N``, counted from 1.

    Raises
    ------
    WorkloadError
        A line is no JSON object, or there is none; the message names the line.
    """
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            value = parse_json(line)
        except WorkloadError as error:
            raise WorkloadError(f"{where}: {error}") from None
        if not isinstance(value, dict):
            raise WorkloadError(f"{where}: expected an object, got a {kind(value)}")
        found.append((where, value))
    if not found:
        raise WorkloadError("no record in it; expected one JSON object a line")
    return found


def check_keys(
    document: Any, *, required: Iterable[str], optional: Iterable[str] = (), where: str = ""
) -> dict[str, Any]:
    """Return an object that has all the required keys and no unknown one.

    Raises
    ------
    WorkloadError
        It is no object, misses a key, or has one that is not allowed.
    """
    needed, allowed = list(required), [*required, *optional]
    prefix = f"{where}: " if where else ""
    if not isinstance(document, dict):
        what = f"key {needed[0]!r}" if len(needed) == 1 else f"keys {_quoted(needed)}"
        raise WorkloadError(f"{prefix}expected an object with the {what}, got a {kind(document)}")
    for key in needed:
        if key not in document:
            have = _quoted(list(document)[:5]) or "none"
            raise WorkloadError(f"{prefix}key {key!r} is missing; keys there are: {have}")
    unknown = [key for key in document if key not in allowed]
    if unknown:
        are = "is" if len(allowed) == 1 else "are"
        raise WorkloadError(
            f"{prefix}unknown key {str(unknown[0])[:40]!r}: only {_quoted(allowed)} {are} allowed"
        )
    return document


def listed(value: Any, name: str, what: str = "counts") -> list[Any]:
    """Return a list that is not empty.

    Raises
    ------
    WorkloadError
        It is something else; `name` and `what` say where and what was expected.
    """
    if not isinstance(value, list) or not value:
        got = "an empty list" if isinstance(value, list) else f"a {kind(value)}"
        raise WorkloadError(f"{name}: expected a list of {what}, got {got}")
    return value


def integer(value: Any, name: str, *, least: int = 0, most: int = 1 << 31) -> int:
    """Return a whole number within bounds; booleans and floats are none.

    Raises
    ------
    WorkloadError
        It is something else.
    """
    if type(value) is not int:
        raise WorkloadError(f"{name}: expected a whole number, got {_shown(value)}")
    if not least <= value <= most:
        raise WorkloadError(f"{name}: {_shown(value)}, expected {least}..{most}")
    return value


def integers(value: Any, name: str, *, below: int, what: str = "expert ids") -> NDArray[np.int64]:
    """Return a list of whole numbers 0..`below` - 1 as int64 [length], the length at least 1.

    Raises
    ------
    WorkloadError
        A value is no such number; the message names its place.
    """
    values = listed(value, name, what)
    for at, each in enumerate(values):
        # JSON booleans are ints to Python: compare the types themselves.
        if type(each) is not int:
            raise WorkloadError(f"{name}[{at}]: expected a whole number, got {_shown(each)}")
        if not 0 <= each < below:
            raise WorkloadError(f"{name}[{at}]: {_shown(each)}, expected 0..{below - 1}")
    return np.array(values, dtype=np.int64)


def counts(value: Any, name: str, width: int) -> NDArray[np.float64]:
    """Return a row of counts, float64 [width], finite and not negative.

    Raises
    ------
    WorkloadError
        Another length, or a value that is no count; the message names its place.
    """
    values = listed(value, name)
    if len(values) != width:
        raise WorkloadError(f"{name}: {len(values)} counts, expected {width}, one per expert")
    if not {int, float}.issuperset(map(type, values)):
        bad = next(i for i, each in enumerate(values) if type(each) not in (int, float))
        raise WorkloadError(f"{name}[{bad}]: expected a number, got a {kind(values[bad])}")
    try:
        row = np.array(values, dtype=np.float64)
    except OverflowError:
        raise WorkloadError(f"{name}: a count is beyond the range of float64") from None
    wrong = np.flatnonzero(~(np.isfinite(row) & (row >= 0)))
    if len(wrong):
        bad = int(wrong[0])
        raise WorkloadError(
            f"{name}[{bad}]: count is {float(row[bad])}, expected a finite number >= 0"
        )
    return row


def kind(value: Any) -> str:
    """Return what JSON calls the type of `value`."""
    names = {bool: "boolean", str: "string", list: "list", dict: "object", type(None): "null"}
    return names.get(type(value), "number")


def _shown(value: Any) -> str:
    """Return a number as it is, unless it is long, and of anything else the kind."""
    if type(value) in (int, float):
        # Python refuses to print integers of thousands of digits.
        return "a number beyond 64 bits" if abs(value) >= 1 << 63 else str(value)
    return f"a {kind(value)}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(str(name)[:40]) for name in names)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        stands = Counter(key for key, _ in pairs)
        twice = next(key for key, times in stands.items() if times > 1)
        raise WorkloadError(f"key {twice[:40]!r} stands twice in an object, expected once")
    return found
