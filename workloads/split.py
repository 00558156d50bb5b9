"""Which sequences to fit on and which to judge: whole sequences, so that no token leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workloads.errors import WorkloadError
from workloads.streams import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray


def split_sequences(
    sequences: int, fraction: float | None = None, *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sequences of two parts, int64 ascending, none of them empty.

    Parameters
    ----------
    sequences
        How many there are.
    fraction
        Share of the sequences (not of the tokens) that go to the first part, chosen at random;
        at least one sequence goes to each part. By default the even sequences are the first
        part and the odd ones the second.
    seed
        Of the random choice.

    Raises
    ------
    WorkloadError
        Fewer than two sequences, or a fraction that is not between 0 and 1.
    """
    if sequences < 2:
        raise WorkloadError(f"{sequences} sequence to split, expected at least 2")
    everything = np.arange(sequences, dtype=np.int64)
    if fraction is None:
        return everything[::2], everything[1::2]
    if not 0 < fraction < 1:
        raise WorkloadError(f"fraction {fraction} of the sequences, expected between 0 and 1")
    first = min(max(1, round(fraction * sequences)), sequences - 1)
    order = stream(seed, "split").permutation(sequences)
    return np.sort(order[:first]), np.sort(order[first:])
