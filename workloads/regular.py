"""Files that end: what is read is a regular file, no pipe and no device."""

from __future__ import annotations

from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING

from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from pathlib import Path


def check_regular(file: Path) -> None:
    """Refuse what may keep a reader waiting or never end, and can be read but once.

    Folders pass: opening them says best what is wrong.

    Raises
    ------
    WorkloadError
        It is a pipe, a socket or a device; one line without the file's name.
    OSError
        It is not there, or cannot be looked at.
    """
    mode = file.stat().st_mode
    if not (S_ISREG(mode) or S_ISDIR(mode)):
        raise WorkloadError("cannot be read: it is no regular file")
