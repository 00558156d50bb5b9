"""Which sweep runs what: claims that the death of a sweep, by any signal, makes void.

Every sweep holds the lock of a file of its own in ``owners/``; the kernel releases it when the
process ends, however it ends. A claim is a symbolic link in ``claims/``, named after the run and
pointing at the owner's name: made in one atomic step, by one process only.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Claims:
    """The claims of one sweep on runs of a store.

    Parameters
    ----------
    folder
        Of the store; it can be written.

    Attributes
    ----------
    alone
        Whether no other sweep lived when this one came.
    """

    def __init__(self, folder: Path) -> None:
        self._links, self._owners = folder / "claims", folder / "owners"
        self._links.mkdir(exist_ok=True)
        self._owners.mkdir(exist_ok=True)
        self._name, self._file = self._enter()
        others = {path.name.partition(".")[0] for path in self._owners.iterdir()} - {self._name}
        buried = [self._bury(name) for name in sorted(others)]
        self.alone = all(buried)

    def _enter(self) -> tuple[str, int]:
        """Make and lock a file that tells others that this sweep lives."""
        while True:
            name = secrets.token_hex(8)
            file = os.open(self._owners / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever took it for a dead one's in between has removed it.
            if _is(file, self._owners / name):
                return name, file
            os.close(file)

    def own_file(self, kind: str) -> Path:
        """Return the path of a file of this sweep, which goes with it however it ends."""
        return self._owners / f"{self._name}.{kind}"

    def take(self, run_id: str) -> bool:
        """Claim a run; False where a sweep that lives has it."""
        link = self._links / run_id
        while True:
            try:
                link.symlink_to(self._name)
            except FileExistsError:
                owner = _target(link)
                if owner == self._name:
                    return True
                if owner is not None and not self._bury(owner):
                    return False
            else:
                return True

    def drop(self, run_id: str) -> None:
        """Give up the claim on a run."""
        (self._links / run_id).unlink(missing_ok=True)

    def close(self) -> None:
        """Give up every claim."""
        for link in self._of(self._name):
            link.unlink(missing_ok=True)
        self._leave(self._name)
        os.close(self._file)

    def _leave(self, owner: str) -> None:
        """Remove the files of a sweep; the one that is locked last."""
        for path in self._owners.glob(f"{owner}.*"):
            path.unlink(missing_ok=True)
        (self._owners / owner).unlink(missing_ok=True)

    def _bury(self, owner: str) -> bool:
        """Remove the claims of a sweep if it is dead; False where it lives.

        Only who holds the dead one's lock removes its claims, so that nobody removes a new claim
        that was made on a run in between.
        """
        if owner == self._name:
            return False
        path = self._owners / owner
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            for link in self._of(owner):
                link.unlink(missing_ok=True)
            self._leave(owner)
            return True
        finally:
            os.close(file)

    def _of(self, owner: str) -> Iterator[Path]:
        return (link for link in list(self._links.iterdir()) if _target(link) == owner)


def _target(link: Path) -> str | None:
    """Return who holds a claim; None where it has just been dropped."""
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return None


def _is(file: int, path: Path) -> bool:
    """Return whether an open file is still the one at a path."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), there)
