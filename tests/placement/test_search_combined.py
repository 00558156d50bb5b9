"""Every combination of {hops, copies} x beta x replicas x moves, against all arrangements."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from placement import InfeasibleError, Placement, PlacementProblem, evaluate
from placement.search.base import base_of
from placement.search.candidates import candidates
from placement.search.items import items_of
from placement.search.layer_items import came_from
from placement.search.local_search import LocalSearch
from placement.slots import place_on_gpus
from workloads import ExpertProfile

if TYPE_CHECKING:
    from collections.abc import Iterator

GPUS, EXPERTS, SLOTS = 3, 4, 6
TERMS: dict[str, dict[str, Any]] = {
    "hops": {"hops": 1.0},
    "copies": {"hops": 0.0, "copies": 1.0},
    "both": {"hops": 0.3, "copies": 2.0, "hop_weighted": True},
}
BETAS: dict[str, dict[str, Any]] = {
    "free": {},
    "hard": {"beta": 1.25},
    "priced": {"beta": 1.1, "beta_price": 0.8},
}
MOVES: dict[str, dict[str, Any]] = {
    "new": {},
    "any": {"move_price": 0.0},
    "most": {"max_moves": 2},
    "price": {"move_price": 0.15},
}


def make_problem(seed: int, layers: int = 1) -> PlacementProblem:
    """Build `layers` x 4 experts on 3 servers of 1 GPU, 24 tokens of top-2, loads near enough."""
    rng = np.random.default_rng(seed)
    weight = np.array([0.34, 0.26, 0.22, 0.18])
    topk = np.array(
        [
            [rng.choice(EXPERTS, 2, replace=False, p=weight) for _ in range(layers)]
            for _ in range(24)
        ]
    )
    count = np.stack([np.bincount(topk[:, at].ravel(), minlength=EXPERTS) for at in range(layers)])
    return PlacementProblem(
        model="tiny",
        cost=rng.permutation(np.tile([1.0, 2.5, 4.0], (layers, 1)), axis=1),
        profile=ExpertProfile(load=count / count.sum(1, keepdims=True), source="t", choices=topk),
        top_k=2,
        gpus_per_server=1,
        layer_slots=2,
        server_slots=2 * layers,
    )


def make_previous(problem: PlacementProblem, seed: int) -> Placement:
    """Put experts on random GPUs, at most 2 of a layer on one."""
    rng = np.random.default_rng(seed)
    seats = np.repeat(np.arange(GPUS), 2)
    gpu = np.stack([rng.permutation(seats)[:EXPERTS] for _ in range(problem.layers)])
    return place_on_gpus(problem, gpu, policy="previous")


def make_search(seed: int, names: tuple[str, str, str], redundant: int, **more: Any) -> LocalSearch:
    """Combine the options of that name on the problem of that seed; `more` comes last."""
    terms, beta, moves = names
    options: dict[str, Any] = TERMS[terms] | BETAS[beta] | MOVES[moves]
    if moves != "new":
        problem = make_problem(seed, more.pop("layers", 1))
        options["previous"] = make_previous(problem, seed)
    more.pop("layers", 0)
    if redundant:
        options["redundant"] = redundant
    return LocalSearch(**(options | {"starts": 10, "proposals": 300} | more))


def arrangements(
    search: LocalSearch, problem: PlacementProblem, at: int
) -> Iterator[tuple[float, int, float, bool]]:
    """Yield value, moves, hottest GPU and whether it is the start, for all without doubles."""
    base = base_of(search, problem, candidates(search, problem, lambda: None)[0]()).placement
    items = list(items_of(base))[at]
    came = None
    if search.previous is not None:
        came = came_from(items, list(items_of(search.previous))[at], 1)
    load = problem.profile.load[at][items.expert] / np.bincount(items.expert)[items.expert]
    choices = problem.profile.choices
    assert choices is not None
    tokens = items.of_choices(choices[:, at])
    seats = np.repeat(np.arange(GPUS), 2).tolist()
    for place in sorted({seat[: len(load)] for seat in permutations(seats)}):
        if len(set(zip(items.expert.tolist(), place, strict=True))) < len(place):
            continue
        cost, heat = problem.cost[at], np.zeros(GPUS)
        for i, p in enumerate(place):
            heat[p] += load[i] * GPUS
        value = search.hops * 2 * sum(load[i] * cost[p] for i, p in enumerate(place))
        for token in tokens.tolist():
            met = {place[i] for i in token}
            copies = sum(cost[p] if search.hop_weighted else 1.0 for p in met)
            value += search.copies * copies / len(tokens)
        if search.beta_price is not None and search.beta is not None:
            value += search.beta_price * sum(max(0.0, h - search.beta) for h in heat)
        moves = (
            0 if came is None else sum(c not in (-1, p) for c, p in zip(came, place, strict=True))
        )
        value += search.move_price * problem.layers * moves
        yield float(value), moves, float(heat.max()), list(place) == items.gpu.tolist()


def allowed(search: LocalSearch, hottest: float) -> bool:
    """Whether a hard cap, if there is one, is kept."""
    hard = search.beta is not None and search.beta_price is None
    return not hard or hottest <= (search.beta or 0.0) + 1e-9


def brute_force(search: LocalSearch, problem: PlacementProblem) -> float | None:
    """Least objective of all arrangements of all layers under all caps; None if there is none."""
    best = {0: 0.0}
    for at in range(problem.layers):
        by_moves: dict[int, float] = {}
        for value, moves, hottest, _ in arrangements(search, problem, at):
            if allowed(search, hottest):
                by_moves[moves] = min(value, by_moves.get(moves, np.inf))
        sums = [(m + n, a + b) for m, a in best.items() for n, b in by_moves.items()]
        best = {m: min(total for k, total in sums if k == m) for m, _ in sums}
    most = np.inf if search.max_moves is None else search.max_moves
    return min((v / problem.layers for m, v in best.items() if m <= most), default=None)


def start_value(search: LocalSearch, problem: PlacementProblem) -> float:
    """Objective of the start; infinity where it breaks a cap."""
    total = 0.0
    for at in range(problem.layers):
        own = [x for x in arrangements(search, problem, at) if x[3]]
        total += own[0][0] if own and allowed(search, own[0][2]) else np.inf
    return total / problem.layers


@pytest.mark.parametrize("redundant", [0, 2])
@pytest.mark.parametrize("moves", MOVES)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("terms", TERMS)
def test_reaches_the_best_of_all_arrangements(
    terms: str, beta: str, moves: str, redundant: int
) -> None:
    """Least objective, a bound below it, never above the start; refused only where nothing fits."""
    for seed in range(2):
        problem = make_problem(seed)
        search = make_search(seed, (terms, beta, moves), redundant)
        try:
            best = brute_force(search, problem)
        except InfeasibleError:
            best = None
        if best is None:
            with pytest.raises(InfeasibleError):
                search(problem)
            continue
        placement = search(problem)
        assert placement.solve is not None and placement.solve.bound is not None  # noqa: PT018
        assert placement.solve.objective == pytest.approx(best, rel=1e-9)
        assert placement.solve.bound <= best + 1e-9
        assert best <= start_value(search, problem) + 1e-9
        assert placement.redundant == redundant
        if terms == "hops" and beta != "priced" and moves in ("new", "any", "most"):
            hops = evaluate(placement, problem).hops_per_token_layer
            assert hops == pytest.approx(best)


@pytest.mark.parametrize("redundant", [0, 2])
@pytest.mark.parametrize("beta", ["free", "priced"])
@pytest.mark.parametrize("terms", TERMS)
def test_a_budget_over_two_layers(terms: str, beta: str, redundant: int) -> None:
    """Shared budgets are kept and lie between the bound and the start."""
    for seed in range(2):
        problem = make_problem(seed, 2)
        search = make_search(seed, (terms, beta, "most"), redundant, layers=2)
        best = brute_force(search, problem)
        placement = search(problem)
        assert best is not None
        assert placement.solve is not None and placement.solve.bound is not None  # noqa: PT018
        assert placement.solve.bound <= best + 1e-9
        assert best - 1e-9 <= placement.solve.objective
        assert placement.solve.objective <= start_value(search, problem) + 1e-9


def test_every_option_matters_to_the_oracle() -> None:
    """Brute force with an option taken away gives another optimum: a wrong answer is noticed."""
    for drop in (
        {"copies": 0.0},
        {"hops": 0.0},
        {"beta": None, "beta_price": None},
        {"move_price": 0.0},
        {"redundant": None},
    ):
        found = []
        for seed in range(3):
            problem = make_problem(seed)
            search = make_search(seed, ("both", "priced", "price"), 2)
            found.append(
                brute_force(search, problem) != brute_force(replace(search, **drop), problem)  # type: ignore[arg-type]
            )
        assert any(found), drop


def renamed(problem: PlacementProblem, server: np.ndarray, expert: np.ndarray) -> PlacementProblem:
    """Give servers and experts other numbers."""
    choices = problem.profile.choices
    assert choices is not None
    load = np.empty_like(problem.profile.load)
    load[:, expert] = problem.profile.load
    cost = np.empty_like(problem.cost)
    cost[:, server] = problem.cost
    profile = ExpertProfile(load=load, source="renamed", choices=expert[choices])
    return replace(problem, cost=cost, profile=profile)


@pytest.mark.parametrize("moves", MOVES)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("terms", "redundant"), [("hops", 0), ("hops", 2), ("both", 0)])
def test_names_do_not_matter(terms: str, redundant: int, beta: str, moves: str) -> None:
    """Servers and experts renamed: the same objective, or refused as before."""
    # Which replica a token is dealt to depends on names, so copies are compared without.
    rng = np.random.default_rng(1)
    for seed in range(2):
        problem = make_problem(seed)
        search = make_search(seed, (terms, beta, moves), redundant)
        server, expert = rng.permutation(GPUS), rng.permutation(EXPERTS)
        other = renamed(problem, server, expert)
        twin = search
        if search.previous is not None:
            old = search.previous
            twin = replace(
                search,
                previous=replace(
                    old, slot_gpu=server[old.slot_gpu], slot_expert=expert[old.slot_expert]
                ),
            )
        outcome = []
        for each, task in ((search, problem), (twin, other)):
            try:
                report = each(task).solve
                assert report is not None
                outcome.append(report.objective)
            except InfeasibleError:
                outcome.append(np.inf)
        assert outcome[0] == pytest.approx(outcome[1])
