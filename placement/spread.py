"""From expert counts to servers: deal merged classes out, then balance within equal cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.prefix import Tiers


def deal_to_servers(counts: NDArray[np.int64], tiers: Tiers) -> NDArray[np.int64]:
    """Deal each class's experts to its servers in one turn that goes on from layer to layer.

    Neighbouring totals then differ by at most one, in a layer and over all layers, so both caps
    hold for every server that hold for the class.

    Parameters
    ----------
    counts
        int64 [layers, classes].
    tiers
        Which servers make up each class.

    Returns
    -------
    int64 [layers, servers]
    """
    order = np.argsort(tiers.class_of_server, kind="stable")
    first = np.cumsum(tiers.class_size) - tiers.class_size
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - np.repeat(first, tiers.class_size)
    size = tiers.class_size[tiers.class_of_server]
    # After n experts of a class in all, its server at `place` has had ceil((n - place) / size).
    dealt = np.cumsum(counts, axis=0)[:, tiers.class_of_server]
    had: NDArray[np.int64] = np.maximum(-((place - dealt) // size), 0)
    return had - np.concatenate((np.zeros_like(had[:1]), had[:-1]))


def balance_in_tiers(
    load: NDArray[np.float64], counts: NDArray[np.int64], tier_of_server: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Give every server its number of experts so that each layer's hottest server is cool.

    The hottest experts go to the cheapest tier, which fixes the hops; inside a tier each
    expert, hottest first, goes to the least loaded server with a slot (longest processing time
    first), and swaps that cool the hotter of two servers follow. Ties go by server index and
    expert id.

    Parameters
    ----------
    load
        float64 [layers, experts].
    counts
        int64 [layers, servers]: experts each server takes, summing to the experts of a layer.
    tier_of_server
        int64 [layers, servers].

    Returns
    -------
    int32 [layers, experts]: server of every expert.
    """
    layers, experts = load.shape
    order = np.argsort(-load, axis=1, kind="stable")
    tier_of_rank = _tier_of_rank(counts, tier_of_server, experts)
    hot_first = np.take_along_axis(load, order, axis=1)
    server_of_rank = np.empty((layers, experts), dtype=np.int64)
    free, heat = counts.copy(), np.zeros(counts.shape)
    row = np.arange(layers)
    for rank in range(experts):
        allowed = (free > 0) & (tier_of_server == tier_of_rank[:, rank, None])
        server = np.argmin(np.where(allowed, heat, np.inf), axis=1)
        server_of_rank[:, rank] = server
        heat[row, server] += hot_first[:, rank]
        free[row, server] -= 1
    for at in range(layers):
        _swap(server_of_rank[at], hot_first[at], heat[at], tier_of_server[at])
    result = np.empty((layers, experts), dtype=np.int32)
    np.put_along_axis(result, order, server_of_rank.astype(np.int32), axis=1)
    return result


def _tier_of_rank(
    counts: NDArray[np.int64], tier_of_server: NDArray[np.int64], experts: int
) -> NDArray[np.int64]:
    """int64 [layers, experts]: tier of the hottest, second hottest, ... expert."""
    layers = len(counts)
    tiers = int(tier_of_server.max()) + 1
    flat = np.arange(layers)[:, None] * tiers + tier_of_server
    size = np.bincount(flat.ravel(), weights=counts.ravel(), minlength=layers * tiers)
    tier = np.tile(np.arange(tiers), layers)
    return np.repeat(tier, size.astype(np.int64)).reshape(layers, experts)


def _swap(
    server: NDArray[np.int64],
    load: NDArray[np.float64],
    heat: NDArray[np.float64],
    tier_of_server: NDArray[np.int64],
) -> None:
    """Swap experts of one layer, in place, while its hottest server can be cooled.

    A swap moves load off the hottest server without making the other as hot.
    """
    while True:
        hottest = int(np.argmax(heat))
        mine = np.flatnonzero(server == hottest)
        peers = (tier_of_server == tier_of_server[hottest]) & (np.arange(len(heat)) != hottest)
        theirs = np.flatnonzero(peers[server])
        if not (mine.size and theirs.size):
            return
        moved = load[mine][:, None] - load[theirs][None, :]
        after = np.maximum(heat[hottest] - moved, heat[server[theirs]][None, :] + moved)
        best = int(np.argmin(after))
        if after.flat[best] >= heat[hottest] * (1 - 1e-9):
            return
        give, take = mine[best // len(theirs)], theirs[best % len(theirs)]
        shift = load[give] - load[take]
        heat[hottest] -= shift
        heat[server[take]] += shift
        server[give], server[take] = server[take], server[give]
