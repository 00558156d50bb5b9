"""Laws that every run obeys, counted independently of the network that produced it.

Each check raises `LawViolation` with numbers. Whole bytes are compared exactly; float64 bytes
(rule ``shares``) to a relative 1e-9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import LawViolation
from sim.leg import DIRECTIONS
from sim.network.condition import check_phases
from sim.pairs import hops_of_layers
from topologies import LinkClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.pairs import Surveyed
    from sim.result import SimResult
    from topologies import Router
    from workloads import RoutingTrace

    Inputs = tuple[RoutingTrace, Placement, Attention]

SHARE_TOLERANCE = 1e-9
"""Relative, of float64 bytes."""
CLOCK_ROUNDINGS = 1000
"""Times of a collective that a float64 clock of ns rounds on a link: when flows join and end."""
CHUNK_TOLERANCE_NS = 1e-6
"""What the packet network forgives when it rounds a service time up."""


def check_laws(
    result: SimResult, legs: Sequence[Surveyed], router: Router, inputs: Inputs | None
) -> None:
    """Check all laws of a finished run.

    Parameters
    ----------
    result
        The run.
    legs
        Messages it was given, in the order of ``result.legs``.
    router
        Routes in force.
    inputs
        Trace, placement and attention, from which the hops are counted again; None where GPUs
        have died, and these do not say it all.

    Raises
    ------
    LawViolation
        With the first contradiction found.
    """
    check_losses(result, legs)
    check_delivery(result, legs, router)
    check_balance(result, legs)
    if not any((phase.speed == 0).any() for phase in result.usage.phases):
        check_routes(result, legs, router)
        if inputs is not None:
            check_byte_hops(result, router, inputs)
    check_moment(result)
    check_capacity(result)
    check_durations(result)
    check_time(result)
    check_gpu_time(result)


def check_byte_hops(result: SimResult, router: Router, inputs: Inputs) -> None:
    """Check the hops, where they must equal what the trace says."""
    if counts_hops(result, router, inputs):
        check_hops(result, router, inputs)


def counts_hops(result: SimResult, router: Router, inputs: Inputs) -> bool:
    """Whether hops must equal, as integers, what origins, experts and collectors say.

    So it is for per_expert dispatch with single replicas on shortest paths.
    """
    _, placement, _ = inputs
    single = placement.redundant == 0
    choices = int(result.expert_tokens.sum())
    alone = choices == inputs[0].topk.size  # no shared expert is routed
    return router.shortest and result.mode == "per_expert" and single and alone


def check_losses(result: SimResult, legs: Sequence[Surveyed]) -> None:
    """Only bytes to or from a GPU that died are lost, and no more than there were."""
    if result.losses is None:
        return
    flows, faults = result.losses.flows, result.losses.faults
    died = [(fault.at_ns, fault.number) for fault in faults if fault.what == "gpu"]
    when, who = np.array(died, dtype=np.int64).reshape(-1, 2).T
    dead = ((flows.at_ns[:, None] == when) & (flows.gpu[:, None] == who)).any(axis=1)
    wrong = ~dead | ((flows.src != flows.gpu) & (flows.dst != flows.gpu))
    if wrong.any():
        at = int(wrong.argmax())
        raise LawViolation(
            f"bytes from GPU {flows.src[at]} to {flows.dst[at]} were lost at {flows.at_ns[at]} ns "
            f"with GPU {flows.gpu[at]}, which did not die then, or is neither"
        )
    for at, (leg, surveyed) in enumerate(zip(result.legs, legs, strict=True)):
        traffic, lost, gpus = surveyed.traffic, flows.of_leg(at), result.cluster.gpus
        key = (traffic.layer_of_row * gpus + traffic.src) * gpus + traffic.dst
        place = np.searchsorted(key, (lost.layer * gpus + lost.src) * gpus + lost.dst)
        total = _totals(place, lost.lost_bytes, len(key) + 1)
        limit = np.append(traffic.size_bytes, 0)
        _at_most(total.astype(float), limit.astype(float), f"{leg.name} bytes lost, row", "sent")


def _delivered_bytes(result: SimResult, at: int, surveyed: Surveyed) -> NDArray[np.int64]:
    """int64 [pairs]: bytes injected less bytes lost, all layers of a leg together."""
    pairs = surveyed.pairs
    size = pairs.messages * result.legs[at].message_bytes
    if result.losses is None or not len(result.losses.flows.leg):
        return size
    lost, gpus = result.losses.flows.of_leg(at), result.cluster.gpus
    place = np.searchsorted(pairs.src * gpus + pairs.dst, lost.src * gpus + lost.dst)
    return size - _totals(place, lost.lost_bytes, len(size))


def check_delivery(result: SimResult, legs: Sequence[Surveyed], router: Router) -> None:
    """Bytes injected = bytes delivered + lost, for every GPU and leg, summed over layers.

    A GPU that forwards another's message over NVLink, as rail rules have it, is delivered and
    sends it too.
    """
    cluster = result.cluster
    for at, (leg, surveyed) in enumerate(zip(result.legs, legs, strict=True)):
        each = surveyed.pairs
        size = _delivered_bytes(result, at, surveyed)
        remote = each.src != each.dst
        carried = result.link_bytes[:, at].sum(axis=0)
        forwarded = np.zeros(cluster.gpus, dtype=np.int64)
        for end, card in zip((each.src, each.dst), router.cards(each.src, each.dst), strict=True):
            relayed = card != end
            forwarded += _totals(card[relayed], size[relayed], cluster.gpus)
        for what, gpu, links in (
            ("sent by", each.src, (cluster.nic_up, cluster.nvlink_up)),
            ("delivered to", each.dst, (cluster.nic_down, cluster.nvlink_down)),
        ):
            expected = _totals(gpu[remote], size[remote], cluster.gpus) + forwarded
            found = sum(carried[own] for own in links if len(own))
            _equal(found, expected, f"{leg.name} bytes {what} GPU")


def check_balance(result: SimResult, legs: Sequence[Surveyed]) -> None:
    """Whatever comes into a node or starts there leaves it or ends there, wherever links died."""
    cluster = result.cluster
    for at, (leg, surveyed) in enumerate(zip(result.legs, legs, strict=True)):
        each = surveyed.pairs
        size = _delivered_bytes(result, at, surveyed)
        carried = result.link_bytes[:, at].sum(axis=0)
        into, out = (np.zeros(cluster.nodes, dtype=carried.dtype) for _ in range(2))
        for nodes, ends, gpus in (
            (into, cluster.link_dst, each.src),
            (out, cluster.link_src, each.dst),
        ):
            np.add.at(nodes, ends, carried)
            nodes[: cluster.gpus] += _totals(gpus, size, cluster.gpus)
        _equal(into, out, f"{leg.name} bytes into node")


def check_moment(result: SimResult) -> None:
    """No link above its capacity of the moment, and nothing over a dead one."""
    packets = result.usage.chunks is not None
    slack = max(leg.message_bytes for leg in result.legs) if packets else 0
    check_phases(result.usage.phases, result.cluster.bandwidth_Bps, slack)


def check_routes(result: SimResult, legs: Sequence[Surveyed], router: Router) -> None:
    """A link's bytes = the sum over the messages routed across it, summed over layers.

    Under ``shares`` there is no one route: the bytes over all network links are compared with
    bytes times hops.
    """
    links = result.cluster.links
    for at, (leg, surveyed) in enumerate(zip(result.legs, legs, strict=True)):
        each, pairs = surveyed.traffic, surveyed.pairs
        carried = result.link_bytes[:, at].sum(axis=0)
        name = f"{leg.name} bytes of"
        size = _delivered_bytes(result, at, surveyed)
        if router.rule == "shares":
            hops = hops_of_layers(surveyed, router) * leg.message_bytes
            hops = hops - _lost_hops(result, at, router)
            _equal(_network_bytes(result, [at]), hops, f"{name} layer")
            continue
        if router.rule == "ugal":  # ways depend on what else a layer sends
            if result.losses is not None and len(result.losses.flows.leg):
                continue  # and on what is left of it when a GPU dies
            size = each.size_bytes
            paths = router.paths(each.src, each.dst, size_bytes=size, layer=each.layer_of_row)
        else:
            paths = router.paths(pairs.src, pairs.dst)
        size = np.repeat(size, np.diff(paths.indptr))
        _equal(carried, _totals(paths.links, size, links), f"{name} link")


def _lost_hops(result: SimResult, at: int, router: Router) -> NDArray[np.int64]:
    """int64 [layers]: bytes that a leg lost times the hops they would have made."""
    if result.losses is None:
        return np.zeros(result.layers, dtype=np.int64)
    lost = result.losses.flows.of_leg(at)
    hops = router.hops(lost.src, lost.dst) * lost.lost_bytes
    return _totals(lost.layer, hops, result.layers)


def check_hops(result: SimResult, router: Router, inputs: Inputs) -> None:
    """Hops along the routes = counts of (origin, expert, collector) times distances.

    For per_expert dispatch with single replicas on shortest paths, counted from the trace.
    """
    # numba takes longer to import than the command line may take to print its help.
    from sim._hops_kernel import count_hops  # noqa: PLC0415

    trace, placement, attention = inputs
    site, distance = _sites(router)
    ends = (attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens))
    stops = (site[ends[0]], site[ends[1]])
    hops = count_hops(trace.topk, site[placement.gpu_of_expert], stops, distance)
    sizes = (result.sizes.dispatch_bytes, result.sizes.combine_bytes)
    for at, (direction, size) in enumerate(zip(DIRECTIONS, sizes, strict=True)):
        expected = hops[:, at] * size
        found = _network_bytes(result, result.legs_of(at))
        _equal(found, expected, f"{direction} byte-hops of layer")
    _equal(result.message_hops, hops.sum(axis=0), "hops of direction")


def check_capacity(result: SimResult) -> None:
    """No link above capacity: over its service time, over the run and over any time bin."""
    usage, cluster = result.usage, result.cluster
    needed = result.link_bytes.sum(axis=(0, 1)) * 1e9 / cluster.bandwidth_Bps
    collectives = result.collective_ns.shape[0] * result.collective_ns.shape[1]
    clock = float(np.spacing(float(result.step_ns))) * collectives * CLOCK_ROUNDINGS
    slack = needed * SHARE_TOLERANCE + clock
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
    for at, leg in enumerate(result.legs):
        bound = result.busiest_s[:, at] * 1e9 * (1 - SHARE_TOLERANCE) - CHUNK_TOLERANCE_NS
        _at_most(bound, duration[:, at], f"busiest link's ns in {leg.name} of layer", "it took")


def check_time(result: SimResult) -> None:
    """Time never goes backwards: within collectives, layers and from layer to layer.

    Nobody waits for what is still on its way to a GPU that has died: of layers in which one does,
    the ends are not compared.
    """
    whole = result.collective_ns
    _at_most(whole[:, :, 0].ravel(), whole[:, :, 1].ravel(), "start of collective", "what follows")
    _at_most(whole.max(keepdims=True), float(result.step_ns), "end of a collective", "the step")
    for batch in range(1 + max(leg.micro_batch for leg in result.legs)):
        mine = [leg.micro_batch == batch for leg in result.legs]
        times = whole[:, mine]
        first = sum(leg.direction == 0 for leg in result.legs if leg.micro_batch == batch)
        cut, forever = _layers_cut(result, times), np.iinfo(np.int64).max
        combined = np.where(cut, forever, times[:, first, 1])
        following = np.where(cut[:-1] | cut[1:], forever, times[1:, -1, 1])
        for earlier, later, what in (
            (times[:, 0, 0], times[:, first, 0], "start of the dispatch of layer"),
            (times[:, 0, 1], combined, "end of the dispatch of layer"),
            (times[:-1, 0, 0], times[1:, 0, 0], "start of layer"),
            (times[:-1, -1, 1], following, "end of layer"),
        ):
            _at_most(earlier, later, what, "what follows")


def _layers_cut(result: SimResult, times: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [layers]: a GPU died while collectives [layers, legs, 2] were under way."""
    faults = () if result.losses is None else result.losses.faults
    died = [fault.at_ns for fault in faults if fault.what == "gpu" and fault.speed == 0]
    at = np.array(died, dtype=np.int64)[:, None]
    start, end = times[:, :, 0].min(axis=1), times[:, :, 1].max(axis=1)
    cut: NDArray[np.bool_] = ((start <= at) & (at <= end)).any(axis=0)
    return cut


