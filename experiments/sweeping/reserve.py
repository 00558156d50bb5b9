"""Disk space held back, so that a full disk costs no finished run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from experiments.errors import ExperimentError

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_BYTES = 32 << 20


class Reserve:
    """A file that takes up space until the runs under way need it.

    Parameters
    ----------
    path
        The file.
    size_bytes
        Its size.

    Raises
    ------
    ExperimentError
        If there is no such space.
    """

    def __init__(self, path: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self._path = path
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                os.posix_fallocate(file, 0, size_bytes)
            finally:
                os.close(file)
        except OSError as error:
            self.release()
            raise ExperimentError(
                f"{path.parent}: {error.strerror}: a sweep holds {size_bytes >> 20} MiB back for "
                "the runs under way when the disk gets full; free some space"
            ) from error

    def release(self) -> None:
        """Give the space free."""
        self._path.unlink(missing_ok=True)
