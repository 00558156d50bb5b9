"""Whose slots a search arranges, and the load caps that it can keep with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from placement.balance import Balanced, Places, layer_caps
from placement.balance.caps import TOLERANCE
from placement.errors import InfeasibleError, PlacementError
from placement.field.equal import equal_counts
from placement.hops import IlpLoad
from placement.replicas import Replicated
from placement.search.items import slots_of
from placement.search.repair import repaired
from placement.slots import place_on_gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.balance import LayerCaps
    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.search.local_search import LocalSearch

_SHARE_OF_TIME = 0.3
_BALANCED_S = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A start placement, and what is known of its loads.

    Attributes
    ----------
    placement
        Where the slots are at first.
    beta
        float64 [layers]: most load of a place over the mean; None without a cap.
    level
        For every layer int64 [items]: places whose loads keep to `beta`, or None where no such
        packing fits the slots.
    """

    placement: Placement
    beta: NDArray[np.float64] | None
    level: list[NDArray[np.int64] | None]


def base_of(search: LocalSearch, problem: PlacementProblem, placement: Placement) -> Base:
    """Take a start's slots; where they cannot meet a beta that others could, choose again.

    Raises
    ------
    InfeasibleError
        If no packing under the count caps was found that meets a hard beta.
    """
    unknown: list[NDArray[np.int64] | None] = [None] * problem.layers
    if search.beta is None:
        return Base(placement, None, unknown)
    beta = np.full(problem.layers, search.beta)
    hard, plain = search.beta_price is None, not (placement.redundant or search.domains)
    if hard and plain and search.max_moves is not None:
        return Base(*repaired(search, problem, placement), unknown)
    if not (hard and plain):
        return Base(placement, beta, unknown)
    caps = layer_caps(problem, search.beta, relax=True, scope=search.scope, seed=search.seed)
    places = Places.of(problem, search.scope).server.size
    own = _hottest(placement, problem, places)
    if not search.relax and (caps.short & (own > caps.wanted * (1 + TOLERANCE))).any():
        layer_caps(problem, search.beta, scope=search.scope, seed=search.seed)
    level = _levels(search, problem, placement, caps)
    most = np.maximum(caps.wanted, np.minimum(own, caps.least))
    held = own <= most * (1 + TOLERANCE)
    if any(at is None and not ok for at, ok in zip(level, held, strict=True)):
        placement = balanced(search, problem) or placement
        level = _levels(search, problem, placement, caps)
    return Base(placement, np.maximum(beta, most * places) if search.relax else beta, level)


def fitting(placement: Placement, problem: PlacementProblem) -> Placement:
    """Return the start, refused where it is of another model or cluster."""
    have = (placement.layers, placement.experts, placement.gpus, placement.gpus_per_server)
    size = problem.gpus_per_server
    want = (problem.layers, problem.experts, problem.servers * size, size)
    if have != want or placement.model != problem.model:
        raise PlacementError(
            f"the start is of {placement.model} with (layers, experts, GPUs, GPUs per server) "
            f"{have}, the problem of {problem.model} with {want}"
        )
    return placement


def fresh(search: LocalSearch, problem: PlacementProblem) -> Placement:
    """Choose a start without regard to a previous placement.

    Raises
    ------
    InfeasibleError
        If a policy that makes it finds none within its caps.
    PlacementError
        If the base is of another model or cluster, or has other redundant slots.
    """
    if search.base is not None:
        placement = fitting(search.base(problem), problem)
        return _with_redundant(placement, search.redundant)
    if search.redundant:
        return _replicated(search, problem)
    if search.hops or (search.copies and search.hop_weighted):
        return _of_few_hops(search, problem)
    counts = equal_counts(problem)
    gpu = np.stack([np.repeat(np.arange(len(row)), row) for row in counts])
    return place_on_gpus(problem, gpu, policy=search.name)


def _of_few_hops(search: LocalSearch, problem: PlacementProblem) -> Placement:
    return IlpLoad()(problem) if search.beta is None else _balanced_policy(search)(problem)


def _with_redundant(placement: Placement, redundant: int | None) -> Placement:
    """Refuse a base whose redundant slots are not those asked for."""
    have = np.bincount(placement.slot_layer, minlength=placement.layers) - placement.experts
    wrong = np.flatnonzero(have != (have if redundant is None else redundant))
    if wrong.size:
        raise PlacementError(
            f"the base '{placement.policy}' has {have[wrong[0]]} redundant slots in layer "
            f"{wrong[0]}, {redundant} were asked for; expected the same, or no number"
        )
    return placement


def _replicated(search: LocalSearch, problem: PlacementProblem) -> Placement:
    """Replicas with light GPUs, within a hard cap at few hops."""
    return Replicated(
        search.redundant or 0,
        cap=search.beta if search.beta_price is None else None,
        relax=True,
        seed=search.seed,
        time_limit_s=search.time_limit_s and search.time_limit_s * _SHARE_OF_TIME,
        name=search.name,
    )(problem)


def _balanced_policy(search: LocalSearch) -> Balanced:
    price, limit = search.beta_price, search.time_limit_s
    return Balanced(
        search.beta or 1.0,
        relax=search.relax,
        scope=search.scope,
        # Its price is by the hop, and so is not for hops of another weight.
        price=None if price is None else price / (search.hops or 1.0),
        seed=search.seed,
        time_limit_s=_BALANCED_S if limit is None else min(_BALANCED_S, limit * _SHARE_OF_TIME),
    )


def balanced(search: LocalSearch, problem: PlacementProblem) -> Placement | None:
    """Place within the load caps and all count caps, if that can be done."""
    try:
        return _balanced_policy(search)(problem)
    except InfeasibleError:
        return None


def _hottest(placement: Placement, problem: PlacementProblem, places: int) -> NDArray[np.float64]:
    """float64 [layers]: load of the hottest place, one slot an expert."""
    layers = np.arange(problem.layers)[:, None]
    place = placement.gpu_of_expert.astype(np.int64) // (placement.gpus // places)
    flat = (layers * places + place).ravel()
    heat = np.bincount(flat, problem.profile.load.ravel(), problem.layers * places)
    hottest: NDArray[np.float64] = heat.reshape(problem.layers, places).max(axis=1)
    return hottest


def _levels(
    search: LocalSearch, problem: PlacementProblem, placement: Placement, caps: LayerCaps
) -> list[NDArray[np.int64] | None]:
    """Seat the packings on the slots, most experts on the place with most slots."""
    slots = slots_of(problem, placement, search.scope)
    return [_seated(packing, row) for packing, row in zip(caps.packing, slots, strict=True)]


def _seated(packing: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64] | None:
    count = np.bincount(packing, minlength=len(slots))
    by_count, by_slots = (np.argsort(-a, kind="stable") for a in (count, slots))
    if (count[by_count] > slots[by_slots]).any():
        return None
    name = np.empty_like(count)
    name[by_count] = by_slots
    seated: NDArray[np.int64] = name[packing]
    return seated
