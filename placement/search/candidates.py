"""Placements whose slots a combined search arranges: the given one's and better ones."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from placement.balance import Places
from placement.errors import InfeasibleError
from placement.moves.keep_gpus import keep_gpus
from placement.moves.search import MoveSearch
from placement.search.base import fitting, fresh
from placement.search.grow import grown
from placement.slots import place_on_gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.search.local_search import LocalSearch


def counted_moves(
    search: LocalSearch, problem: PlacementProblem, deadline: float
) -> MoveSearch | None:
    """Return the flow of hops over moves, where moves count and it can tell something."""
    previous = search.previous
    if previous is None or not search.hops or _replicated(search):
        return None
    if not _moves_count(search) or time.perf_counter() > deadline:
        return None
    home = fitting(previous, problem).server_of_expert.astype(np.int64)
    return MoveSearch(problem, home, deadline=deadline)


def candidates(
    search: LocalSearch, problem: PlacementProblem, moves: Callable[[], MoveSearch | None]
) -> list[Callable[[], Placement]]:
    """Return makers of the starts whose slots are to be tried, one at least.

    Slots never change their layer or place in a search. So a previous placement without replicas
    is joined by one with slots that suit the problem: at the price of a move or within their
    number the one of least hops, else what would be the start without it. Where it breaks the
    caps, one that keeps them with the fewest moves to other servers takes its place.

    Makers raise `InfeasibleError` if keeping the caps takes more moves than allowed, or nothing
    within them is found; `PlacementError` if a placement given is of another model or cluster,
    or has other redundant slots.

    Parameters
    ----------
    moves
        Gives what `counted_moves` does, when first asked.
    """
    if search.previous is None:
        return [partial(fresh, search, problem)]
    first = partial(_given, search, problem, fitting(search.previous, problem))
    if _replicated(search):
        return [first]
    capped = search.beta is not None and search.beta_price is None
    if search.hops and _moves_count(search) and not capped:
        return [first, partial(_of_moves, search, problem, moves)]
    return [first] if search.max_moves is not None else [first, partial(fresh, search, problem)]


def _given(search: LocalSearch, problem: PlacementProblem, previous: Placement) -> Placement:
    """Return the previous placement, with the replicas asked for or within the caps."""
    if _replicated(search):
        return previous if search.redundant is None else grown(previous, problem, search.redundant)
    if keeps_caps(previous, problem):
        return previous
    flow = MoveSearch(problem, previous.server_of_expert.astype(np.int64))
    return _on_gpus(problem, previous, flow.least_moves(search.max_moves).server)


def _of_moves(
    search: LocalSearch, problem: PlacementProblem, moves: Callable[[], MoveSearch | None]
) -> Placement:
    """Return the placement of least hops at the price, or within the number, of moves."""
    flow, previous = moves(), search.previous
    if flow is None or previous is None:
        raise InfeasibleError("no time is left for a placement of few moves")
    paid = flow.priced(search.move_price / search.hops)
    if search.max_moves is not None:
        paid = flow.within(search.max_moves, paid)
    return _on_gpus(problem, previous, paid.server)


def keeps_caps(placement: Placement, problem: PlacementProblem) -> bool:
    """Whether servers and GPUs keep both count caps."""
    size = problem.gpus_per_server
    for scope, inside in (("server", size), ("gpu", 1)):
        places, count = Places.of(problem, scope), placement.gpus // inside
        flat = placement.slot_layer.astype(np.int64) * count + placement.slot_gpu // inside
        held = np.bincount(flat, minlength=problem.layers * count).reshape(-1, count)
        if held.max() > places.layer_slots or held.sum(axis=0).max() > places.total_slots:
            return False
    return True


def _replicated(search: LocalSearch) -> bool:
    return bool(search.redundant or (search.previous and search.previous.redundant))


def _moves_count(search: LocalSearch) -> bool:
    return search.max_moves is not None or search.move_price > 0


def _on_gpus(
    problem: PlacementProblem, previous: Placement, server: NDArray[np.int64]
) -> Placement:
    gpu = keep_gpus(problem, server, previous.gpu_of_expert.astype(np.int64))
    return place_on_gpus(problem, gpu, policy=previous.policy)
