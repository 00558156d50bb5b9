"""Long traces read a few tokens at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from workloads import MoEModel, WorkloadError, read_chunks

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = MoEModel("test", 3, (0, 1, 2), 16, 4, 0, 8, 8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("tokens", [1, 4, 10, 11])
def test_chunks_are_the_array_in_parts(tmp_path: Path, dtype: type, tokens: int) -> None:
    """Put together they are what was saved; only the last may be shorter."""
    saved = np.random.default_rng(0).integers(0, 16, (10, 3, 4)).astype(dtype)
    np.save(tmp_path / "x.npy", saved)
    chunks = list(read_chunks(tmp_path / "x.npy", SHAPE, tokens=tokens))
    assert np.array_equal(np.concatenate(chunks), saved)
    assert all(len(each) == tokens for each in chunks[:-1])
    assert chunks[0].dtype == dtype


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 5), np.uint8), r"expected integer ids \(tokens, 3 MoE layers, 4 choices"),
        (np.zeros((0, 3, 4), np.uint8), "at least one token"),
        (np.zeros((2, 3, 4)), "float64"),
        (np.zeros((4, 3, 2), np.uint8).T, "Fortran order"),
        (np.array(["x"]), "expected integer ids"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    """Before any chunk is read."""
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(WorkloadError, match=message):
        read_chunks(tmp_path / "x.npy", SHAPE)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Missing, empty, cut short, not npy, and chunks of nothing."""
    file = tmp_path / "x.npy"
    with pytest.raises(WorkloadError, match="cannot be read"):
        read_chunks(file, SHAPE)
    for content in (b"", b"PK not npy at all", b"\x93NUMPY\x01\x00\x06\x00{1: 2}"):
        file.write_bytes(content)
        with pytest.raises(WorkloadError, match="not a readable npy file"):
            read_chunks(file, SHAPE)
    np.save(file, np.zeros((10, 3, 4), np.uint8))
    with pytest.raises(WorkloadError, match="chunks of 0 tokens"):
        read_chunks(file, SHAPE, tokens=0)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(WorkloadError, match="header promises 248 bytes, the file has 247"):
        read_chunks(file, SHAPE)
    file.write_bytes(whole)
    chunks = read_chunks(file, SHAPE, tokens=4)
    next(chunks)
    file.write_bytes(whole[: -12 * 3])  # shortened while it is read
    with pytest.raises(WorkloadError, match="ends at token 7"):
        list(chunks)
