"""Files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from experiments.errors import ExperimentError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file beside `path`, flush it to disk, then rename.

    Raises
    ------
    ExperimentError
        If the folder cannot be made or written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                # mkstemp is private to its user; results are to be read as any other file.
                temporary.chmod(0o644)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be written: {error.strerror}") from error
