"""Shares of traffic on links, saturation, and distinct destinations of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.validation.jobs import all_pairs
from experiments.validation.line import Got
from placement import Placement
from sim.messages import distinct_destinations
from topologies import LinkClass, Router, ServerLinks, dragonfly, from_links, k_ary_fat_tree
from workloads import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from topologies import Cluster

TOKENS = 200_000
"""Tokens whose distinct destinations are counted."""

CHORD = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)]
"""Cables of the ring of 5 with a chord."""


def all_to_all() -> Iterator[Got]:
    """Messages on links of each class when every pair exchanges one: the fewest and the most."""
    tree = k_ary_fat_tree(8)
    small = dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1)
    for key, cluster in (("fat-tree-8", tree), ("dragonfly-9", small)):
        src, dst = all_pairs(cluster.gpus)
        load = Router(cluster).link_bytes(src, dst, np.ones(len(src)))[0]
        kinds = [LinkClass.HOST, LinkClass.LOCAL, LinkClass.GLOBAL]
        for case, extreme in (("least", np.min), ("most", np.max)):
            found = [extreme(load[cluster.link_class == kind]) for kind in kinds]
            yield Got(f"theory.shares.{key}", found, case)


def ring() -> Iterator[Got]:
    """Equal splits over shortest paths: utilisation of links of 100 under four demands."""
    servers = ServerLinks(gpus_per_server=1)
    cluster = from_links(CHORD, leaf_of_gpu=range(5), servers=servers, bandwidth_Bps=100.0)
    load = Router(cluster).link_bytes([0, 1, 0, 1], [1, 0, 2, 4], [20.0, 30.0, 40.0, 70.0])[0]
    first = cluster.first_switch
    ends = zip(cluster.link_src - first, cluster.link_dst - first, load / 100, strict=True)
    used = {(int(a), int(b)): float(share) for a, b, share in ends}
    yield Got("theory.shares.ring", [used[at] for at in ((0, 1), (1, 0), (1, 2), (0, 4), (3, 4))])


def saturation() -> Iterator[Got]:
    """Share of the injection rate at which a dragonfly's busiest link is full."""
    cluster = dragonfly(a=4, p=2, h=2, groups=9, gpus_per_server=1)
    group = cluster.group_of_switch[cluster.leaf_of_gpu]
    src, dst = all_pairs(cluster.gpus)
    chosen = group[dst] == (group[src] + 1) % 9
    copies = 100  # of every pair, so that Valiant's draws spread
    src, dst = np.tile(src[chosen], copies), np.tile(dst[chosen], copies)
    one, queue = np.ones(len(src), dtype=np.int64), np.repeat(np.arange(copies), chosen.sum())
    for rule in ("minimal", "valiant"):
        load = Router(cluster, rule).link_bytes(src, dst, one, queue_pair=queue)[0]
        seconds = load / cluster.bandwidth_Bps
        yield Got(f"theory.saturation.{rule}", _injection(seconds, cluster, len(src)))


def destinations() -> Iterator[Got]:
    """Mean distinct GPUs (or servers) of tokens that choose uniformly."""
    rng = np.random.default_rng(0)
    cases = ((64, 8, 4), (64, 6, 4), (256, 8, 8), (256, 8, 32), (256, 8, 64))
    found = [_distinct(uniform(rng, TOKENS, experts, k), experts, g) for experts, k, g in cases]
    yield Got("theory.distinct.uniform", found)
    groups = _distinct(_within_groups(rng), 256, 8)
    # A token lives on one of the 8 servers, whatever it chooses.
    yield Got("theory.distinct.groups", [groups, groups * 7 / 8])


def uniform(rng: np.random.Generator, tokens: int, experts: int, k: int) -> NDArray[Any]:
    """Return int [tokens, k]: k different experts of a token, all sets equally likely."""
    blocks = []
    for begin in range(0, tokens, 1 << 15):  # 256 experts: 32 MiB at a time
        draw = rng.random((min(1 << 15, tokens - begin), experts), dtype=np.float32)
        blocks.append(np.argpartition(draw, k, axis=1)[:, :k].astype(np.uint16))
    return np.concatenate(blocks)


def evenly(experts: int, gpus: int, gpus_per_server: int = 1) -> Placement:
    """Return one layer's placement: equally many consecutive experts on every GPU."""
    expert = np.arange(experts, dtype=np.int32)
    return Placement(
        model="uniform",
        layers=1,
        experts=experts,
        gpus=gpus,
        gpus_per_server=gpus_per_server,
        slot_layer=np.zeros(experts, dtype=np.int32),
        slot_gpu=expert // np.int32(experts // gpus),
        slot_expert=expert,
        policy="contiguous",
    )


def one_layer(topk: NDArray[Any], experts: int) -> RoutingTrace:
    """Return the trace of one layer from int [tokens, k]."""
    return RoutingTrace(
        topk=topk[:, None, :],
        experts=experts,
        seq_lens=np.array([len(topk)], dtype=np.int32),
        source="uniform",
    )


def _within_groups(rng: np.random.Generator) -> NDArray[Any]:
    """Draw 8 of the 128 experts in 4 of 8 groups."""
    groups = uniform(rng, TOKENS, 8, 4)
    inside = uniform(rng, TOKENS, 128, 8)
    chosen: NDArray[Any] = np.take_along_axis(groups, inside // 32, axis=1)
    found: NDArray[Any] = chosen * 32 + inside % 32
    return found


def _distinct(topk: NDArray[Any], experts: int, gpus: int) -> float:
    found, _ = distinct_destinations(one_layer(topk, experts), evenly(experts, gpus))
    return found / len(topk)


def _injection(seconds: NDArray[np.float64], cluster: Cluster, messages: int) -> float:
    """Return the share: the time a host needs to inject its part over that of the busiest link."""
    own = messages / cluster.gpus / float(cluster.bandwidth_Bps[cluster.nic_up[0]])
    return own / float(seconds.max())
