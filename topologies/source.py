"""Files that a cluster's parameters name: found, bounded in size, and known by their content."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from topologies.checks import shown
from topologies.errors import TopologyError

if TYPE_CHECKING:
    from os import stat_result

MAX_FILE_BYTES = 1 << 29
"""Of a file; a matrix of 8192 ranks as float64 has as many."""


def fingerprint(file: Any, given: Any) -> str:
    """Return the SHA-256 of a file's content, as a spec holds it.

    Raises
    ------
    TopologyError
        If the file cannot be read, or its content is no longer the one of `given`.
    """
    if not isinstance(file, str) or not file:
        raise TopologyError(f"file is {shown(file)}; expected the path of a file")
    if given is not None and not isinstance(given, str):
        raise TopologyError(f"sha256 is {shown(given)}; expected a string, or nothing")
    found = sha256(read_bytes(Path(file))).hexdigest()
    if given is not None and given != found:
        raise TopologyError(f"{file}: its content has changed; its SHA-256 is {found}")
    return found


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises
    ------
    TopologyError
        In one line that starts with the file's name: if it cannot be read, is no regular file
        or is larger than `MAX_FILE_BYTES`.
    """
    try:
        about = path.stat()
        refusal = _refusal(about)
        if refusal is None:
            return path.read_bytes()
    except OSError as error:
        refusal = f"cannot be read: {error.strerror}"
    except ValueError as error:  # a NUL in the path
        refusal = f"cannot be read: {error}"
    raise TopologyError(f"{path}: {refusal}")


def _refusal(about: stat_result) -> str | None:
    if not S_ISREG(about.st_mode):
        return "cannot be read: it is no regular file"
    if about.st_size > MAX_FILE_BYTES:
        return f"has {about.st_size} bytes; expected at most {MAX_FILE_BYTES}"
    return None


def read_text(path: Path, *, kind: str) -> str:
    """Return a file's content as UTF-8 text; `kind` says what was expected.

    Raises
    ------
    TopologyError
        In one line that starts with the file's name.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TopologyError(f"{path}: is not UTF-8 text; expected {kind}") from None
