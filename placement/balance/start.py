"""From the relaxed solution to a whole placement that keeps every count cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.balance.relaxation import first_tier
from placement.highs import Program, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.balance.caps import Places
    from placement.balance.relaxation import BalanceRelaxation
    from placement.prefix import Tiers
    from placement.problem import PlacementProblem

_UNEVEN, _VERY_UNEVEN, _OFF_TIER = 1.0, 4.0, 64.0
"""Prices of a slot beyond the even share of its tier, beyond one more, and of an expert more or
fewer in a tier than the relaxation has: only their order matters."""


def start(
    problem: PlacementProblem,
    places: Places,
    relaxed: BalanceRelaxation,
    fixed: dict[int, NDArray[np.int64]],
) -> NDArray[np.int64] | None:
    """Round the relaxed solution, but for layers whose packing is given.

    Parameters
    ----------
    problem, places
        Loads, costs and count caps.
    relaxed
        Solution of the relaxation, with shares.
    fixed
        Packings int64 [experts] by layer: their heaviest servers take the cheapest sites.

    Returns
    -------
    int64 [layers, experts]: the place of every expert; or None if the fixed layers leave no way
    to keep C_exp.
    """
    tiers = relaxed.tiers
    seated = {at: _seat(problem, places, at, packing) for at, packing in fixed.items()}
    pinned = {
        at: np.bincount(places.server[place], minlength=problem.servers)
        for at, place in seated.items()
    }
    share = relaxed.share
    if share is None:
        share = np.full((int(first_tier(tiers)[-1]), problem.experts), 0.0)
    counts = _counts(problem, tiers, share, pinned)
    if counts is None:
        return None
    server = np.empty((problem.layers, problem.experts), dtype=np.int64)
    first = first_tier(tiers)
    for at in range(problem.layers):
        if at not in seated:
            tier = _whole(
                share[first[at] : first[at + 1]],
                np.bincount(tiers.tier_of_server[at], weights=counts[at]).astype(np.int64),
            )
            server[at] = _deal(problem.profile.load[at], tier, counts[at], tiers.tier_of_server[at])
    return _to_places(problem, places, server, seated)


def _seat(
    problem: PlacementProblem, places: Places, at: int, packing: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rename the servers of a packing: the heaviest to the cheapest, ties in a turn by layer."""
    load, each = problem.profile.load[at], places.per_server
    heat = np.bincount(places.server[packing], weights=load, minlength=problem.servers)
    turn = (np.arange(problem.servers) - at) % problem.servers
    site = np.empty(problem.servers, dtype=np.int64)
    site[np.argsort(-heat, kind="stable")] = np.lexsort((turn, problem.cost[at]))
    return site[places.server[packing]] * each + packing % each


def _counts(
    problem: PlacementProblem,
    tiers: Tiers,
    share: NDArray[np.float64],
    pinned: dict[int, NDArray[np.int64]],
) -> NDArray[np.int64] | None:
    """int64 [layers, servers]: experts of a layer on a server, or None if there are none.

    Tiers keep the relaxation's numbers of experts, rounded up or down, as far as the caps let
    them; servers of a tier share them evenly, so that each can stay below its load cap. Layers
    with tiers within them on one side and totals of servers on the other form a flow: the
    linear program has whole vertices.
    """
    layers, servers = problem.layers, problem.servers
    first = first_tier(tiers)
    count = int(first[-1])
    tier = first[:-1, None] + tiers.tier_of_server
    held = share.sum(axis=1)
    size = np.bincount(tier.ravel(), minlength=count)
    even = np.minimum(np.floor(held / size + 1e-9), problem.layer_slots)[tier]
    more = np.minimum(even + 1, problem.layer_slots)
    step = np.stack((even, more - even, problem.layer_slots - more), axis=-1)
    lower = np.zeros_like(step)
    for at, row in pinned.items():
        step[at], lower[at] = 0.0, 0.0
        step[at, :, 0] = lower[at, :, 0] = row
    layer_row, total_row = count, count + layers
    at_layer = np.broadcast_to(layer_row + np.arange(layers)[:, None], tier.shape)
    at_server = np.broadcast_to(total_row + np.arange(servers), tier.shape)
    rows = np.repeat(np.stack((tier, at_layer, at_server), axis=-1).reshape(-1, 3), 3, axis=0)
    slack = np.arange(count)
    columns, cells = len(rows) + 2 * count, 3 * len(rows)
    off = np.full(2 * count, _OFF_TIER)
    result = solve(
        Program(
            cost=np.concatenate((np.tile((0.0, _UNEVEN, _VERY_UNEVEN), tier.size), off)),
            lower=np.concatenate((lower.ravel(), np.zeros(2 * count))),
            upper=np.concatenate((step.ravel(), np.full(2 * count, float(problem.experts)))),
            start=np.concatenate(
                (np.arange(0, cells, 3), np.arange(cells, cells + 2 * count + 1))
            ).astype(np.int32),
            index=np.concatenate((rows.ravel(), slack, slack)).astype(np.int32),
            value=np.repeat((1.0, -1.0), (cells + count, count)),
            row_lower=np.concatenate(
                (np.floor(held + 1e-6), np.full(layers, problem.experts), np.zeros(servers))
            ),
            row_upper=np.concatenate(
                (
                    np.ceil(held - 1e-6),
                    np.full(layers, problem.experts),
                    np.full(servers, problem.server_slots),
                )
            ).astype(np.float64),
        )
    )
    if result.x is None or result.status != "optimal":
        return None
    steps = np.rint(result.x[: columns - 2 * count]).astype(np.int64)
    whole: NDArray[np.int64] = steps.reshape(layers, servers, 3).sum(axis=2)
    return whole


