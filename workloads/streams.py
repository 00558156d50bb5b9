"""Independent streams of random numbers, told apart by name."""

from __future__ import annotations

import numpy as np

from workloads.errors import WorkloadError


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator of the stream `name` under `seed`.

    Streams of one seed are independent of each other and of what is drawn from the others:
    their ``SeedSequence`` differ in the spawn key, which spells the name.

    Parameters
    ----------
    seed
        Not negative.
    name
        What the numbers are for, such as "trace".
    """
    if seed < 0:
        raise WorkloadError(f"seed is {seed}, expected at least 0")
    key = tuple(name.encode())
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
