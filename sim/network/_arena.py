"""Room in the arrays that Python and the compiled loops share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def enlarged(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return a zero-padded copy with `size` rows."""
    grown = np.zeros((size, *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown


class Arena:
    """Which stretches of an array are in use: first fit, so that room is used again."""

    def __init__(self) -> None:
        self._used: list[tuple[int, int]] = []

    def take(self, length: int) -> int:
        """Reserve `length` places and return the first."""
        start = 0
        for position, (begin, end) in enumerate(self._used):
            if begin - start >= length:
                self._used.insert(position, (start, start + length))
                return start
            start = end
        self._used.append((start, start + length))
        return start

    def free(self, start: int, length: int) -> None:
        """Give back what `take` returned."""
        self._used.remove((start, start + length))
