"""From a problem and the options of a search to what counts in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.balance import Places
from placement.balance.caps import beside
from placement.errors import PlacementError
from placement.search.flatten import flattened
from placement.search.items import items_of, slots_of
from placement.search.layer import CopyTerm, LayerSearch, LoadCap, MoveCap
from placement.search.layer_items import came_from
from placement.training_tokens import training_choices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem
    from placement.search.base import Base
    from placement.search.layer_items import LayerItems
    from placement.search.local_search import LocalSearch
    from workloads import ExpertProfile


def layers_of(search: LocalSearch, problem: PlacementProblem, base: Base) -> list[LayerSearch]:
    """Say for every layer what counts.

    Raises
    ------
    PlacementError
        If copies count and a profile has no choices, or a domain is of another model.
    """
    slots = slots_of(problem, base.placement, search.scope)
    profiles = search.domains or (problem.profile,)
    _check_shapes(profiles, problem)
    inside = 1 if search.scope == "server" else problem.gpus_per_server
    cost = np.repeat(problem.cost, inside, axis=1)
    moves = _moves(search, problem, base)
    joined = _joined(search, problem, base, slots)
    layers = []
    for at, items in enumerate(items_of(base.placement)):
        hops = search.hops * problem.top_k * items.share(problem.profile.load[at])
        layers.append(
            LayerSearch(
                expert=items.expert,
                slots=slots[at],
                copies=_copies(search, profiles, items, (at, cost[at])),
                linear=hops[:, None] * cost[at],
                loads=_loads(search, profiles, items, (at, base, joined[at])),
                moves=moves[at],
                most_replicas=problem.gpus_per_server // inside,
            )
        )
    return layers


def _copies(
    search: LocalSearch,
    profiles: tuple[ExpertProfile, ...],
    items: LayerItems,
    where: tuple[int, NDArray[np.float64]],
) -> CopyTerm | None:
    if not search.copies:
        return None
    at, cost = where
    parts = []
    for profile in profiles:
        chosen: NDArray[np.integer] = training_choices(profile, search.name)[:, at]
        if search.flatten:
            chosen = flattened(chosen, profile.load[at], search.flatten)
        parts.append(items.of_choices(chosen))
    return CopyTerm(
        item=np.concatenate(parts),
        domain=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        cost=search.copies * (cost if search.hop_weighted else np.ones(len(cost))),
        robust=search.robust,
    )


def _loads(
    search: LocalSearch,
    profiles: tuple[ExpertProfile, ...],
    items: LayerItems,
    where: tuple[int, Base, int],
) -> LoadCap | None:
    at, base, joined = where
    if base.beta is None:
        return None
    load = items.share(np.stack([profile.load[at] for profile in profiles]))
    return LoadCap(load, np.full(len(profiles), base.beta[at]), search.beta_price, joined)


def _joined(
    search: LocalSearch, problem: PlacementProblem, base: Base, slots: NDArray[np.int64]
) -> list[int]:
    """Items that must join any one on its place, by layer.

    The caps force them; with replicas, where all slots are taken, the smallest place does.
    """
    if not base.placement.redundant:
        return [beside(problem, Places.of(problem, search.scope))] * problem.layers
    items = np.bincount(base.placement.slot_layer, minlength=problem.layers)
    fewest = slots.min(axis=1) - (slots.sum(axis=1) - items)
    return [max(0, int(at) - 1) for at in np.minimum(fewest, items)]


def _moves(
    search: LocalSearch, problem: PlacementProblem, base: Base
) -> list[MoveCap] | list[None]:
    """Say where every slot comes from; below 0 for slots that are new, which move for free."""
    previous = search.previous
    if previous is None:
        return [None] * problem.layers
    inside = 1 if search.scope == "gpu" else problem.gpus_per_server
    pairs = zip(items_of(base.placement), items_of(previous), strict=True)
    came = [came_from(items, old, problem.gpus_per_server) for items, old in pairs]
    price = search.move_price * problem.layers
    return [MoveCap(gpu // inside, price=price) for gpu in came]


def _check_shapes(profiles: tuple[ExpertProfile, ...], problem: PlacementProblem) -> None:
    """Refuse domains of another model."""
    for profile in profiles:
        if profile.load.shape != problem.profile.load.shape:
            raise PlacementError(
                f"domain '{profile.source}' has [layers, experts] {profile.load.shape}, the "
                f"problem {problem.profile.load.shape}"
            )
