"""What all layers of a leg send between two GPUs, and how far that goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sim.messages import Traffic
    from topologies import Router

DENSE = 1 << 22
"""Most pairs of GPUs that are counted in a table instead of sorted."""


class Pairs(NamedTuple):
    """Pairs of GPUs that talk in any layer, ascending, and their messages: int64 [pairs] each."""

    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    messages: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Surveyed:
    """A leg's messages, and what is counted of them once for all who ask.

    Attributes
    ----------
    traffic
        The messages.
    pairs
        Pairs of GPUs that talk, all layers together.
    destinations, sources
        int64 [layers, gpus]: GPUs that a GPU sends to, and that send to it; itself included.
    sends, receives, from_others
        bool [layers, gpus]: who sends, who is sent to, and by others than itself.
    """

    traffic: Traffic
    pairs: Pairs
    destinations: NDArray[np.int64]
    sources: NDArray[np.int64]
    sends: NDArray[np.bool_]
    receives: NDArray[np.bool_]
    from_others: NDArray[np.bool_]


def survey(traffic: Traffic, gpus: int) -> Surveyed:
    """Count pairs and ends of a leg."""
    # numba takes longer to import than the command line may take to print its help.
    from sim import _step_kernel  # noqa: PLC0415

    rows = (traffic.indptr, traffic.src, traffic.dst, traffic.count)
    dense = gpus * gpus <= DENSE
    table = np.zeros(gpus * gpus if dense else 0, dtype=np.int64)
    destinations, sources, itself = _step_kernel.survey(rows, gpus, table)
    if dense:
        pair = np.flatnonzero(table)
        count = table[pair]
    else:
        key = traffic.src.astype(np.int64) * gpus + traffic.dst
        pair, which = np.unique(key, return_inverse=True)
        count = np.zeros(len(pair), dtype=np.int64)
        np.add.at(count, which, traffic.count)
    return Surveyed(
        traffic,
        Pairs(pair // gpus, pair % gpus, count),
        destinations,
        sources,
        sends=destinations > 0,
        receives=sources > 0,
        from_others=sources > itself,
    )


def hops_of_layers(leg: Surveyed, router: Router) -> NDArray[np.int64]:
    """int64 [layers]: network links crossed, summed over messages; not for ``ugal``."""
    gpus, traffic, pairs = router.cluster.gpus, leg.traffic, leg.pairs
    if gpus * gpus > DENSE:
        hops = router.hops(traffic.src, traffic.dst) * traffic.count
        upto = np.concatenate(([0], np.cumsum(hops)))
        return np.diff(upto[traffic.indptr])
    # numba takes longer to import than the command line may take to print its help.
    from sim._step_kernel import add_weights  # noqa: PLC0415

    weight = np.zeros((gpus, gpus), dtype=np.int64)
    weight[pairs.src, pairs.dst] = router.hops(pairs.src, pairs.dst)
    total: NDArray[np.int64] = add_weights(
        traffic.indptr, traffic.src, traffic.dst, traffic.count, weight
    )
    return total


def leg_bytes(router: Router, leg: Surveyed) -> NDArray[Any]:
    """[layers, links]: bytes of every layer of a leg, as `Router.link_bytes` counts them."""
    traffic, gpus = leg.traffic, router.cluster.gpus
    layers = traffic.layers
    if router.rule == "ugal" or gpus * gpus > DENSE:
        layer = traffic.layer_of_row
        return router.link_bytes(
            traffic.src, traffic.dst, traffic.size_bytes, layer=layer, layers=layers
        )
    rows = (traffic.indptr, traffic.src, traffic.dst, traffic.count, traffic.message_bytes)
    return router.bytes_by_layer(rows, leg.pairs[:2])


def leg_latency(router: Router, leg: Surveyed) -> NDArray[np.float64]:
    """float64 [layers]: seconds of the longest path used in every layer."""
    traffic, gpus = leg.traffic, router.cluster.gpus
    if router.rule == "ugal" or gpus * gpus > DENSE:
        blocks = [traffic.layer(each) for each in range(traffic.layers) if _rows(traffic, each)]
        found = [
            router.path_latency(each.src, each.dst, size_bytes=each.size_bytes).max()
            for each in blocks
        ]
        latency = np.zeros(traffic.layers)
        latency[np.diff(traffic.indptr) > 0] = found
        return latency
    # numba takes longer to import than the command line may take to print its help.
    from sim._step_kernel import most_weight  # noqa: PLC0415

    src, dst, _ = leg.pairs
    table = np.zeros((gpus, gpus))
    table[src, dst] = router.path_latency(src, dst)
    most: NDArray[np.float64] = most_weight(traffic.indptr, traffic.src, traffic.dst, table)
    return most


def _rows(traffic: Traffic, layer: int) -> int:
    return int(traffic.indptr[layer + 1] - traffic.indptr[layer])


def hop_histogram(router: Router, legs: Sequence[Surveyed]) -> NDArray[np.int64]:
    """int64 [legs, hops + 1]: messages that cross so many network links."""
    found = []
    for leg in legs:
        traffic = leg.traffic
        if router.rule == "ugal":  # ways depend on what else a layer sends
            layer, size = traffic.layer_of_row, traffic.size_bytes
            hops = router.hops(traffic.src, traffic.dst, size_bytes=size, layer=layer)
            found.append((hops, traffic.count))
        else:
            src, dst, messages = leg.pairs
            found.append((router.hops(src, dst), messages))
    most = max(int(hops.max(initial=0)) for hops, _ in found)
    histogram = np.zeros((len(legs), most + 1), dtype=np.int64)
    for row, (hops, messages) in enumerate(found):
        np.add.at(histogram[row], hops, messages)
    return histogram
