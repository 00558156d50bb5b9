"""Slots of a placement as items of a local search, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.balance.inside import spread
from placement.moves.keep_gpus import keep_gpus
from placement.placement import Placement
from placement.search.layer import LayerSearch, LoadCap, MoveCap, arrange
from placement.search.start import hottest_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from placement.problem import PlacementProblem
    from placement.search.copies import Scope

_INSIDE_PROPOSALS = 100
_STAY = 0.05
"""Price of another GPU of the same server, in units of which a server's mean GPU load costs 1."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerItems:
    """Slots of one layer, ordered by expert.

    Attributes
    ----------
    expert, gpu
        int64 [items]: what a slot holds and where it is.
    first, replicas
        int64 [experts]: the first item of an expert and how many it has.
    """

    expert: NDArray[np.int64]
    gpu: NDArray[np.int64]
    first: NDArray[np.int64]
    replicas: NDArray[np.int64]

    def of_choices(self, choices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Deal tokens to replicas: int64 [tokens, k] items for experts [tokens, k].

        A token takes each replica with the same probability, independently for its choices
        (the rule `equal`); a hash of token and expert draws, so that the deal is always the same.
        """
        token = np.arange(len(choices), dtype=np.uint64)[:, None]
        mixed = token * np.uint64(0x9E3779B97F4A7C15) + choices.astype(np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        draw = (mixed >> np.uint64(33)).astype(np.int64)
        item: NDArray[np.int64] = self.first[choices] + draw % self.replicas[choices]
        return item

    def share(self, load: NDArray[np.float64]) -> NDArray[np.float64]:
        """Split experts' loads [..., experts] equally over their items."""
        split: NDArray[np.float64] = (load / self.replicas)[..., self.expert]
        return split


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
    keep: bool,
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
    keep
        Whether slots keep their GPU where their server stays, rather than spread anew.
    policy
        Who chose.
    """
    items = list(items_of(base))
    if scope == "server" and len(base.slot_layer) == base.layers * base.experts:
        server = np.stack(place)
        if not keep:
            return spread(problem, problem.place(server, policy=policy))
        old = base.gpu_of_expert.astype(np.int64)
        place = list(keep_gpus(problem, server, old))
    elif scope == "server":
        size = base.gpus_per_server
        place = [
            _inside(layer, at, problem.profile.load[number], base.gpus, size, keep=keep)
            for number, (layer, at) in enumerate(zip(items, place, strict=True))
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


def _inside(
    items: LayerItems,
    server: NDArray[np.int64],
    load: NDArray[np.float64],
    gpus: int,
    size: int,
    *,
    keep: bool,
) -> NDArray[np.int64]:
    """Deal the items of every server to its GPUs, each with as many slots as it had."""
    gpu = np.empty_like(server)
    had = np.bincount(items.gpu, minlength=gpus).reshape(-1, size)
    share = items.share(load)
    for at, slots in enumerate(had):
        here = np.flatnonzero(server == at)
        if not here.size:
            continue
        old = np.where(items.gpu[here] // size == at, items.gpu[here] % size, -1)
        layer = LayerSearch(
            expert=items.expert[here],
            slots=slots,
            loads=LoadCap(share[here][None], np.ones(1)),
            moves=MoveCap(old, price=_STAY) if keep else None,
        )
        rng = np.random.Generator(np.random.PCG64(at))
        found = arrange(
            layer, [hottest_first(layer)], proposals=_INSIDE_PROPOSALS * here.size, rng=rng
        )
        gpu[here] = at * size + found.place
    return gpu
