"""Annealing of a whole placement under load caps: compiled swaps and moves, cooled step by step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.balance.caps import TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.balance.caps import Places
    from placement.problem import PlacementProblem

_STEPS = 40
_COLD = 0.0002
"""Last temperature, relative to the spread of costs: moving a mean expert across it costs 1."""
_FIRM = 2.0
"""Price of load above the cap while annealing, relative to the spread of costs: no expert is
worth it, yet a detour through a layer slightly too hot is."""
_MOVE_SHARE = 0.3
_FINAL_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to anneal.

    Attributes
    ----------
    proposals
        Steps proposed per expert of every layer.
    deadline
        ``time.perf_counter`` value after which only the last step is made.
    seed
        Of the proposals.
    hot
        First temperature, relative to the spread of costs.
    """

    proposals: int
    deadline: float
    seed: int
    hot: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Outcome of a search.

    Attributes
    ----------
    place
        int64 [layers, experts].
    over
        bool [layers]: layers with a place above its cap.
    limit
        ``time`` if the deadline cut the annealing short, else None.
    """

    place: NDArray[np.int64]
    over: NDArray[np.bool_]
    limit: str | None


@dataclass(frozen=True, slots=True, eq=False)
class BalanceTerms:
    """What the search minimises, with experts of mean weight 1.

    Attributes
    ----------
    cap
        float64 [layers]: most load of a place, as share of the layer's.
    price
        Price of load above the cap in the units of ``load * cost``; None forbids it.
    bound
        Lower bound on the value: reaching it ends the search.
    """

    cap: NDArray[np.float64]
    price: float | None
    bound: float


def search(
    problem: PlacementProblem,
    places: Places,
    place: NDArray[np.int64],
    terms: BalanceTerms,
    *,
    locked: NDArray[np.bool_],
    effort: Effort,
) -> Found:
    """Anneal from `place`; layers `locked` start within their caps and never leave them."""
    from placement.balance._search_kernel import (  # noqa: PLC0415  numba is slow to import
        Caps,
        Prices,
        anneal,
    )

    load = problem.profile.load * problem.experts
    cost = np.ascontiguousarray(problem.cost[:, places.server])
    spread = float(np.ptp(cost, axis=1).max()) or 1.0
    firm = _FIRM * spread if terms.price is None else terms.price
    locked = locked & (terms.price is None)
    # The hair above the cap is for sums that rounding took there.
    cap = terms.cap * problem.experts * (1 + TOLERANCE / 100)
    prices = Prices(load, np.argsort(-load, axis=1, kind="stable"), cost, cap, np.empty(0))
    caps = Caps(
        places.server,
        places.layer_slots,
        places.total_slots,
        problem.layer_slots,
        problem.server_slots,
    )
    rng = np.random.Generator(np.random.PCG64(effort.seed))
    moves = 0.0 if problem.servers * problem.layer_slots == problem.experts else _MOVE_SHARE
    if places.per_server > 1 and places.layer_slots > 1:
        moves = _MOVE_SHARE
    steps = effort.proposals * load.size
    state, limit = state_of(places, place, load), None
    schedule = [(t, firm, 1 / _STEPS) for t in np.geomspace(effort.hot, _COLD, _STEPS)]
    schedule.append((_COLD / 10, firm if terms.price is not None else 1e3 * firm, _FINAL_SHARE))
    for temperature, weight, part in schedule:
        if time.perf_counter() > effort.deadline and part != _FINAL_SHARE:
            limit = "time"
            continue
        now = prices._replace(weight=np.where(locked, 1e6 * firm, weight))
        anneal(rng, state, now, caps, temperature * spread, int(steps * part), moves)
        state = state_of(places, state.place, load)
        value = float((load * np.take_along_axis(cost, state.place, axis=1)).sum())
        over = state.heat.max(axis=1) > cap * (1 + TOLERANCE)
        if not over.any() and value <= terms.bound + 1e-9 * abs(terms.bound):
            break
    if terms.price is not None:
        over[:] = False
    return Found(place=state.place, over=over, limit=limit)


def state_of(places: Places, place: NDArray[np.int64], load: NDArray[np.float64]) -> Any:
    """Sum up an assignment afresh, so that rounding does not pile up."""
    from placement.balance._search_kernel import State  # noqa: PLC0415  numba is slow to import

    layers, sites = len(place), places.server.size
    flat = (np.arange(layers)[:, None] * sites + place).ravel()
    heat = np.asarray(np.bincount(flat, load.ravel(), layers * sites), dtype=np.float64)
    heat = heat.reshape(layers, sites)
    count = np.bincount(flat, minlength=layers * sites).reshape(layers, sites)
    in_group = count.reshape(layers, -1, places.per_server).sum(axis=2)
    return State(place.copy(), heat, count, in_group, count.sum(axis=0), in_group.sum(axis=0))
