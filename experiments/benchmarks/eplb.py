"""DeepSeek's balancer as written here: exact on the published example, and quick."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from placement.field.eplb import eplb
from workloads import model, synthetic_load

EXAMPLE = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
"""Loads of the example in deepseek-ai/EPLB's README: 16 replicas, 2 nodes, 8 GPUs."""

HIERARCHICAL = (
    (5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1),
    (7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1),
)
"""What the README gives for 4 groups."""

GLOBAL = (
    (10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1),
    (1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7),
)
"""What its code gives for 3 groups, which the nodes do not divide."""

REPEATS = 5
NEEDED_S = 0.15


def eplb_rows() -> list[dict[str, Any]]:
    """Check both forms on the published example, and time both on R1's shape.

    Returns
    -------
    list of dict
        ``case``, ``slots`` of a layer, ``gpus``; ``different``, slots that differ from the
        published ones (None where none are published); ``seconds``, best of `REPEATS`.
    """
    rows = []
    for form, groups, expected in (("hierarchical", 4, HIERARCHICAL), ("global", 3, GLOBAL)):
        seconds, found = _timed(np.array(EXAMPLE), groups=groups, nodes=2, gpus=8, replicas=16)
        different = int((found != np.array(expected)).sum())
        rows.append(_row(f"README example, {form}", (16, 8), different, seconds))
    load = synthetic_load(model("DeepSeek-R1"), np.random.Generator(np.random.PCG64(0)))
    for form, groups, nodes in (("hierarchical", 8, 8), ("global", 1, 1)):
        seconds, _ = _timed(load, groups=groups, nodes=nodes, gpus=256, replicas=512)
        rows.append(_row(f"DeepSeek-R1, {form}", (512, 256), None, seconds))
    return rows


def _row(
    case: str, shape: tuple[int, int], different: int | None, seconds: float
) -> dict[str, Any]:
    slots, gpus = shape
    return {
        "case": case,
        "slots": slots,
        "gpus": gpus,
        "different": different,
        "seconds": seconds,
    }


def _timed(load: np.ndarray[Any, Any], **cluster: int) -> tuple[float, np.ndarray[Any, Any]]:
    best, found = float("inf"), None
    for _ in range(REPEATS):
        begun = time.perf_counter()
        found = eplb(load, **cluster).phy2log
        best = min(best, time.perf_counter() - begun)
    assert found is not None  # noqa: S101  it ran at least once
    return best, found