def check_gpu_time(result: SimResult) -> None:
    """Every GPU's computing and idling add up to the step: no two of its tasks overlap.

    They do so, too, where a task ends after the step: that is looked at by itself.
    """
    spans = result.spans
    end = np.where(spans.active, spans.end_ns, 0).max(axis=(0, 1))
    _at_most(end, float(result.step_ns), "end of a task of GPU", "the step")
    spent = result.compute_ns.sum(axis=0) + result.idle_ns.sum(axis=(0, 1))
    _equal(spent, np.full_like(spent, result.step_ns), "ns accounted for of GPU")


def _sites(router: Router) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sites of GPUs, and network links between sites: servers, or GPUs where cards differ."""
    cluster = router.cluster
    server = (np.arange(cluster.gpus) // cluster.gpus_per_server).astype(np.int32)
    first = cluster.leaf_of_gpu[:: cluster.gpus_per_server]
    if (cluster.leaf_of_gpu != first[server]).any():
        return np.arange(cluster.gpus, dtype=np.int32), router.gpu_distance()
    leaves, place = np.unique(first, return_inverse=True)
    distance = router.switch_hops(leaves)[:, leaves][place][:, place] + np.int32(2)
    np.fill_diagonal(distance, 0)
    return server, distance


def _network_bytes(result: SimResult, legs: list[int]) -> NDArray[Any]:
    """[layers]: bytes of some legs, summed over the links outside servers."""
    network = np.flatnonzero(result.cluster.link_class != LinkClass.NVLINK)
    total: NDArray[Any] = result.link_bytes[:, legs][:, :, network].sum(axis=(1, 2))
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
