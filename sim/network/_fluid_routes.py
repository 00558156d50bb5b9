"""Routes as the fluid kernel wants them: own links, and bundles of what lies between."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sim.network._fluid_state import NONE
from topologies import LinkClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.network.flows import Flows
    from topologies import Router


class Bundles(NamedTuple):
    """The links that flows cross, those of many flows written once.

    Attributes
    ----------
    first, last
        int32 [flows]: links that a flow crosses with all its bytes; NONE for none.
    bundle
        int32 [flows]: row of the other links; NONE for none.
    indptr, link, fraction
        The rows: int64 [bundles + 1], int32 [entries] and float64 [entries].
    """

    first: NDArray[np.int32]
    last: NDArray[np.int32]
    bundle: NDArray[np.int32]
    indptr: NDArray[np.int64]
    link: NDArray[np.int32]
    fraction: NDArray[np.float64]

    def of(self, flows: NDArray[np.int64]) -> Bundles:
        """Return some of the flows, in that order."""
        first, last, bundle = self.first[flows], self.last[flows], self.bundle[flows]
        return self._replace(first=first, last=last, bundle=bundle)

    def link_bytes(self, size_bytes: NDArray[np.float64], links: int) -> NDArray[np.float64]:
        """float64 [links]: what flows of `size_bytes` [flows] put on every link."""
        total = np.zeros(links)
        for own in (self.first, self.last):
            there = own != NONE
            total += np.bincount(own[there], size_bytes[there], links)
        there = self.bundle != NONE
        volume = np.bincount(self.bundle[there], size_bytes[there], len(self.indptr) - 1)
        part = np.repeat(volume, np.diff(self.indptr)) * self.fraction
        total += np.bincount(self.link, part, links)
        return total


def bundle_rows(
    indptr: NDArray[np.int64], link: NDArray[np.int32], fraction: NDArray[np.float64]
) -> Bundles:
    """Bundle flows given as rows of links and fractions.

    The first and the last link of a row become the flow's own where it crosses both with all
    its bytes; equal rest rows become one bundle.
    """
    from sim.network._bundle_kernel import distinct_rows  # noqa: PLC0415  loads numba

    begin, end = indptr[:-1].copy(), indptr[1:].copy()
    own = np.flatnonzero(end - begin >= 2)
    own = own[(fraction[begin[own]] == 1.0) & (fraction[end[own] - 1] == 1.0)]
    first, last = (np.full(len(begin), NONE, dtype=np.int32) for _ in range(2))
    first[own], last[own] = link[begin[own]], link[end[own] - 1]
    begin[own] += 1
    end[own] -= 1
    bundle, sample = distinct_rows(begin, end, link, fraction)
    return Bundles(first, last, bundle, *_taken(begin[sample], end[sample], link, fraction))


def _taken(
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    link: NDArray[np.int32],
    fraction: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return the rows begin[i]:end[i] alone."""
    length = end - begin
    indptr = np.concatenate([[0], np.cumsum(length)])
    at = np.repeat(begin - indptr[:-1], length) + np.arange(indptr[-1])
    return indptr, link[at], fraction[at]


def fluid_routes(router: Router, flows: Flows) -> tuple[Bundles, NDArray[np.float64]]:
    """Route flows; returns their links and seconds of latency, none for a GPU to itself.

    Raises
    ------
    RoutingError
        If a pair has no route.
    """
    src, dst = flows.src, flows.dst
    if router.rule == "shares":
        return _shared_routes(router, src, dst), router.path_latency(src, dst)
    usage = router.link_usage(src, dst, size_bytes=flows.size_bytes)
    flow = np.repeat(np.arange(len(src)), np.diff(usage.indptr))
    late = np.bincount(flow, router.cluster.latency_s[usage.link], len(src))
    return bundle_rows(usage.indptr, usage.link, usage.fraction), late.astype(np.float64)


def _shared_routes(router: Router, src: NDArray[np.int32], dst: NDArray[np.int32]) -> Bundles:
    """Route flows that split: all between two leaves alike, so that one of them stands for all.

    So routes of a large fabric are never listed flow by flow -- but where messages are forwarded
    over other GPUs' links on the way.
    """
    cluster = router.cluster
    outside = src // cluster.gpus_per_server != dst // cluster.gpus_per_server
    inside, far = np.flatnonzero(~outside & (src != dst)), np.flatnonzero(outside)
    first, last, bundle = (np.full(len(src), NONE, dtype=np.int32) for _ in range(3))
    first[far], last[far] = cluster.nic_up[src[far]], cluster.nic_down[dst[far]]
    first[inside], last[inside] = cluster.nvlink_up[src[inside]], cluster.nvlink_down[dst[inside]]
    leaf = cluster.leaf_of_gpu.astype(np.int64)
    ends = leaf[src[far]] * cluster.switches + leaf[dst[far]]
    _, sample, kind = np.unique(ends, return_index=True, return_inverse=True)
    sample = far[sample]
    usage = router.link_usage(src[sample], dst[sample])
    found = bundle_rows(usage.indptr, usage.link, usage.fraction)
    forwarded = (found.first != first[sample]) | (found.last != last[sample])
    if forwarded.any() or (cluster.link_class[found.link] < LinkClass.LOCAL).any():
        usage = router.link_usage(src, dst)
        return bundle_rows(usage.indptr, usage.link, usage.fraction)
    bundle[far] = found.bundle[kind]
    return found._replace(first=first, last=last, bundle=bundle)
