"""Who watches a sweep: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

    from experiments.sweeping.driver import Tally

PLAIN_S = 10.0
"""Seconds between two plain lines."""


def counts(tally: Tally) -> str:
    """Say how far a sweep is, in one line."""
    ended = tally.before + tally.done
    parts = [f"{ended} of {tally.total} done"]
    if tally.before:
        parts[0] += f" ({tally.before} before)"
    parts += [f"{tally.failed} failed", f"{tally.running} running"]
    if tally.elsewhere:
        parts.append(f"{tally.elsewhere} in another sweep")
    if tally.left and tally.left_s is not None:
        parts.append(f"about {duration(tally.left_s)} left")
    return ", ".join(parts)


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    if seconds < 1:
        return "1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


class PlainWatcher:
    """Prints a line now and then.

    Parameters
    ----------
    console
        Where to.
    every_s
        Seconds between two lines.
    """

    def __init__(self, console: Console, every_s: float = PLAIN_S) -> None:
        self._console, self._every_s = console, every_s
        self._next, self._shown = 0.0, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave nothing behind."""

    def update(self, tally: Tally) -> None:
        """Print how far it is, if that is due or it is over."""
        now, line = time.monotonic(), counts(tally)
        over = tally.left == 0 and line != self._shown
        if now < self._next and not over:
            return
        self._next, self._shown = now + self._every_s, line
        self._console.print(f"{line}; last: {tally.last}" if tally.last else line, soft_wrap=True)

    def note(self, line: str) -> None:
        """Print it."""
        self._console.print(line, soft_wrap=True)


class LiveWatcher:
    """Keeps a bar, the counts and the last result at the foot of a terminal.

    Parameters
    ----------
    console
        The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, tally: Tally) -> None:
        """Redraw."""
        table = Table.grid(padding=(0, 1))
        over = tally.total - tally.left
        bar = ProgressBar(total=max(tally.total, 1), completed=over, width=24)
        table.add_row(bar, counts(tally))
        shown = Table.grid()
        shown.add_row(table)
        if tally.last:
            shown.add_row(f"last: {tally.last}")
        self._live.update(shown)

    def note(self, line: str) -> None:
        """Print it above."""
        self._console.print(line, soft_wrap=True)


def watcher(console: Console) -> LiveWatcher | PlainWatcher:
    """Return who watches: on a terminal the live one."""
    return LiveWatcher(console) if console.is_terminal else PlainWatcher(console)
