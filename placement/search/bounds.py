"""Proven lower bounds on what a combined search minimises, over all that the caps allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.balance import Places
from placement.balance.caps import TOLERANCE
from placement.balance.relaxation import solve_relaxation
from placement.hops import hop_optimum
from placement.search.copies_bound import copies_bound, copies_of_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from placement.moves.search import MoveSearch
    from placement.problem import PlacementProblem
    from placement.search.layer import CopyTerm, LayerSearch
    from placement.search.local_search import LocalSearch


def bound_here(
    search: LocalSearch, problem: PlacementProblem, at: int, layer: LayerSearch
) -> float:
    """Lower bound on a layer's value with its very slots: for ending its search, not to report.

    Moves may be none, so that they add nothing.
    """
    rest = copies_of(search, problem, layer) + _excess(layer)
    return _hops_here(search, problem, at, layer) + rest


def proven_bound(
    search: LocalSearch,
    problem: PlacementProblem,
    layers: Sequence[LayerSearch],
    *,
    moves: MoveSearch | None = None,
    seconds: float | None = None,
) -> float:
    """Lower bound on the objective of every placement that keeps the caps asked for.

    The greatest of what applies, each with the bounds on the terms that it does not cover: the
    hop flow, which covers hop-weighted copies too; the linear relaxation of `Balanced` under a
    beta, which covers load above a priced one; and hops at the price, or within the number, of
    moves. With replicas, whose number on every place the start decides, of the start's slots.

    Parameters
    ----------
    layers
        Every layer with the load caps that it is held to.
    moves
        Proofs at some prices of a move.
    seconds
        Most that the relaxation may take; None for no limit.
    """
    copies = float(np.mean([copies_of(search, problem, layer) for layer in layers]))
    excess = float(np.mean([_excess(layer) for layer in layers]))
    if layers[0].items > problem.experts:
        here = [_hops_here(search, problem, at, layer) for at, layer in enumerate(layers)]
        return float(np.mean(here)) + copies + excess
    bounds = [copies, _flow(search, problem, layers, copies)]
    if search.hops and moves is not None:
        moves.prove(search.move_price / search.hops, search.max_moves)
        hops = moves.bound(search.max_moves, search.move_price / search.hops)
        bounds.append(search.hops * hops + copies)
    bounds = [bound + excess for bound in bounds]
    # Its loads are the problem's, not those of domains.
    if search.hops and layers[0].loads is not None and not search.domains:
        bounds.append(search.hops * _relaxed(search, problem, layers, seconds) + copies)
    return max(bounds)


def least_hottest(layer: LayerSearch) -> NDArray[np.float64]:
    """Lower bound on the hottest place over the mean: the hottest item and what must join it.

    Returns
    -------
    float64 [domains]
    """
    if layer.loads is None:
        return np.zeros(0)
    load = np.sort(layer.loads.load / layer.loads.load.sum(axis=1, keepdims=True), axis=1)
    hottest: NDArray[np.float64] = load[:, -1] + load[:, : layer.loads.beside].sum(axis=1)
    return np.maximum(1.0, hottest * len(layer.slots))


def copies_of(search: LocalSearch, problem: PlacementProblem, layer: LayerSearch) -> float:
    """Lower bound on a layer's copies as domains count together."""
    term = layer.copies
    if term is None or term.cost is None:
        return 0.0
    most = _most(search, problem, layer)
    if term.robust == "mean" or term.domain is None:
        return copies_bound(term.item, layer.items, most, term.cost)
    parts = [
        copies_bound(term.item[term.domain == d], layer.items, most, term.cost)
        for d in range(int(term.domain.max()) + 1)
    ]
    return float(max(parts) if term.robust == "worst" else np.mean(parts))


def _most(search: LocalSearch, problem: PlacementProblem, layer: LayerSearch) -> int:
    """Return the most items of a layer on a place: by the caps, or by the slots with replicas."""
    if layer.items > problem.experts:
        return int(layer.slots.max())
    places = Places.of(problem, search.scope)
    return min(places.layer_slots, places.total_slots, problem.experts)


def _excess(layer: LayerSearch) -> float:
    """Lower bound on the price of load above the cap."""
    if layer.loads is None or layer.loads.price is None:
        return 0.0
    above = np.maximum(least_hottest(layer) - layer.loads.beta, 0.0)
    return layer.loads.price * float(above.mean())


def _hops_here(
    search: LocalSearch, problem: PlacementProblem, at: int, layer: LayerSearch
) -> float:
    """Weighted hops with the hottest items in the cheapest slots: none has fewer."""
    replicas = np.bincount(layer.expert, minlength=problem.experts)
    load = (problem.profile.load[at] / replicas)[layer.expert]
    inside = len(layer.slots) // problem.servers
    cost = np.sort(np.repeat(np.repeat(problem.cost[at], inside), layer.slots))
    hops = -np.sort(-load) @ cost[: layer.items]
    return search.hops * problem.top_k * float(hops)


def _flow(
    search: LocalSearch, problem: PlacementProblem, layers: Sequence[LayerSearch], copies: float
) -> float:
    """Bound hops and copies by the hop flow under both count caps.

    Hop-weighted copies of all tokens alike cost at least A_i hops for every item (see
    `copies_bound`): a weight that adds to the load's.
    """
    weights = search.hops * problem.profile.load
    apart = hop_optimum(problem, weights).bound_hops + copies if search.hops else copies
    if not search.hop_weighted or any(_separate(layer.copies) for layer in layers):
        return apart
    added = [_least_copies(search, problem, layer) for layer in layers]
    joint = weights + search.copies / problem.top_k * np.stack(added)
    return max(apart, hop_optimum(problem, joint).bound_hops)


def _separate(term: CopyTerm | None) -> bool:
    """Whether domains' copies do not simply add."""
    return term is None or (term.robust != "mean" and term.domain is not None)


def _least_copies(
    search: LocalSearch, problem: PlacementProblem, layer: LayerSearch
) -> NDArray[np.float64]:
    assert layer.copies is not None  # noqa: S101  the caller's
    return copies_of_items(layer.copies.item, layer.items, _most(search, problem, layer))


def _relaxed(
    search: LocalSearch,
    problem: PlacementProblem,
    layers: Sequence[LayerSearch],
    seconds: float | None,
) -> float:
    """Bound hops under the load caps, or with the load above them priced, in hops."""
    beta = np.array([0.0 if layer.loads is None else layer.loads.beta[0] for layer in layers])
    price = search.beta_price
    if price is not None:
        # By the mean load of a place and hops, to mean load of an expert and one choice.
        price *= len(layers[0].slots) / search.hops / problem.top_k
    relaxed = solve_relaxation(
        problem,
        beta * (1 + TOLERANCE if price is None else 1) / problem.servers,
        price=price,
        time_limit_s=seconds,
    )
    return relaxed.bound * problem.top_k / problem.layers / problem.experts
