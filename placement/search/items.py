"""Slots of a placement as items of a local search, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.balance.inside import spread
from placement.moves.keep_gpus import keep_gpus
from placement.placement import Placement
from placement.search.inside import inside_servers
from placement.search.layer_items import LayerItems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from placement.problem import PlacementProblem
    from placement.search.copies import Scope


def items_of(placement: Placement) -> Iterator[LayerItems]:
    """Yield the slots of every layer."""
    layer_start = np.searchsorted(placement.slot_layer, np.arange(placement.layers + 1))
    for layer in range(placement.layers):
        here = slice(layer_start[layer], layer_start[layer + 1])
        expert = placement.slot_expert[here].astype(np.int64)
        order = np.argsort(expert, kind="stable")
        replicas = np.bincount(expert, minlength=placement.experts)
        yield LayerItems(
            expert=expert[order],
            gpu=placement.slot_gpu[here][order].astype(np.int64),
            first=np.cumsum(replicas) - replicas,
            replicas=replicas,
        )


def slots_of(problem: PlacementProblem, placement: Placement, scope: Scope) -> NDArray[np.int64]:
    """Slots that every layer may use: those the placement uses, and what the caps leave free.

    Free slots are handed to the layers one at a time, in turn, each where most are left; where
    experts have replicas, which come on top of the caps, there are none.

    Returns
    -------
    int64 [layers, places]
    """
    size = problem.gpus_per_server
    inside = 1 if scope == "gpu" else size
    places, layers = placement.gpus // inside, problem.layers
    flat = placement.slot_layer.astype(np.int64) * places + placement.slot_gpu // inside
    slots = np.bincount(flat, minlength=layers * places).reshape(layers, places)
    if len(placement.slot_layer) > layers * problem.experts:
        return slots
    group = np.arange(places) * inside // size
    each = size // inside
    layer_cap, total_cap = -(-problem.layer_slots // each), -(-problem.server_slots // each)
    spent = np.bincount(group, slots.sum(axis=0), problem.servers)
    idle = 0
    for layer in np.tile(np.arange(layers), int(layers * places * layer_cap)):
        in_server = np.bincount(group, slots[layer], problem.servers)
        left = total_cap - slots.sum(axis=0)
        room = (slots[layer] < layer_cap) & (in_server < problem.layer_slots)[group]
        room &= (left > 0) & (spent < problem.server_slots)[group]
        idle = 0 if room.any() else idle + 1
        if idle >= layers:
            break
        if room.any():
            at = int(np.argmax(np.where(room, left, -1)))
            slots[layer, at] += 1
            spent[group[at]] += 1
    return slots


def place_items(
    problem: PlacementProblem,
    base: Placement,
    place: list[NDArray[np.int64]],
    *,
    scope: Scope,
    previous: Placement | None,
    policy: str,
) -> Placement:
    """Turn places of items into a placement; slots of a server go to its GPUs evenly.

    Parameters
    ----------
    base
        The placement whose slots are the items.
    place
        int64 [items] for every layer: the GPU, or server, of every item.
    scope
        What a place is.
    previous
        Slots keep their GPU of this placement where their server stays, rather than spread anew.
    policy
        Who chose.
    """
    items = list(items_of(base))
    if scope == "server" and len(base.slot_layer) == base.layers * base.experts:
        server = np.stack(place)
        if previous is None:
            return spread(problem, problem.place(server, policy=policy))
        place = list(keep_gpus(problem, server, previous.gpu_of_expert.astype(np.int64)))
    elif scope == "server":
        old: list[LayerItems | None] = [None] * base.layers
        if previous is not None:
            old = list(items_of(previous))
        place = [
            inside_servers(layer, at, load, (base.servers, base.gpus_per_server), before)
            for layer, at, load, before in zip(items, place, problem.profile.load, old, strict=True)
        ]
    sizes = [len(layer.expert) for layer in items]
    return Placement(
        model=base.model,
        layers=base.layers,
        experts=base.experts,
        gpus=base.gpus,
        gpus_per_server=base.gpus_per_server,
        slot_layer=np.repeat(np.arange(base.layers), sizes).astype(np.int32),
        slot_gpu=np.concatenate(place).astype(np.int32),
        slot_expert=np.concatenate([layer.expert for layer in items]).astype(np.int32),
        policy=policy,
    )
