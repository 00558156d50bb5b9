"""Reader of long traces, a few tokens at a time: an npy file of choices, or a stored trace."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from workloads.errors import WorkloadError
from workloads.regular import check_regular
from workloads.store import CHUNK_TOKENS, StoredTrace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from numpy.typing import NDArray

    from workloads.model import MoEModel


def read_chunks(
    path: str | PathLike[str], model: MoEModel, *, tokens: int = CHUNK_TOKENS
) -> Iterator[NDArray[Any]]:
    """Yield the choices of a long trace, in memory for one chunk.

    The file holds one array, integer [tokens, MoE layers, k], logical expert ids, as `np.save`
    writes it (the members of an npz file cannot be read in parts). The header is checked before
    the first chunk is asked for; ids are checked by who counts them. A folder is a stored trace,
    whose ids are checked chunk by chunk.

    Parameters
    ----------
    path
        The npy file, or the folder of a `StoredTrace`.
    model
        The model it must fit.
    tokens
        Tokens of a chunk, the last one shorter where it must be.

    Raises
    ------
    WorkloadError
        The file cannot be read or does not fit; one line naming file and place.
    """
    file = Path(path)
    if tokens < 1:
        raise WorkloadError(f"{file}: chunks of {tokens} tokens, expected at least 1")
    if file.is_dir():
        return StoredTrace.open(file, model).chunks(tokens)
    try:
        check_regular(file)
        with file.open("rb") as stream:
            shape, dtype = _header(stream, (model.layers, model.top_k))
            offset, size = stream.tell(), file.stat().st_size
    except OSError as error:
        raise WorkloadError(f"{file}: cannot be read: {error.strerror or error}") from None
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from None
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise WorkloadError(f"{file}: not a readable npy file: {reason}") from None
    promised = offset + prod(shape) * dtype.itemsize
    if size != promised:
        raise WorkloadError(f"{file}: the header promises {promised} bytes, the file has {size}")
    return _chunks(file, offset, dtype, shape, tokens)


def _header(stream: IO[bytes], expected: tuple[int, int]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype; version 1.0 only, whose headers are short."""
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy version {version}, expected (1, 0)")
    shape, fortran, dtype = npy.read_array_header_1_0(stream)
    good = len(shape) == 3 and shape[0] > 0 and shape[1:] == expected
    if not good or fortran or dtype.kind not in "iu":
        order = "Fortran" if fortran else "C"
        raise WorkloadError(
            f"{dtype} {shape} in {order} order, expected integer ids (tokens, {expected[0]} MoE "
            f"layers, {expected[1]} choices) in C order, at least one token"
        )
    return shape, dtype


def _chunks(
    file: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], tokens: int
) -> Iterator[NDArray[Any]]:
    with file.open("rb") as stream:
        stream.seek(offset)
        for first in range(0, shape[0], tokens):
            part = (min(tokens, shape[0] - first), *shape[1:])
            values = np.fromfile(stream, dtype, prod(part))
            if len(values) < prod(part):
                raise WorkloadError(
                    f"{file}: ends at token {first + len(values) // prod(part[1:])}"
                )
            yield values.reshape(part)