def _whole(share: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [experts]: one tier for every expert, surest share first, `room` [tiers] kept."""
    tier = np.empty(share.shape[1], dtype=np.int64)
    for expert in np.argsort(-share.max(axis=0), kind="stable"):
        tier[expert] = np.argmax(np.where(room > 0, share[:, expert], -1.0))
        room[tier[expert]] -= 1
    return tier


def _deal(
    load: NDArray[np.float64],
    part: NDArray[np.int64],
    free: NDArray[np.int64],
    part_of_seat: NDArray[np.int64],
) -> NDArray[np.int64]:
    """int64 [experts]: hottest first, each to the coolest seat of its part with a slot."""
    heat, room = np.zeros(len(free)), free.copy()
    seat = np.empty(len(load), dtype=np.int64)
    for expert in np.argsort(-load, kind="stable"):
        open_ = (room > 0) & (part_of_seat == part[expert])
        seat[expert] = np.argmin(np.where(open_, heat, np.inf))
        heat[seat[expert]] += load[expert]
        room[seat[expert]] -= 1
    return seat


def _to_places(
    problem: PlacementProblem,
    places: Places,
    server: NDArray[np.int64],
    seated: dict[int, NDArray[np.int64]],
) -> NDArray[np.int64] | None:
    """Go from servers to places: each slot of a layer to the place with the fewest experts."""
    if places.per_server == 1:
        for at, place in seated.items():
            server[at] = place
        return server
    total = np.zeros((problem.servers, places.per_server), dtype=np.int64)
    result = np.empty_like(server)
    for at, place in seated.items():
        result[at] = _turn_gpus(places, place, total)
    for at in range(problem.layers):
        if at not in seated:
            wanted = np.bincount(server[at], minlength=problem.servers)
            counts = np.zeros_like(total)
            for _ in range(int(wanted.max(initial=0))):
                # `total` dominates: a layer's own slots only break ties.
                row = np.flatnonzero(counts.sum(axis=1) < wanted)
                rank = np.where(counts < places.layer_slots, total, np.inf)[row]
                gpu = np.argmin(rank, axis=1)
                counts[row, gpu] += 1
                total[row, gpu] += 1
            result[at] = _deal(problem.profile.load[at], server[at], counts.ravel(), places.server)
    return None if total.max() > places.total_slots else result


def _turn_gpus(
    places: Places, place: NDArray[np.int64], total: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rename the GPUs within each server: most experts to the GPU with the fewest so far."""
    each = places.per_server
    count = np.bincount(place, minlength=places.server.size).reshape(-1, each)
    name = np.empty_like(count)
    by_count, by_total = (np.argsort(a, axis=1, kind="stable") for a in (-count, total))
    np.put_along_axis(name, by_count, by_total, axis=1)
    seated: NDArray[np.int64] = place // each * each + name.ravel()[place]
    total += np.bincount(seated, minlength=places.server.size).reshape(-1, each)
    return seated
