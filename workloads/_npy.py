"""Plain arrays on disk: npy headers that are checked before anything is read."""

from __future__ import annotations

from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from workloads.errors import WorkloadError
from workloads.regular import check_regular

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import DTypeLike


def check_npy(file: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> int:
    """Return where the data of an npy file begin, once it is known to be the one array expected.

    Version 1.0 in C order, of exactly this type, shape and length.

    Raises
    ------
    WorkloadError
        It is not, or cannot be read; one line naming the file.
    """
    try:
        check_regular(file)
        with file.open("rb") as stream:
            found = _header(stream)
            start, size = stream.tell(), file.stat().st_size
    except OSError as error:
        raise WorkloadError(f"{file}: cannot be read: {error.strerror or error}") from None
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise WorkloadError(f"{file}: not a readable npy file: {reason}") from None
    wanted = (np.dtype(dtype), shape)
    if found != wanted:
        raise WorkloadError(f"{file}: holds {_named(found)}, expected {_named(wanted)}")
    promised = start + prod(shape) * wanted[0].itemsize
    if size != promised:
        raise WorkloadError(f"{file}: the header promises {promised} bytes, the file has {size}")
    return start


def write_header(stream: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Write a header of version 1.0; its length does not depend on the first axis.

    Numpy leaves room for the first axis to grow, so the header may be written once before the
    data and again when their number is known.
    """
    about = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, about)


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return type and shape; versions other than 1.0 and Fortran order are errors."""
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy version {version}, expected (1, 0)")
    shape, fortran, dtype = npy.read_array_header_1_0(stream)
    if fortran and len(shape) > 1:
        raise ValueError("Fortran order, expected C order")
    return dtype, shape


def _named(array: tuple[np.dtype[Any], tuple[int, ...]]) -> str:
    return f"{array[0]} {array[1]}"
