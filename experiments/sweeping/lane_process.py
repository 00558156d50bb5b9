"""The process of a lane: takes calls from a pipe, and lives no longer than who started it."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any


def main(pipe: int, preload: list[str]) -> None:
    """Serve calls until the other end of the pipe is closed.

    Parameters
    ----------
    pipe
        File descriptor.
    preload
        Modules to import before the first call, so that none waits for them.
    """
    # Ctrl-C reaches every process of a terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    for name in preload:
        importlib.import_module(name)
    calls = Connection(pipe)
    calls.send("ready")
    while True:
        try:
            request = calls.recv_bytes()
        except EOFError:
            return
        calls.send_bytes(_answer(request))


def _answer(request: bytes) -> bytes:
    """Return the pickled pair of whether the call went well, and its result or error."""
    try:
        function, arguments = pickle.loads(request)  # noqa: S301  from our own parent
        return pickle.dumps((True, function(*arguments)))
    except Exception as error:  # noqa: BLE001  the parent's to judge
        return _failed(error)


def _failed(error: Exception) -> bytes:
    try:
        answer = pickle.dumps((False, error))
        pickle.loads(answer)  # noqa: S301  our own
    except Exception:  # noqa: BLE001  errors of others may not survive
        answer = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return answer


def _follow_parent() -> Any:
    """End when standard input does, which only the parent holds open: it died, or let go."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)
