"""Redundant slots added to a previous placement, slots that keep their GPU, and time limits."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import (
    Contiguous,
    IlpLoad,
    InfeasibleError,
    Placement,
    PlacementError,
    PlacementProblem,
    Random,
    evaluate,
)
from placement.field.eplb import Eplb
from placement.replicas import Replicated
from placement.search.copies import Scope, copies_per_token
from placement.search.deal import Table, deal
from placement.search.grow import grown
from placement.search.inside import inside_servers
from placement.search.items import items_of
from placement.search.layer_items import LayerItems, came_from
from placement.search.least_copies import LeastCopies
from placement.search.local_search import LocalSearch
from placement.search.pace import STEPS, Pace
from workloads import ExpertProfile


def make_problem(seed: int = 0) -> PlacementProblem:
    """Build 3 layers x 12 experts on 3 servers of 2 GPUs, with 150 tokens of top-3."""
    rng = np.random.default_rng(seed)
    weight = rng.pareto(2.0, 12) + 0.5
    weight /= weight.sum()
    topk = np.array(
        [[rng.choice(12, 3, replace=False, p=weight) for _ in range(3)] for _ in range(150)]
    )
    count = np.stack([np.bincount(topk[:, at].ravel(), minlength=12) for at in range(3)])
    return PlacementProblem(
        model="test",
        cost=rng.integers(1, 9, (3, 3)).astype(np.float64),
        profile=ExpertProfile(load=count / count.sum(1, keepdims=True), source="t", choices=topk),
        top_k=3,
        gpus_per_server=2,
        layer_slots=6,
        server_slots=12,
    )


def cells(of: Placement, inside: int = 1) -> list[tuple[int, int, int]]:
    """(layer, place, expert) of every slot, sorted."""
    gpu = of.slot_gpu // inside
    return sorted(zip(of.slot_layer.tolist(), gpu.tolist(), of.slot_expert.tolist(), strict=True))


def lost(new: Placement, old: Placement, inside: int = 1) -> int:
    """Slots of the old placement that the new one does not have."""
    have, gone = cells(new, inside), 0
    for cell in cells(old, inside):
        if cell in have:
            have.remove(cell)
        else:
            gone += 1
    return gone


def counts(of: Placement) -> np.ndarray:
    """Slots [layers, GPUs]."""
    flat = of.slot_layer * of.gpus + of.slot_gpu
    return np.bincount(flat, minlength=of.layers * of.gpus).reshape(of.layers, of.gpus)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([0, 6, 12]), st.sampled_from([6, 12, 18]))
def test_grown_slots(seed: int, had: int, wanted: int) -> None:
    """Equal slots on every GPU, no expert twice, none lost but off full GPUs, hottest first."""
    problem = make_problem(seed % 5)
    if had > wanted:
        return
    previous = Eplb(redundant=had, hierarchical=False)(problem) if had else Random()(problem)
    if len(set(cells(previous))) < len(cells(previous)):
        return  # the balancer itself put an expert twice on a GPU
    new = grown(previous, problem, wanted)
    assert counts(new).tolist() == [[(12 + wanted) // 6] * 6] * 3
    assert len(set(cells(new))) == len(cells(new))
    full = np.maximum(counts(previous) - (12 + wanted) // 6, 0)
    assert lost(new, previous) == full.sum()
    assert (new.replicas >= previous.replicas).all()
    for load, before, after in zip(
        problem.profile.load, previous.replicas, new.replicas, strict=True
    ):
        added = after > before
        # The last replica an expert got relieved at least as much load as any other has now.
        if added.any():
            others = np.where(after < 6, load / after, 0).max()
            assert (load[added] / (after[added] - 1) >= others - 1e-12).all()


def test_growth_that_is_refused() -> None:
    """Fewer slots than there are, numbers that do not divide, more replicas than GPUs."""
    problem = make_problem()
    plain, more = Contiguous()(problem), Eplb(redundant=6)(problem)
    with pytest.raises(PlacementError, match="has 6 redundant slots in layer 0, 0 were asked"):
        LocalSearch(previous=more, redundant=0)(problem)
    with pytest.raises(PlacementError, match="12 experts and 5 redundant .* redundant=6 would"):  # noqa: RUF043
        LocalSearch(previous=plain, redundant=5)(problem)
    with pytest.raises(InfeasibleError, match="redundant is at most 60"):
        LocalSearch(previous=plain, redundant=66)(problem)
    with pytest.raises(PlacementError, match="'eplb' has 6 redundant slots in layer 0, 12 were"):
        LocalSearch(base=Eplb(redundant=6), redundant=12)(problem)
    with pytest.raises(PlacementError, match="redundant is -1; expected 0 or more"):
        LocalSearch(redundant=-1)


def test_full_gpus_give_slots_away_within_the_budget() -> None:
    """An uneven placement takes moves to become even; fewer are refused, inside a server free."""
    problem = make_problem()
    previous = IlpLoad()(problem)
    # 12 + 6 slots are 3 a GPU; what GPUs hold beyond that must leave.
    need = int(np.maximum(counts(previous) - 3, 0).sum())
    gpu = np.array([0] * 4 + [1] * 1 + [2] * 2 + [3] * 2 + [4] * 2 + [5])
    uneven = replace(
        previous,
        slot_layer=np.repeat(np.arange(3), 12).astype(np.int32),
        slot_gpu=np.tile(gpu, 3).astype(np.int32),
        slot_expert=np.tile(np.arange(12), 3).astype(np.int32),
    )
    search = LocalSearch(previous=uneven, redundant=6, max_moves=2, proposals=50)
    with pytest.raises(InfeasibleError, match="max_moves 2 is too small: .* at least 3 moves"):  # noqa: RUF043
        search(problem)
    placement = replace(search, max_moves=3)(problem)
    assert lost(placement, uneven) == 3
    assert counts(placement).tolist() == [[3] * 6] * 3
    inside = replace(search, max_moves=0, scope="server")(problem)
    assert lost(inside, uneven, 2) == 0
    assert need >= 0


@pytest.mark.parametrize("scope", ["gpu", "server"])
@pytest.mark.parametrize("most", [0, 4])
def test_grown_slots_are_no_moves(most: int, scope: Scope) -> None:
    """The budget holds for old slots; new ones come on top and lower the hottest GPU and hops."""
    problem = make_problem()
    previous = Contiguous()(problem)
    inside = 2 if scope == "server" else 1
    for copies in (0.0, 1.0):
        search = LocalSearch(
            copies=copies,
            previous=previous,
            redundant=6,
            max_moves=most,
            scope=scope,
            proposals=150,
        )
        placement = search(problem)
        assert placement.redundant == 18
        assert lost(placement, previous, inside) <= most
        start = grown(previous, problem, 6)
        assert lost(start, previous) == 0
        if not copies:
            before = evaluate(start, problem).hops_per_token_layer
            assert evaluate(placement, problem).hops_per_token_layer < before


def test_without_a_previous_placement_replicas_are_chosen() -> None:
    """Redundant slots are dealt by `Replicated`, and rearranged for copies and hops under beta."""
    problem = make_problem()
    choices = problem.profile.choices
    assert choices is not None
    policy = LeastCopies(redundant=6, beta=1.3, relax=True, proposals=150)
    placement = policy(problem)
    assert counts(placement).tolist() == [[3] * 6] * 3
    assert len(set(cells(placement))) == len(cells(placement))
    start = Replicated(6, cap=1.3, relax=True)(problem)
    assert copies_per_token(placement, choices) < copies_per_token(start, choices)
    hops = LocalSearch(redundant=6, beta=1.3, proposals=150)(problem)
    assert evaluate(hops, problem).balance_gpu <= 1.3 * (1 + 1e-9)
    assert LocalSearch(redundant=0, proposals=20)(problem).redundant == 0


def test_where_slots_come_from() -> None:
    """The same GPU first, then the same server, then any; what is left is new."""
    problem = make_problem()
    one = Contiguous()(problem)
    new = next(items_of(grown(one, problem, 6)))
    old = next(items_of(one))
    came = came_from(new, old, 2)
    assert (came >= 0).sum() == 12
    assert (came[came >= 0] == new.gpu[came >= 0]).all()
    # Expert 0 from GPU 0 to GPU 1 of its server, and one more on GPU 5.
    hand = replace(
        new,
        expert=np.array([0, 0]),
        gpu=np.array([5, 1]),
        first=np.array([0]),
        replicas=np.array([2]),
    )
    before = replace(hand, expert=np.array([0]), gpu=np.array([0]), replicas=np.array([1]))
    assert came_from(hand, before, 2).tolist() == [-1, 0]


def test_dealing_makes_way() -> None:
    """Where only a holder has room, an item dealt before goes there instead, if one can."""
    # Place 0 holds expert 2 and has one slot, place 1 is empty and has one.
    table = Table.of(np.array([2, 1]), np.array([2]), np.array([0]), np.array([9.0]), 3)
    # Expert 0 comes first, to the cooler place 1; expert 2 then needs it.
    assert deal(table, np.array([0, 2]), np.array([5.0, 1.0])).tolist() == [0, 1]
    assert table.room.tolist() == [0, 0]
    assert table.held.max() == 1
    # Nobody can make way: doubled.
    table = Table.of(np.array([3]), np.array([0]), np.array([0]), np.array([1.0]), 1)
    assert deal(table, np.array([0]), np.array([1.0])).tolist() == [0]
    assert table.held.max() == 2


@pytest.mark.parametrize(
    ("scope", "had", "wanted", "beta"),
    [c for c in product(("gpu", "server"), (0, 6), (None, 6), (None, 1.9)) if c[1] <= (c[2] or 6)],
)
def test_slots_keep_their_gpu_where_they_can(
    scope: Scope, had: int, wanted: int | None, beta: float | None
) -> None:
    """No slot changes its GPU inside a server, whatever is combined; the start alone may stay."""
    problem = make_problem(1)
    previous = Replicated(had)(problem) if had else Contiguous()(problem)
    options: dict[str, Any] = {"previous": previous, "redundant": wanted, "scope": scope}
    for moves in ({"max_moves": 5}, {"move_price": 0.05}, {"move_price": 1e3}):
        search = LocalSearch(**options, **moves, beta=beta, relax=beta is not None, proposals=100)
        placement = search(problem)
        gone, away = lost(placement, previous), lost(placement, previous, 2)
        # In scope gpu a change inside a server is a move that was allowed for; with replicas one
        # may have to make way, see the brute force below.
        assert gone >= away
        # Where a server takes other numbers of slots its GPUs' caps may make one more leave.
        same = (counts(placement) == counts(previous)).all()
        assert gone == away or scope == "gpu" or had or not same
        assert (gone if scope == "gpu" else away) <= moves.get("max_moves", 99)
        if moves == {"move_price": 1e3} and beta is None:
            assert gone == 0
            if not wanted or had:
                assert cells(placement) == cells(previous)
    assert lost(LocalSearch(proposals=50)(problem), Contiguous()(problem)) > 0


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32))
def test_gpus_of_a_server_are_kept_nearly_as_brute_force_keeps_them(seed: int) -> None:
    """Of one server's slots at most one more leaves its GPU than doubles make necessary."""
    rng = np.random.default_rng(seed)
    # 3 GPUs of 2 slots with 3 replicas of 6 experts' slots; two slots come from another server.
    expert = np.sort(rng.choice(np.repeat(np.arange(4), 2), 6, replace=False))
    count = np.bincount(expert, minlength=4)
    dealt = [p for p in sorted(set(permutations((0, 0, 1, 1, 2, 2)))) if single(expert, p)]
    home = np.array(dealt[int(rng.integers(len(dealt)))])
    left = rng.permutation(6)[:2]
    # What left is replaced by newcomers of experts that the server may have already.
    stay = np.setdiff1d(np.arange(6), left)
    come = rng.integers(0, 4, 2)
    now = np.concatenate((expert[stay], come))
    if len(set(now.tolist())) < 4 or not any(single(now, p) for p in dealt_all()):
        return
    order = np.argsort(now, kind="stable")
    now = now[order]
    replicas = np.bincount(now, minlength=4)
    items = LayerItems(now, np.array([0, 0, 1, 1, 2, 2]), np.cumsum(replicas) - replicas, replicas)
    old = LayerItems(expert, home, np.cumsum(count) - count, count)
    gpu = inside_servers(items, np.zeros(6, np.int64), np.full(4, 0.25), (1, 3), old)
    assert single(now, tuple(gpu.tolist()))
    least = min(changed(now, p, expert, home) for p in dealt_all() if single(now, p))
    # Which of an expert's replicas counts as the one that stays is not searched: one more at most.
    assert changed(now, tuple(gpu.tolist()), expert, home) <= least + 1


