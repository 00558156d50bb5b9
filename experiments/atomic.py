"""Files that are either whole or not there, and folders that change all at once."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING

from experiments.errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write `content` to a temporary file beside `path`, flush it to disk, then rename.

    Whatever stops it, Ctrl-C included, leaves no temporary file. A symbolic link stays one: the
    file it names is replaced. What is not `durable` is left to the system to flush, so that only
    the death of the machine can lose it.

    Raises
    ------
    ExperimentError
        If the folder cannot be made or written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=target.parent, prefix=".partial-", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                # mkstemp is private to its user; results are to be read as any other file.
                temporary.chmod(0o644)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a temporary folder whose files move into `folder` once the block has ended well.

    Nothing of `folder` is replaced before everything is written.

    Raises
    ------
    ExperimentError
        If the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Inside the folder: a rename does not cross file systems.
        with TemporaryDirectory(dir=folder, prefix=".partial-") as name:
            stage = Path(name)
            yield stage
            for path in sorted(stage.iterdir()):
                path.replace(_target(folder / path.name))
    except OSError as error:
        raise ExperimentError(f"{folder}: cannot be written: {error.strerror}") from error


def check_destinations(
    outputs: Iterable[Path | None], *, inputs: Iterable[Path | str | None] = ()
) -> None:
    """See that files can be written, before the work whose results go there begins.

    Parameters
    ----------
    outputs
        Files to be written; None where one was not asked for.
    inputs
        Files that are read, which no output may replace.

    Raises
    ------
    ExperimentError
        If one is a folder or a device, its folder cannot be made or written, two outputs are
        the same file, one would have to be the folder of another, or one is also an input.
    """
    wanted = [path for path in outputs if path is not None]
    targets: dict[Path, Path] = {}
    for path in wanted:
        target = _checked(path)
        if target in targets:
            raise ExperimentError(f"{path}: two outputs are to go there; expected one each")
        targets[target] = path
    for target, path in targets.items():
        if any(folder in targets for folder in target.parents):
            raise ExperimentError(f"{path}: its folder is another output's file")
    for source in inputs:
        read = None if source is None else _target(Path(source))
        if read in targets:
            raise ExperimentError(f"{source}: is both read and to be written")
        inside = [path for target, path in targets.items() if read in target.parents]
        if inside:
            raise ExperimentError(f"{inside[0]}: lies inside {source}, which is read")


def _checked(path: Path) -> Path:
    """Return the file that `path` stands for, once it is known that it can be written."""
    try:
        target = _target(path)
        if target.is_dir():
            raise ExperimentError(f"{path}: is a folder; expected a file to write")
        if target.exists() and not target.is_file():
            raise ExperimentError(f"{path}: is no regular file; expected a file to write")
        above = next(folder for folder in target.parents if os.path.lexists(folder))
        if not above.is_dir():
            raise ExperimentError(f"{path}: cannot be written: {above} is no folder")
        # Permissions do not tell of read-only and virtual file systems; writing does.
        with TemporaryFile(dir=above):
            return target
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be written: {error.strerror}") from error


def _target(path: Path) -> Path:
    """Return the absolute path, symbolic links followed."""
    if "\0" in str(path):
        raise ExperimentError(f"{str(path)!r}: holds a NUL character; expected the path of a file")
    return Path(os.path.realpath(path))
