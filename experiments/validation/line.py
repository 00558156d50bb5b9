"""A line of the validation table: what was expected, what came, and whether that will do."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.tables import Table, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    Check = Callable[[], Iterator["Got"]]

PASSED, FAILED, SHOWN, EXPLAINED, SKIPPED = "pass", "FAIL", "-", "miss", "skip"
"""Verdicts: lines that are not judged are shown, and those that miss may have a stated reason."""


class Expected(Table):
    """What is expected of a line, from ``expected.toml``.

    Attributes
    ----------
    what, source
        For people.
    value
        A number, or several that are judged together. None where nothing is known: a
        prediction.
    rel, abs
        Largest deviation of any number, relative and absolute.
    most
        Whether the value is a ceiling.
    judged
        Whether a deviation fails.
    slow
        Whether tests leave it out.
    reason
        Why the simulator misses the value, where that is known and stays.
    """

    what: str
    source: str
    value: float | list[float] | None = None
    rel: float = 0.0
    abs: float = 0.0
    most: bool = False
    judged: bool = True
    slow: bool = False
    reason: str | None = None

    @property
    def numbers(self) -> NDArray[np.float64]:
        """float64 [numbers]."""
        return np.atleast_1d(np.asarray(self.value, dtype=np.float64))

    @property
    def tolerance(self) -> str:
        """The tolerance in words."""
        if not self.judged:
            return "not judged"
        if self.most:
            return "at most"
        if self.abs:
            return f"{self.abs:g}"
        if self.rel >= 1e-3:
            return f"{100 * self.rel:g} %"
        return f"{self.rel:g} of it" if self.rel else "equal"


@dataclass(frozen=True, slots=True)
class Got:
    """What a check measured.

    Attributes
    ----------
    key
        Of the line in ``expected.toml``.
    value
        As many numbers as are expected; None where what it takes to measure is absent.
    case
        Which of several cases of the same line.
    """

    key: str
    value: ArrayLike | None
    case: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A line with what came of it.

    Attributes
    ----------
    got
        What was measured; None where no check measured the line.
    skipped
        Whether that is because what it takes is absent.
    """

    key: str
    expected: Expected
    got: tuple[float, ...] | None
    case: str = ""
    skipped: bool = False

    @classmethod
    def of(cls, got: Got) -> Finding:
        """Put what a check measured beside what was expected."""
        if got.value is None:
            return cls(got.key, expectations()[got.key], None, got.case, skipped=True)
        numbers = np.atleast_1d(np.asarray(got.value, dtype=np.float64))
        return cls(got.key, expectations()[got.key], tuple(numbers.tolist()), got.case)

    @property
    def error(self) -> float | None:
        """Largest deviation: absolute where the tolerance is, else relative to what is expected.

        None where nothing can be compared: nothing measured, expected, or a count that differs.
        """
        expected, got = self.expected.numbers, self.got
        if got is None or self.expected.value is None or len(got) != len(expected):
            return None
        off = np.asarray(got) - expected
        if not self.expected.abs:
            off = off / np.where(expected == 0, 1.0, np.abs(expected))
        return float(off[np.abs(off).argmax()])

    @property
    def verdict(self) -> str:
        """`PASSED`, `FAILED`, `SHOWN`, `EXPLAINED` or `SKIPPED`."""
        if self.skipped:
            return SKIPPED
        if not self.expected.judged:
            return SHOWN
        error = self.error
        limit = self.expected.abs or self.expected.rel
        # Written so that NaN fails.
        good = error is not None and (error if self.expected.most else abs(error)) <= limit
        if good:
            return PASSED
        return EXPLAINED if self.expected.reason and self.got is not None else FAILED

    def row(self) -> dict[str, Any]:
        """Return the line for programs."""
        return {
            "key": self.key,
            "case": self.case,
            "what": self.expected.what,
            "source": self.expected.source,
            "expected": self.expected.value,
            "got": None if self.got is None else list(self.got),
            "error": self.error,
            "tolerance": self.expected.tolerance,
            "verdict": self.verdict,
        }


@cache
def expectations() -> dict[str, Expected]:
    """Return the expected lines by key, in the order of the file."""
    name = "expected.toml"
    content = tomllib.loads(files("experiments.validation").joinpath(name).read_text("utf-8"))
    return {key: resolve(Expected, line, f"{name}: {key}") for key, line in content.items()}