def dealt_all() -> list[tuple[int, ...]]:
    """All ways to put 6 slots on 3 GPUs of 2."""
    return sorted(set(permutations((0, 0, 1, 1, 2, 2))))


def single(expert: np.ndarray, place: tuple[int, ...]) -> bool:
    """Whether no GPU holds an expert twice."""
    return len(set(zip(expert.tolist(), place, strict=True))) == len(place)


def changed(expert: np.ndarray, place: tuple[int, ...], old: np.ndarray, home: np.ndarray) -> int:
    """Slots (expert, GPU) that were not there before."""
    before = set(zip(old.tolist(), home.tolist(), strict=True))
    return len(set(zip(expert.tolist(), place, strict=True)) - before)


def test_lost_slots_would_be_noticed() -> None:
    """The count above sees a slot that changed its GPU inside its server."""
    problem = make_problem()
    old = Contiguous()(problem)
    swapped = replace(old, slot_gpu=old.slot_gpu ^ 1)
    assert lost(swapped, old) == 36
    assert lost(swapped, old, 2) == 0


def test_a_time_limit_is_kept_and_said() -> None:
    """Cut short, the best so far is valid, no worse than its start, and the report says time."""
    problem = make_problem()
    LocalSearch(copies=1.0, proposals=5)(problem)
    begun = time.perf_counter()
    placement = LocalSearch(copies=1.0, base=Contiguous(), proposals=10_000_000, time_limit_s=0.5)(
        problem
    )
    # All proposals would take minutes; a busy machine may be slow to begin.
    assert time.perf_counter() - begun < 20
    assert placement.solve is not None
    assert placement.solve.limit == "time"
    start = LocalSearch(copies=1.0, base=Contiguous(), previous=None, proposals=1, starts=1)
    before = start(problem).solve
    assert before is not None
    assert placement.solve.objective <= before.objective
    problem.check(placement)
    free = LocalSearch(copies=1.0, proposals=50, time_limit_s=1e6)(problem)
    assert free.solve is not None
    assert free.solve.limit is None
    assert free == LocalSearch(copies=1.0, proposals=50)(problem)
    with pytest.raises(PlacementError, match="time_limit_s is 0; expected seconds above 0"):
        LocalSearch(time_limit_s=0)


