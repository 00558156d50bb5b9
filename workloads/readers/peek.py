"""A look at a file: what it is a file of, without believing or loading what is in it."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workloads.errors import WorkloadError
from workloads.readers.arrays import (
    DAMAGE,
    NPY,
    ZIP,
    Header,
    first_bytes,
    npy_header,
    npz_headers,
)
from workloads.readers.json_file import parse_json, read_text_file

if TYPE_CHECKING:
    from os import PathLike

Container = Literal["folder", "json", "json lines", "npy", "npz", "text", "torch", "unreadable"]

_YAML_KEY = re.compile(rb"""^["']?([A-Za-z_]\w*)["']?\s*:""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Peek:
    """What a file seems to be.

    Attributes
    ----------
    container
        How it is packed; ``unreadable`` where it is damaged, or not there.
    keys
        Keys of the outermost object, names of the arrays, or the type of the first record.
    header
        Shape and type of an npy file's array.
    damage
        What makes it unreadable; empty where nothing does.
    """

    container: Container
    keys: tuple[str, ...] = ()
    header: Header | None = None
    damage: str = ""


def peek(path: str | PathLike[str]) -> Peek:
    """Look at a file; what is wrong with it is for its reader to say."""
    file = Path(path)
    try:
        if file.is_dir():
            return Peek("folder")
        start = first_bytes(file)
        if start.startswith(NPY):
            return Peek("npy", header=npy_header(file))
        if start.startswith(ZIP):
            return _archive(file)
        return _text(read_text_file(file))
    except WorkloadError as error:
        return Peek("unreadable", damage=str(error))
    except DAMAGE as error:
        return Peek("unreadable", damage=f"damaged: {type(error).__name__}")


def _archive(file: Path) -> Peek:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if any(name.endswith(".pkl") for name in names):
        return Peek("torch")
    return Peek("npz", tuple(npz_headers(file)))


def _text(content: bytes) -> Peek:
    """Tell JSON, lines of JSON, and other text with keys at the start of its lines."""
    if content.lstrip()[:1] not in (b"{", b"["):
        keys = [key.decode() for key in _YAML_KEY.findall(content[: 1 << 20])]
        return Peek("text", tuple(dict.fromkeys(keys)))
    first = content.strip().partition(b"\n")[0]
    record = _parsed(first)
    if isinstance(record, dict) and "record_type" in record:
        return Peek("json lines", (str(record["record_type"]),))
    whole = record is not None and first == content.strip()
    document = record if whole else parse_json(content)
    return Peek("json", tuple(document) if isinstance(document, dict) else ())


def _parsed(content: bytes) -> Any:
    try:
        return parse_json(content)
    except WorkloadError:
        return None
