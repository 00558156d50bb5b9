"""From a problem and the options of a search to what counts in every layer, with bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.balance import Places
from placement.balance.relaxation import solve_relaxation
from placement.errors import PlacementError
from placement.search.copies_bound import copies_bound
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
    layers = []
    for at, items in enumerate(items_of(base.placement)):
        hops = search.hops * problem.top_k * items.share(problem.profile.load[at])
        layers.append(
            LayerSearch(
                expert=items.expert,
                slots=slots[at],
                copies=_copies(search, profiles, items, (at, cost[at])),
                linear=hops[:, None] * cost[at],
                loads=_loads(search, profiles, items, (at, base)),
                moves=moves[at],
                most_replicas=problem.gpus_per_server // inside,
            )
        )
    return layers


def bound_of(search: LocalSearch, problem: PlacementProblem, at: int, layer: LayerSearch) -> float:
    """Lower bound on a layer's value: the sum of bounds on hops, copies and priced load.

    Moves may be none, so that they add nothing.
    """
    bound = _hop_bound(search, problem, at, layer) + _copies_bound(layer)
    if layer.loads is not None and layer.loads.price is not None:
        above = np.maximum(least_hottest(layer) - layer.loads.beta, 0.0)
        bound += layer.loads.price * float(above.mean())
    return bound


def capped_bound(
    search: LocalSearch, problem: PlacementProblem, base: Base, seconds: float
) -> float:
    """Lower bound on the value by hops under the cap on loads, from the relaxation of `Balanced`.

    For one slot an expert changed from a previous placement: `Balanced` gives its own else.

    Parameters
    ----------
    seconds
        Wall seconds for the solver.
    """
    wanted = search.hops and search.previous is not None and base.beta is not None
    if not wanted or base.placement.redundant or search.domains:
        return 0.0
    assert base.beta is not None  # noqa: S101  said above
    price = search.beta_price
    if price is not None:
        # By the mean load of a place, to that of an expert, and of k choices to one.
        places = Places.of(problem, search.scope)
        price = price / search.hops * places.server.size / problem.top_k
    relaxed = solve_relaxation(
        problem,
        base.beta / problem.servers,
        price=price,
        time_limit_s=None if seconds == np.inf else max(seconds, 1e-3),
    )
    scale = problem.top_k / problem.layers / problem.experts
    return search.hops * relaxed.bound * scale


def least_hottest(layer: LayerSearch) -> NDArray[np.float64]:
    """Lower bound on the hottest place over the mean: the hottest item and what must join it.

    All slots but those left free are taken, so that the place of the hottest item has at least
    the fewest slots of a place less the free ones.

    Returns
    -------
    float64 [domains]
    """
    if layer.loads is None:
        return np.zeros(0)
    load = np.sort(layer.loads.load / layer.loads.load.sum(axis=1, keepdims=True), axis=1)
    free = int(layer.slots.sum()) - layer.items
    beside = max(0, min(int(layer.slots.min()) - free, layer.items) - 1)
    hottest: NDArray[np.float64] = load[:, -1] + load[:, :beside].sum(axis=1)
    return np.maximum(1.0, hottest * len(layer.slots))


def _hop_bound(
    search: LocalSearch, problem: PlacementProblem, at: int, layer: LayerSearch
) -> float:
    """Weighted hops with the hottest items in the cheapest slots: none has fewer."""
    replicas = np.bincount(layer.expert, minlength=problem.experts)
    load = (problem.profile.load[at] / replicas)[layer.expert]
    inside = len(layer.slots) // problem.servers
    cost = np.sort(np.repeat(np.repeat(problem.cost[at], inside), layer.slots))
    hops = -np.sort(-load) @ cost[: layer.items]
    return search.hops * problem.top_k * float(hops)


def _copies_bound(layer: LayerSearch) -> float:
    """Lower bound on the copies as domains count together."""
    term = layer.copies
    if term is None or term.cost is None:
        return 0.0
    most = int(layer.slots.max())
    if term.robust == "mean" or term.domain is None:
        return copies_bound(term.item, layer.items, most, term.cost)
    parts = [
        copies_bound(term.item[term.domain == d], layer.items, most, term.cost)
        for d in range(int(term.domain.max()) + 1)
    ]
    return float(max(parts) if term.robust == "worst" else np.mean(parts))


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
    where: tuple[int, Base],
) -> LoadCap | None:
    at, base = where
    if base.beta is None:
        return None
    load = items.share(np.stack([profile.load[at] for profile in profiles]))
    return LoadCap(load, np.full(len(profiles), base.beta[at]), search.beta_price)


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
