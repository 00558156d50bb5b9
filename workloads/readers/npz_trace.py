"""Reader of per-token router choices: npz with ``topk_ids`` and ``seq_lens``, or a stored trace."""

from __future__ import annotations

import lzma
import struct
import tokenize
import warnings
import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from workloads.errors import WorkloadError
from workloads.store import StoredTrace
from workloads.trace import RoutingTrace

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel

IDS, LENGTHS = "topk_ids", "seq_lens"
MAX_ARRAY_BYTES = 1 << 30
"""Largest array that is read, unpacked."""

# What zipfile, zlib and numpy raise on damaged, encrypted or hostile archives.
_DAMAGE = (
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


def read_trace(path: str | PathLike[str], model: MoEModel) -> RoutingTrace:
    """Read which experts every token chose.

    The file holds ``topk_ids``, integer [tokens, MoE layers, k], logical expert ids, no expert
    twice in a token and layer, and ``seq_lens``, integer [sequences], summing to tokens. Other
    arrays in it are left alone. What an array claims to be is checked before memory is taken for
    it, and nothing is unpickled. A folder is a stored trace, taken into memory whole.

    Parameters
    ----------
    path
        The npz file, or the folder of a `StoredTrace`.
    model
        The model it must fit.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file, key and place.
    """
    file = Path(path)
    if file.is_dir():
        return StoredTrace.open(file, model).trace()
    try:
        topk, seq_lens = _arrays(file, model)
        return RoutingTrace(
            topk=topk, experts=model.experts, seq_lens=seq_lens, source=f"trace {file.name}"
        )
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None


def _arrays(file: Path, model: MoEModel) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with zipfile.ZipFile(file) as archive:
            topk = _array(archive, IDS, (None, model.layers, model.top_k))
            return topk, _array(archive, LENGTHS, (None,))
    except WorkloadError:
        raise
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WorkloadError(f"not a readable npz file (truncated?): {reason}") from None
    except OSError as error:
        raise WorkloadError(f"cannot be read: {error.strerror or error}") from None


def _array(archive: zipfile.ZipFile, key: str, expected: tuple[int | None, ...]) -> NDArray[Any]:
    """Return the array `key`, refused by its header where its shape is not the one expected."""
    names = archive.namelist()
    if f"{key}.npy" not in names:
        have = ", ".join(repr(name.removesuffix(".npy")) for name in names[:5]) or "none"
        raise WorkloadError(f"key {key!r} is missing; keys there are: {have}")
    info = archive.getinfo(f"{key}.npy")
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        if dtype.kind not in "iu":
            raise WorkloadError(f"key {key!r}: expected integers, got {dtype}")
        if not _fits(shape, expected):
            raise WorkloadError(f"key {key!r}: shape {shape}, expected {_wanted(expected)}")
        size = prod(shape) * dtype.itemsize
        if size > MAX_ARRAY_BYTES:
            raise WorkloadError(f"key {key!r}: {size} bytes, expected at most {MAX_ARRAY_BYTES}")
        if member.tell() + size != info.file_size:
            raise WorkloadError(
                f"key {key!r}: header promises {size} bytes, "
                f"the file holds {info.file_size - member.tell()}"
            )
        values = np.frombuffer(member.read(size), dtype=dtype)
    return values.reshape(shape, order="F" if fortran else "C")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and dtype; version 1.0 only, whose headers are short.

    Numpy writes later versions only for record types with many or non-ASCII fields, and a
    header of theirs may claim 4 GiB.
    """
    version = npy.read_magic(member)
    if version != (1, 0):
        raise ValueError(f"npy version {version}, expected (1, 0)")
    with warnings.catch_warnings():
        # Headers written by Python 2 are readable; numpy warns that they take longer.
        warnings.simplefilter("ignore", UserWarning)
        shape, fortran, dtype = npy.read_array_header_1_0(member)
    return shape, fortran, dtype


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        have > 0 and want in (None, have) for have, want in zip(shape, expected, strict=True)
    )


def _wanted(expected: tuple[int | None, ...]) -> str:
    if len(expected) == 1:
        return "(sequences), at least one"
    return f"(tokens, {expected[1]} MoE layers, {expected[2]} choices), at least one token"
