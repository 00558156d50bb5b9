"""Max-min fair rates against exact fractions, and of hashed permutations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments.validation.jobs import tree
from experiments.validation.line import Got
from sim.network import max_min_rates
from topologies import Router

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES: dict[str, tuple[list[tuple[int, ...]], list[float]]] = {
    "parking-lot": ([(0, 1, 2, 3, 4), (0,), (1,), (2,), (3,), (4,)], [1.0] * 5),
    "two-thirds": ([(0, 1), (0,), (1, 2), (2,)], [1.0, 1.0, 2.0]),
    "wide-middle": ([(0,), (0, 1), (1,), (1, 2), (2,)], [1.0, 2.0, 1.0]),
    "senders": ([(0, 3), (1, 3), (2, 3)], [1.0, 10.0, 10.0, 12.0]),
    "victim": ([(0, 4), (1, 4), (2, 4), (3, 4), (0, 5)], [4.0] * 6),
}
"""Links of every flow, and capacities of the links."""


def fractions() -> Iterator[Got]:
    """Rates that are known as fractions."""
    for name, (paths, capacity) in CASES.items():
        indptr = np.cumsum([0] + [len(path) for path in paths])
        link = np.concatenate(paths)
        rates = max_min_rates(indptr, link, np.ones(len(link)), capacity=capacity)
        yield Got(f"theory.rates.{name}", rates)


def permutations() -> Iterator[Got]:
    """Mean rates of cyclic permutations whose flows collide by their hashes."""
    for k, runs in ((8, 30), (16, 6)):
        yield Got(f"theory.rates.permutation-{k}", permutation(k, runs, np.random.default_rng(5)))


def permutation(k: int, runs: int, rng: np.random.Generator) -> float:
    """Return the mean max-min rate of permutations on a k-ary fat-tree, hosts sending at 1."""
    cluster = tree(k, 1.0).build()
    means = []
    for seed in range(runs):
        order = rng.permutation(cluster.gpus)
        dst = np.empty_like(order)
        dst[order] = np.roll(order, 1)  # a cycle through all: nobody sends to itself
        usage = Router(cluster, "hash", seed=seed).link_usage(np.arange(cluster.gpus), dst)
        rates = max_min_rates(
            usage.indptr, usage.link, usage.fraction, capacity=cluster.bandwidth_Bps
        )
        means.append(rates.mean())
    return float(np.mean(means))
