"""The store of runs: a folder with a file per run, which is the truth and the key to resume by.

::

    STORE/topomoe-store.json      what the folder is, and its version
    STORE/runs/ID.json            spec and metrics: the run is done once this is there
    STORE/provenance/ID.json      seconds, host, versions, and what tables were written
    STORE/arrays/ID.TABLE.parquet links, layers, gpus, utilisation, hops
    STORE/failed/ID.json          runs that failed, and why
    STORE/damaged/                files set aside
    STORE/claims, owners          who runs what now
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.atomic import check_destinations, write_atomic
from experiments.errors import ExperimentError
from experiments.sweeping.record import (
    FAILURE_FORMAT,
    VERSION,
    DamagedError,
    Record,
    decode,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

STORE_FORMAT, PROVENANCE_FORMAT = "topomoe-store", "topomoe-provenance"
MARK = "topomoe-store.json"
FOLDERS = ("runs", "provenance", "arrays", "failed")
_WORKING = (*FOLDERS, "claims", "owners")
"""What a sweep writes into."""


class WriteError(ExperimentError):
    """A store that takes no more files: the disk is full, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of runs.

    Attributes
    ----------
    folder
        Where it is; see `create_store` and `open_store`.
    """

    folder: Path

    def ids(self) -> list[str]:
        """Return the runs that are done, sorted."""
        return sorted(path.stem for path in (self.folder / "runs").glob("*.json"))

    def failed_ids(self) -> list[str]:
        """Return the runs that failed, sorted."""
        return sorted(path.stem for path in (self.folder / "failed").glob("*.json"))

    def has(self, run_id: str) -> bool:
        """Return whether the file of a run is there."""
        return self._path("runs", run_id).exists()

    def has_failed(self, run_id: str) -> bool:
        """Return whether a run failed, and has not been done since."""
        return self._path("failed", run_id).exists()

    def read(self, run_id: str) -> Record:
        """Read a run.

        Raises
        ------
        DamagedError, VersionError
            If its file is not whole, or of another version.
        ExperimentError
            If it cannot be read.
        """
        path = self._path("runs", run_id)
        record = decode(_read(path), str(path))
        if record.run_id != run_id:
            raise DamagedError(f"{path}: holds the run {record.run_id}; expected that of its name")
        return record

    def read_done(self, run_id: str) -> Record:
        """Read a run for somebody who will not do it again; the errors are those of `read`."""
        try:
            return self.read(run_id)
        except DamagedError as error:
            raise DamagedError(f"{error}; the same sweep sets it aside and runs it again") from None

    def provenance(self, run_id: str) -> dict[str, Any]:
        """Read how a run came about; the errors are those of `read`."""
        path = self._path("provenance", run_id)
        return parse(_read(path), PROVENANCE_FORMAT, str(path))

    def failure(self, run_id: str) -> dict[str, Any]:
        """Read why a run failed; the errors are those of `read`."""
        path = self._path("failed", run_id)
        return parse(_read(path), FAILURE_FORMAT, str(path))

    def lacks(self, run_id: str, tables: tuple[str, ...]) -> list[str]:
        """Return the tables of a run that are not there as they were written."""
        try:
            written = self.provenance(run_id)["arrays"]
        except (ExperimentError, KeyError):
            written = {}
        return [name for name in tables if not self._as_written(run_id, name, written)]

    def holds(self, run_id: str, tables: tuple[str, ...]) -> bool:
        """Return whether a run is there, whole and with these tables.

        Raises
        ------
        VersionError
            If it is of another version.
        """
        try:
            if self.has(run_id):
                self.read(run_id)
                return not self.lacks(run_id, tables)
        except DamagedError:
            pass
        return False

    def _as_written(self, run_id: str, name: str, written: Mapping[str, int]) -> bool:
        path = self._array(run_id, name)
        return name in written and path.exists() and path.stat().st_size == written[name]

    def arrays(self, run_id: str, names: Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
        """Read the tables of a run: links, layers, gpus, utilisation and hops, those it has.

        Parameters
        ----------
        run_id
            Which run.
        names
            The tables wanted; by default all.

        Raises
        ------
        ExperimentError
            If one cannot be read.
        """
        import pandas as pd  # noqa: PLC0415  slow to import

        from experiments.programs import TABLES  # noqa: PLC0415  slow to import

        tables: dict[str, pd.DataFrame] = {}
        for name in TABLES if names is None else names:
            path = self._array(run_id, name)
            if path.exists():
                try:
                    tables[name] = pd.read_parquet(path)
                except (OSError, ValueError) as error:
                    raise DamagedError(
                        f"{path}: is no Parquet file; remove it, and the same sweep makes it anew"
                    ) from error
        return tables

    def write(
        self, run_id: str, record: str, provenance: dict[str, Any], arrays: Mapping[str, bytes]
    ) -> None:
        """Write what a run gave; its own file comes last, and is flushed to disk.

        Raises
        ------
        WriteError
            If the disk is full or cannot be written.
        """
        about = {
            "format": PROVENANCE_FORMAT,
            "version": VERSION,
            "id": run_id,
            **provenance,
            "arrays": {name: len(content) for name, content in arrays.items()},
        }
        for name, content in arrays.items():
            self._put(self._array(run_id, name), content, durable=False)
        self._put(self._path("provenance", run_id), _json(about), durable=False)
        self._put(self._path("runs", run_id), record)
        self._path("failed", run_id).unlink(missing_ok=True)

    def write_failure(self, run_id: str, failure: dict[str, Any]) -> None:
        """Write why a run failed; raises as `write` does."""
        about = {"format": FAILURE_FORMAT, "version": VERSION, "id": run_id, **failure}
        self._put(self._path("failed", run_id), _json(about))

    def set_aside(self, run_id: str) -> Path:
        """Move the file of a run that is damaged out of the way, and return where it is now."""
        aside = self.folder / "damaged"
        aside.mkdir(exist_ok=True)
        taken = {path.name for path in aside.iterdir()}
        names = (f"{run_id}{'' if at == 0 else f'.{at}'}.json" for at in range(len(taken) + 1))
        target = aside / next(name for name in names if name not in taken)
        self._path("runs", run_id).replace(target)
        return target

    def tidy(self) -> None:
        """Remove what writers that were killed left behind; no other one may be at work."""
        for name in FOLDERS:
            for path in (self.folder / name).glob(".partial-*"):
                path.unlink(missing_ok=True)

    def sizes(self) -> Iterator[int]:
        """Return the bytes of every file of a run."""
        for folder in FOLDERS:
            for path in (self.folder / folder).iterdir():
                yield path.stat().st_size

    def _path(self, kind: str, run_id: str) -> Path:
        return self.folder / kind / f"{run_id}.json"

    def _array(self, run_id: str, name: str) -> Path:
        return self.folder / "arrays" / f"{run_id}.{name}.parquet"

    @staticmethod
    def _put(path: Path, content: str | bytes, *, durable: bool = True) -> None:
        try:
            write_atomic(path, content, durable=durable)
        except ExperimentError as error:
            raise WriteError(str(error)) from error


def create_store(folder: Path) -> Store:
    """Open a store to write into, made where there is none.

    Raises
    ------
    ExperimentError
        If the folder cannot be written, or is something else.
    VersionError
        If it is of another version.
    """
    if (folder / MARK).exists():
        store = open_store(folder)
    else:
        check_destinations([folder / MARK])
        # Another sweep may be making it.
        strange = folder.exists() and any(
            each.name != MARK and not each.name.startswith(".partial-") for each in folder.iterdir()
        )
        if strange and not (folder / MARK).exists():
            raise ExperimentError(
                f"{folder}: is a folder of something else; expected a store (with {MARK}), an "
                "empty folder or none"
            )
        write_atomic(folder / MARK, _json({"format": STORE_FORMAT, "version": VERSION}))
        store = Store(folder)
    try:
        for name in _WORKING:
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise ExperimentError(
            f"{error.filename}: cannot be made a folder: {error.strerror}"
        ) from error
    check_destinations([folder / name / "new" for name in _WORKING])
    return store


def open_store(folder: Path) -> Store:
    """Open a store to read.

    Raises
    ------
    ExperimentError
        If there is none.
    VersionError
        If it is of another version.
    """
    mark = folder / MARK
    if not mark.is_file():
        raise ExperimentError(
            f"{folder}: is no store of runs: has no {MARK}; expected the --out of a sweep"
        )
    parse(_read(mark), STORE_FORMAT, str(mark))
    return Store(folder)


def no_space(error: BaseException) -> bool:
    """Return whether an error comes from a full disk."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = cause.__cause__
    return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
