"""One worker process that can be killed without harm to any other."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, TypeVar

from experiments.errors import ExperimentError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

R = TypeVar("R")

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from experiments.sweeping.lane_process import main; "
    "main(int(sys.argv[1]), json.loads(sys.argv[3]))"
)
_STATM = "/proc/self/statm"
_LOOK_S = 0.05
"""Seconds between two looks at a worker's memory."""
_DYING_S = 2.0
"""Seconds a process whose pipe has closed is given to end."""
_LAST_WORDS = 2000
"""Characters kept of what a worker wrote before it died."""


class WorkerLostError(RunError):
    """A worker that ended before its call did.

    Parameters
    ----------
    kind
        ``died``, or ``time`` or ``memory`` where a limit was passed.
    message
        One line.
    detail
        The worker's last words.
    """

    def __init__(self, kind: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may take.

    Attributes
    ----------
    seconds
        Of the wall; None for no limit.
    memory_bytes
        Resident memory of the worker's process.
    """

    seconds: float | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        """See that these are limits, and that memory can be watched here."""
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ExperimentError(f"time limit is {self.seconds}; expected seconds above 0")
        if self.memory_bytes is not None and not Path(_STATM).exists():
            raise RunError(f"a memory limit needs {_STATM}, which this system has not")


class Lane:
    """A fresh interpreter that does one call after another.

    Parameters
    ----------
    limits
        Of a call.
    preload
        Modules the process imports before its first call; their seconds count for none.
    """

    def __init__(self, limits: Limits | None = None, preload: tuple[str, ...] = ()) -> None:
        self._limits, self._preload = limits or Limits(), preload
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._fresh, self._stopped, self._asked = True, False, 0
        self._words: IO[bytes] | None = None

    def start(self) -> None:
        """Start the process where there is none; spawned, for kernels and solvers hold threads."""
        if self._process is not None:
            return
        ours, theirs = Pipe()
        self._words = TemporaryFile()  # noqa: SIM115  closed with the process
        path = json.dumps(sys.path)
        words = [sys.executable, "-X", "faulthandler", "-c", _START, str(theirs.fileno()), path]
        self._process = subprocess.Popen(  # noqa: S603  ourselves
            [*words, json.dumps(self._preload)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._words,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._pipe, self._fresh = ours, True

    def call(self, function: Callable[..., R], *arguments: object) -> R:
        """Run a call in the process, and return what it returns or raise what it raises.

        Raises
        ------
        WorkerLostError
            If the process dies, or passes a limit and is killed; the next call starts another.
        """
        self.send(pickle.dumps((function, arguments)))
        result: R = self.receive()
        return result

    def send(self, request: bytes) -> None:
        """Hand the process a pickled function and its arguments; it takes them in turn.

        Raises
        ------
        WorkerLostError
            If it cannot be started, or has died and was asked nothing else.
        """
        if not self._stopped:
            self.start()
        if self._stopped or self._pipe is None:
            self.close()
            raise WorkerLostError("died", "its worker process was stopped")
        try:
            if self._fresh:
                self._pipe.recv()
                self._fresh = False
            self._pipe.send_bytes(request)
        except (EOFError, OSError) as error:
            # With requests before it, whose answers may be there, `receive` finds it out.
            if not self._asked:
                raise self._lost("died", None) from error
        self._asked += 1

    def receive(self) -> Any:
        """Return the result of the oldest request, or raise its error; limits count from here.

        Raises
        ------
        WorkerLostError
            As `call` does; requests that were not answered are lost with the process.
        """
        if self._pipe is None:
            raise WorkerLostError("died", "its worker process was stopped")
        try:
            self._watch(self._pipe)
            well, value = pickle.loads(self._pipe.recv_bytes())  # noqa: S301  from our own child
        except (EOFError, OSError) as error:
            raise self._lost("died", None) from error
        self._asked -= 1
        if not well:
            raise value
        return value

    def _watch(self, pipe: Connection[Any, Any]) -> None:
        """Wait for an answer, within the limits."""
        limits, begun = self._limits, time.monotonic()
        look = None if limits.memory_bytes is None else _LOOK_S
        while True:
            left = None
            if limits.seconds is not None:
                left = max(begun + limits.seconds - time.monotonic(), 0.0)
            times = [each for each in (look, left) if each is not None]
            if pipe.poll(min(times) if times else None):
                return
            if left == 0.0:
                raise self._lost("time", f"took longer than the limit of {limits.seconds:g} s")
            if limits.memory_bytes is not None and self._resident() > limits.memory_bytes:
                limit = f"{limits.memory_bytes / 1e9:g} GB"
                raise self._lost("memory", f"took more memory than the limit of {limit}")

    def _resident(self) -> int:
        """Bytes of memory the process has now; 0 where it is gone."""
        assert self._process is not None  # noqa: S101  the caller's
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _lost(self, kind: str, message: str | None) -> WorkerLostError:
        # Its pipe may close a moment before a dying process is dead; one to be killed is not.
        status, words = self.close(patience_s=_DYING_S if message is None else 0.0)
        return WorkerLostError(
            kind, message or f"its worker process died ({_cause(status)})", words
        )

    def renew(self) -> None:
        """Let go of a process that died idle, so that the next request starts another."""
        if self._process is not None and self._process.poll() is not None:
            self.close()

    def stop(self) -> None:
        """Kill the process from another thread, for good: the call that is under way is lost."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def close(self, *, patience_s: float = 0.0) -> tuple[int, str]:
        """End the process, killed if it has not ended by itself in time.

        Returns
        -------
        int, str
            Its exit status, and the last it wrote.
        """
        process, self._process = self._process, None
        if process is None:
            return 0, ""
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        words = self._said()
        for end in (process.stdin, self._pipe, self._words):
            if end is not None:
                end.close()
        self._pipe = self._words = None
        self._asked = 0
        return process.returncode, words

    def _said(self) -> str:
        if self._words is None:
            return ""
        self._words.seek(0)
        return self._words.read().decode(errors="replace")[-_LAST_WORDS:].strip()


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, out of memory perhaps" if name == "SIGKILL" else name