def test_a_time_limit_that_is_over_keeps_the_start() -> None:
    """With no time at all the start comes back, within a budget of moves too."""
    problem = make_problem()
    previous = Contiguous()(problem)
    placement = LocalSearch(previous=previous, max_moves=5, time_limit_s=1e-9)(problem)
    assert cells(placement) == cells(previous)
    assert placement.solve is not None
    assert placement.solve.limit == "time"


def test_pace() -> None:
    """Without a deadline the steps share evenly; past it nothing is proposed."""
    even = Pace(1000, float("inf"), turns=1)
    assert [list(even.pieces(step)) for step in range(STEPS)] == [[25]] * STEPS
    assert not even.cut
    late = Pace(1000, time.perf_counter() - 1.0, turns=2)
    assert [list(late.pieces(step)) for step in range(3)] == [[]] * 3
    assert late.cut


def test_default_effort_depends_on_the_size() -> None:
    """1500 swaps a slot in small problems, fewer in large ones, never fewer than 200."""
    problem = make_problem()
    search = LocalSearch()
    from placement.search.base import base_of, fresh  # noqa: PLC0415  only here
    from placement.search.terms import layers_of  # noqa: PLC0415  only here

    layers = layers_of(search, problem, base_of(search, problem, fresh(search, problem)))
    assert search._proposals(layers) == 1500
    # 1000 x 3 layers of 12 slots from 2 starts: 20e6 / 72000 = 277; twice that is below 200.
    assert search._proposals(layers * 1000) == 277
    assert search._proposals(layers * 2000) == 200
    assert LocalSearch(proposals=7)._proposals(layers) == 7
