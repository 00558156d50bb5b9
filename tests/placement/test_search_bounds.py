"""Bounds of combined searches against all placements within the caps, whatever start was given."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from conformance_cases import profile, skewed

from placement import Contiguous, InfeasibleError, PlacementProblem, Random
from placement.search import LocalSearch
from placement.search.base import base_of
from placement.search.bounds import bound_here
from placement.search.terms import layers_of
from placement.slots import place_on_gpus

EXPERTS, SERVERS, LAYERS = 4, 2, 2
TERMS: tuple[dict[str, Any], ...] = (
    {"hops": 1.0},
    {"hops": 0.0, "copies": 1.0},
    {"hops": 0.0, "copies": 1.0, "hop_weighted": True},
    {"hops": 1.0, "copies": 0.5},
    {"hops": 0.5, "copies": 1.0, "hop_weighted": True},
)
BETAS: tuple[dict[str, Any], ...] = ({}, {"beta": 1.4}, {"beta": 1.2, "beta_price": 0.7})
MOVES: tuple[dict[str, Any], ...] = ({}, {"max_moves": 2}, {"move_price": 0.1})


def make_problem(seed: int, gpus: int = 1) -> PlacementProblem:
    """2 layers x 4 experts on 2 servers: C_layer leaves all open, C_exp is tight."""
    cost = np.random.default_rng(seed).integers(0, 9, (LAYERS, SERVERS)).astype(float)
    return PlacementProblem(
        model="tiny",
        cost=cost,
        profile=profile(skewed(LAYERS, EXPERTS, seed), 2, seed),
        top_k=2,
        gpus_per_server=gpus,
        layer_slots=EXPERTS,
        server_slots=EXPERTS,
    )


def layer_value(
    search: LocalSearch, problem: PlacementProblem, at: int, place: np.ndarray
) -> tuple[float, int]:
    """Value of one layer's places, the long way; infinity above a hard cap; and its moves."""
    inside = problem.gpus_per_server if search.scope == "gpu" else 1
    places, chosen = SERVERS * inside, problem.profile.choices
    assert chosen is not None
    cost, load = np.repeat(problem.cost[at], inside), problem.profile.load[at]
    value = search.hops * problem.top_k * float(load @ cost[place])
    weight = cost if search.hop_weighted else np.ones(places)
    reached = [sum(weight[p] for p in set(place[row].tolist())) for row in chosen[:, at]]
    value += search.copies * float(np.mean(reached))
    over = np.maximum(np.bincount(place, load, places) * places - (search.beta or np.inf), 0.0)
    if search.beta_price is not None:
        value += search.beta_price * float(over.sum())
    elif over.sum() > 1e-9:
        value = np.inf
    if search.previous is None:
        return value, 0
    own = 1 if search.scope == "gpu" else problem.gpus_per_server
    moved = int((search.previous.gpu_of_expert[at] // own != place).sum())
    return value + search.move_price * LAYERS * moved, moved


def best_of_all(search: LocalSearch, problem: PlacementProblem) -> float:
    """Least objective of all placements under C_layer, C_exp and the moves; infinity if none."""
    inside = problem.gpus_per_server if search.scope == "gpu" else 1
    most = -(-EXPERTS // inside)
    rows = np.array(list(product(range(SERVERS * inside), repeat=EXPERTS)))
    # Of equal counts and moves only the best value of a layer matters.
    options: list[dict[tuple[int, ...], float]] = []
    for at in range(LAYERS):
        table: dict[tuple[int, ...], float] = {}
        for row in rows:
            value, moved = layer_value(search, problem, at, row)
            key = (moved, *np.bincount(row, minlength=SERVERS * inside).tolist())
            if max(key[1:]) <= most:
                table[key] = min(value, table.get(key, np.inf))
        options.append(table)
    best = np.inf
    for (one, a), (two, b) in product(options[0].items(), options[1].items()):
        used = np.add(one[1:], two[1:])
        fits = used.max() <= most and used.reshape(SERVERS, -1).sum(axis=1).max() <= EXPERTS
        if fits and one[0] + two[0] <= (np.inf if search.max_moves is None else search.max_moves):
            best = min(best, (a + b) / LAYERS)
    return best


@pytest.mark.parametrize("scope", ["server", "gpu"])
@pytest.mark.parametrize("moves", range(len(MOVES)))
@pytest.mark.parametrize("beta", range(len(BETAS)))
def test_bound_below_all_placements_within_the_caps(beta: int, moves: int, scope: Any) -> None:
    """bound <= best of all placements <= objective, and what is called optimal is the best."""
    for seed, terms in product(range(4), TERMS):
        problem = make_problem(seed, 2 if scope == "gpu" else 1)
        options = terms | BETAS[beta] | MOVES[moves]
        previous = Random(seed=seed)(problem)
        search = LocalSearch(**options, previous=previous, scope=scope, proposals=100)
        best = best_of_all(search, problem)
        try:
            report = search(problem).solve
        except InfeasibleError:
            # A budget is shared out to layers by a search, so that it may miss what exists.
            assert best == np.inf or search.max_moves is not None
            continue
        assert report is not None and report.bound is not None  # noqa: PT018
        assert report.bound <= best + 1e-9
        assert best <= report.objective + 1e-9
        if report.status == "optimal":
            assert report.objective == pytest.approx(best)


def test_a_bound_for_the_slots_of_the_start_is_no_bound() -> None:
    """What holds for a start's slots alone exceeds the best of all placements somewhere."""
    above = 0
    for seed in range(6):
        problem = make_problem(seed)
        search = LocalSearch(previous=Contiguous()(problem))
        base = base_of(search, problem, Contiguous()(problem))
        layers = layers_of(search, problem, base)
        here = np.mean([bound_here(search, problem, at, each) for at, each in enumerate(layers)])
        above += here > best_of_all(search, problem) + 1e-6
    assert above


def test_a_beta_that_cannot_bind_changes_nothing() -> None:
    """From an old placement with twice the mean allowed on 2 servers: the hop optimum, proven."""
    for seed in range(4):
        problem = make_problem(seed)
        report = LocalSearch(beta=2.0, previous=Contiguous()(problem))(problem).solve
        assert report is not None
        assert report.objective == pytest.approx(best_of_all(LocalSearch(), problem))
        assert report.status == "optimal"


def broken() -> tuple[PlacementProblem, Any]:
    """Return a problem with C_layer 3, and a previous placement that has 4 + 0 in each layer."""
    problem = make_problem(1)
    tight = PlacementProblem(
        model="tiny",
        cost=problem.cost,
        profile=problem.profile,
        top_k=2,
        gpus_per_server=1,
        layer_slots=3,
        server_slots=4,
    )
    gpu = np.repeat([[0], [1]], EXPERTS, axis=1)
    return tight, place_on_gpus(problem, gpu, policy="wide")


@pytest.mark.parametrize("options", [{}, {"max_moves": 2}, {"beta": 1.9}, {"move_price": 5.0}])
def test_a_previous_placement_that_breaks_the_caps_is_repaired(options: dict[str, Any]) -> None:
    """One expert of each layer leaves at least, counted from the previous placement."""
    problem, previous = broken()
    placement = LocalSearch(previous=previous, **options)(problem)
    problem.check(placement)
    moved = int((placement.gpu_of_expert != previous.gpu_of_expert).sum())
    assert moved >= 2
    if "max_moves" in options or "move_price" in options:
        # By hand: each server is full and must give one of its layer's 4 experts away.
        assert moved == 2


def test_a_repair_beyond_the_budget_says_what_it_takes() -> None:
    """With one move: at least two are named."""
    problem, previous = broken()
    with pytest.raises(InfeasibleError, match=r"max_moves 1 is too small.*at least 2 moves"):
        LocalSearch(previous=previous, max_moves=1)(problem)
