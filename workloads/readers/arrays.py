"""Arrays of npy and npz files: what they claim to be is checked before memory is taken for them."""

from __future__ import annotations

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from workloads.errors import WorkloadError
from workloads.regular import check_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAX_ARRAY_BYTES = 1 << 30
"""Largest array that is read, unpacked."""

MAX_MEMBERS = 4096
"""Most arrays of an npz file whose headers are looked at."""

ZIP, NPY = b"PK\x03\x04", b"\x93NUMPY"
"""First bytes of npz and npy files."""

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
)
"""What zipfile, zlib and numpy raise on damaged, encrypted or hostile files."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an array claims to be."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * self.dtype.itemsize


def first_bytes(file: Path, number: int = 8) -> bytes:
    """Return how a file begins.

    Raises
    ------
    WorkloadError
        It cannot be read; one line without the file's name, as all errors here.
    """
    try:
        check_regular(file)
        with file.open("rb") as stream:
            return stream.read(number)
    except OSError as error:
        raise WorkloadError(f"cannot be read: {error.strerror or error}") from None


def npz_headers(file: Path) -> dict[str, Header]:
    """Return the headers of all arrays in an npz file, by key; no array is read.

    Raises
    ------
    WorkloadError
        It is damaged, or cannot be read.
    """
    with _readable(file, "npz"), zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) > MAX_MEMBERS:
            raise WorkloadError(f"{len(names)} arrays, expected at most {MAX_MEMBERS}")
        found = {}
        for name in names:
            with archive.open(name) as member:
                found[name.removesuffix(".npy")] = _header(member)
        return found


def npy_header(file: Path) -> Header:
    """Return the header of an npy file.

    Raises
    ------
    WorkloadError
        It is damaged, or cannot be read.
    """
    with _readable(file, "npy"), file.open("rb") as stream:
        return _header(stream)


def npz_array(
    file: Path,
    key: str,
    expected: tuple[int | None, ...],
    wanted: str,
    *,
    kinds: str = "iu",
    limit: int | None = None,
) -> NDArray[Any]:
    """Return one array of an npz file.

    Parameters
    ----------
    file, key
        The file and the name of the array in it.
    expected
        Its shape, None for axes of any length but 0.
    wanted
        What to call that shape in an error.
    kinds
        Kinds of element types that are taken, as in `numpy.dtype.kind`.
    limit
        Most bytes of it, unpacked; by default `MAX_ARRAY_BYTES`.

    Raises
    ------
    WorkloadError
        Key missing, another type or shape, beyond the limit, damaged, or unreadable.
    """
    with _readable(file, "npz"), zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if f"{key}.npy" not in names:
            have = ", ".join(repr(name.removesuffix(".npy")[:40]) for name in names[:5]) or "none"
            raise WorkloadError(f"key {key!r} is missing; keys there are: {have}")
        if names.count(f"{key}.npy") > 1:
            raise WorkloadError(f"key {key!r} stands twice in the archive, expected once")
        info = archive.getinfo(f"{key}.npy")
        with archive.open(info) as member:
            header = _header(member)
            _check(f"key {key!r}: ", header, expected, wanted, kinds)
            _check_size(f"key {key!r}: ", header, limit)
            return _data(f"key {key!r}: ", member, header, info.file_size)


def npy_array(
    file: Path,
    expected: tuple[int | None, ...],
    wanted: str,
    *,
    kinds: str = "iu",
    limit: int | None = None,
) -> NDArray[Any]:
    """Return the array of an npy file; parameters and errors as of `npz_array`."""
    with _readable(file, "npy"), file.open("rb") as stream:
        header = _header(stream)
        _check("", header, expected, wanted, kinds)
        _check_size("", header, limit)
        return _data("", stream, header, file.stat().st_size)


def _check(
    where: str, header: Header, expected: tuple[int | None, ...], wanted: str, kinds: str
) -> None:
    if header.dtype.kind not in kinds:
        names = {"i": "integers", "f": "numbers", "b": "booleans"}
        allowed = " or ".join(names[kind] for kind in kinds if kind in names)
        raise WorkloadError(f"{where}expected {allowed}, got {header.dtype}")
    if not _fits(header.shape, expected):
        raise WorkloadError(f"{where}shape {header.shape}, expected {wanted}")


def _check_size(where: str, header: Header, limit: int | None) -> None:
    most = MAX_ARRAY_BYTES if limit is None else limit
    if header.size_bytes > most:
        raise WorkloadError(f"{where}{header.size_bytes} bytes, expected at most {most}")


def _data(where: str, stream: IO[bytes], header: Header, length: int) -> NDArray[Any]:
    """Read what follows a checked header in a stream of `length` bytes."""
    size, left = header.size_bytes, length - stream.tell()
    if size != left:
        raise WorkloadError(f"{where}header promises {size} bytes, the file holds {left}")
    values = np.frombuffer(stream.read(size), dtype=header.dtype)
    return values.reshape(header.shape, order="F" if header.fortran else "C")


def _header(stream: IO[bytes]) -> Header:
    """Return a header; version 1.0 only, whose headers are short.

    Numpy writes later versions only for record types with many or non-ASCII fields, and a
    header of theirs may claim gigabytes.
    """
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy version {version}, expected (1, 0)")
    with warnings.catch_warnings():
        # Headers written by Python 2 are readable; numpy warns that they take longer.
        warnings.simplefilter("ignore", UserWarning)
        return Header(*npy.read_array_header_1_0(stream))


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        have > 0 and want in (None, have) for have, want in zip(shape, expected, strict=True)
    )


@contextmanager
def _readable(file: Path, kind: str) -> Iterator[None]:
    """Turn whatever a damaged file raises into one line."""
    try:
        check_regular(file)
        yield
    except WorkloadError:
        raise
    except DAMAGE as error:
        # Errors of zipfile repeat what stands in the file.
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise WorkloadError(f"not a readable {kind} file (truncated?): {reason}") from None
    except OSError as error:
        raise WorkloadError(f"cannot be read: {error.strerror or error}") from None
