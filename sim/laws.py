"""Laws that every run obeys, counted independently of the network that produced it.

Each check raises `LawViolation` with numbers. Whole bytes are compared exactly; float64 bytes
(rule ``shares``) to a relative 1e-9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import LawViolation
from sim.result import DIRECTIONS
from topologies import LinkClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.messages import Traffic
    from sim.result import SimResult
    from topologies import Router
    from workloads import RoutingTrace

    Pair = tuple[Traffic, Traffic]
    Inputs = tuple[RoutingTrace, Placement, Attention]

SHARE_TOLERANCE = 1e-9
"""Relative, of float64 bytes."""
CHUNK_TOLERANCE_NS = 1e-6
"""What the packet network forgives when it rounds a service time up."""


def check_laws(result: SimResult, traffic: Pair, router: Router, inputs: Inputs) -> None:
    """Check all laws of a finished run.

    Parameters
    ----------
    result
        The run.
    traffic
        Dispatch and combine messages it was given.
    router
        Routes in force.
    inputs
        Trace, placement and attention, from which the hops are counted again.

    Raises
    ------
    LawViolation
        With the first contradiction found.
    """
    check_delivery(result, traffic, router)
    check_routes(result, traffic, router)
    if router.shortest:
        check_hops(result, router, inputs)
    check_capacity(result)
    check_durations(result)
    check_time(result)


def check_delivery(result: SimResult, traffic: Pair, router: Router) -> None:
    """Bytes injected = bytes delivered, for every GPU and direction, summed over layers.

    A GPU that forwards another's message over NVLink, as rail rules have it, is delivered and
    sends it too.
    """
    cluster = result.cluster
    for at, each in enumerate(traffic):
        remote = each.src != each.dst
        carried = result.link_bytes[:, at].sum(axis=0)
        forwarded = np.zeros(cluster.gpus, dtype=np.int64)
        for end, card in zip((each.src, each.dst), router.cards(each.src, each.dst), strict=True):
            relayed = card != end
            forwarded += _totals(card[relayed], each.size_bytes[relayed], cluster.gpus)
        for what, gpu, links in (
            ("sent by", each.src, (cluster.nic_up, cluster.nvlink_up)),
            ("delivered to", each.dst, (cluster.nic_down, cluster.nvlink_down)),
        ):
            expected = _totals(gpu[remote], each.size_bytes[remote], cluster.gpus) + forwarded
            found = sum(carried[own] for own in links if len(own))
            _equal(found, expected, f"{DIRECTIONS[at]} bytes {what} GPU")


def check_routes(result: SimResult, traffic: Pair, router: Router) -> None:
    """A link's bytes = the sum over the messages routed across it.

    Under ``shares`` there is no one route: the bytes over all network links are compared with
    bytes times hops.
    """
    links = result.cluster.links
    for at, each in enumerate(traffic):
        carried = result.link_bytes[:, at]
        name = f"{DIRECTIONS[at]} bytes of"
        if router.rule == "shares":
            hops = router.hops(each.src, each.dst) * each.size_bytes
            over_network = _network_bytes(result, at)
            _equal(over_network, _totals(each.layer_of_row, hops, each.layers), f"{name} layer")
            continue
        src, dst, size, layer = each.src, each.dst, each.size_bytes, each.layer_of_row
        if router.rule != "ugal":  # a pair has one path in all layers
            gpus = result.cluster.gpus
            pair, which = np.unique(src.astype(np.int64) * gpus + dst, return_inverse=True)
            src, dst, layer = pair // gpus, pair % gpus, np.zeros_like(pair)
            size = _totals(which, size, len(pair))
        paths = router.paths(src, dst, size_bytes=size, layer=layer)
        size = np.repeat(size, np.diff(paths.indptr))
        _equal(carried.sum(axis=0), _totals(paths.links, size, links), f"{name} link")


def check_hops(result: SimResult, router: Router, inputs: Inputs) -> None:
    """Hops along the routes = counts of (origin, expert, collector) times distances.

    For per_expert dispatch with single replicas on shortest paths, counted from the trace.
    """
    trace, placement, attention = inputs
    gpu_of_expert, distance = placement.gpu_of_expert, _GpuDistance(router)
    origin, collector = attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens)
    hops = np.empty((trace.layers, 2), dtype=np.int64)
    for layer in range(trace.layers):
        expert = gpu_of_expert[layer][trace.topk[:, layer]]
        hops[layer, 0] = distance(origin[layer][:, None], expert).sum()
        hops[layer, 1] = distance(expert, collector[layer][:, None]).sum()
    sizes = (result.sizes.dispatch_bytes, result.sizes.combine_bytes)
    for at, (direction, size) in enumerate(zip(DIRECTIONS, sizes, strict=True)):
        expected = hops[:, at] * size
        _equal(_network_bytes(result, at), expected, f"{direction} byte-hops of layer")
    _equal(result.message_hops, hops.sum(axis=0), "hops of direction")


def check_capacity(result: SimResult) -> None:
    """No link above capacity: over its service time, over the run and over any time bin."""
    usage, cluster = result.usage, result.cluster
    needed = result.link_bytes.sum(axis=(0, 1)) * 1e9 / cluster.bandwidth_Bps
    slack = needed * SHARE_TOLERANCE
    if usage.chunks is not None:
        slack = slack + usage.chunks * CHUNK_TOLERANCE_NS
    _at_most(needed, usage.busy_ns + slack, "service of link", "its service time")
    elapsed = float(result.step_ns)
    _at_most(usage.busy_ns, elapsed * (1 + SHARE_TOLERANCE), "busy ns of link", "the step")
    fullest = usage.busy_bins_ns.max(axis=1)
    width = usage.bin_ns * (1 + SHARE_TOLERANCE)
    _at_most(fullest, width, "busy ns in one time bin of link", "the bin")
    booked = usage.busy_bins_ns.sum(axis=1)
    _equal(booked.astype(np.float64), usage.busy_ns, "busy ns over all time bins of link")


def check_durations(result: SimResult) -> None:
    """No collective faster than its busiest link allows (to the 1e-6 ns of rounding)."""
    duration = np.diff(result.collective_ns, axis=2)[:, :, 0]
    for at, direction in enumerate(DIRECTIONS):
        bound = result.busiest_s[:, at] * 1e9 * (1 - SHARE_TOLERANCE) - CHUNK_TOLERANCE_NS
        _at_most(bound, duration[:, at], f"busiest link's ns in {direction} of layer", "it took")


def check_time(result: SimResult) -> None:
    """Time never goes backwards: within collectives, layers and from layer to layer."""
    times = result.collective_ns
    for earlier, later, what in (
        (times[:, :, 0].ravel(), times[:, :, 1].ravel(), "start of collective"),
        (times[:, 0, 0], times[:, 1, 0], "start of the dispatch of layer"),
        (times[:, 0, 1], times[:, 1, 1], "end of the dispatch of layer"),
        (times[:-1, 0, 0], times[1:, 0, 0], "start of layer"),
        (times[:-1, 1, 1], times[1:, 1, 1], "end of layer"),
    ):
        _at_most(earlier, later, what, "what follows")


class _GpuDistance:
    """Network links between GPUs: by their leaves, or by GPU where a server is on several."""

    def __init__(self, router: Router) -> None:
        cluster = router.cluster
        self._server = np.arange(cluster.gpus) // cluster.gpus_per_server
        leaf = cluster.leaf_of_gpu
        if (leaf != leaf[self._server * cluster.gpus_per_server]).any():
            self._place, self._between = np.arange(cluster.gpus), router.gpu_distance()
            return
        leaves, self._place = np.unique(leaf, return_inverse=True)
        self._between = router.switch_hops(leaves)[:, leaves].astype(np.int64) + 2

    def __call__(self, src: NDArray[np.int32], dst: NDArray[np.int32]) -> NDArray[np.int64]:
        outside = self._server[src] != self._server[dst]
        hops: NDArray[np.int64] = self._between[self._place[src], self._place[dst]] * outside
        return hops


def _network_bytes(result: SimResult, direction: int) -> NDArray[Any]:
    """[layers]: bytes summed over the links outside servers."""
    network = result.cluster.link_class != LinkClass.NVLINK
    total: NDArray[Any] = result.link_bytes[:, direction][:, network].sum(axis=1)
    return total


def _totals(index: NDArray[Any], value: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    total = np.zeros(size, dtype=np.int64)
    np.add.at(total, index, value)
    return total


def _equal(found: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    if found.dtype.kind == "f":
        wrong = np.abs(found - expected) > SHARE_TOLERANCE * np.maximum(np.abs(expected), 1.0)
    else:
        wrong = found != expected
    if wrong.any():
        at = int(wrong.argmax())
        raise LawViolation(f"{what} {at}: {found[at]}, expected {expected[at]}")


def _at_most(small: NDArray[Any], large: NDArray[Any] | float, what: str, limit: str) -> None:
    bound = np.broadcast_to(large, small.shape)
    wrong = small > bound
    if wrong.any():
        at = int(wrong.argmax())
        raise LawViolation(f"{what} {at}: {small[at]} exceeds {limit}: {bound[at]}")
