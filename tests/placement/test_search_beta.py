"""Load caps of the local search: met where they can be, named where not, or priced."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from placement import (
    Contiguous,
    InfeasibleError,
    Placement,
    PlacementError,
    PlacementProblem,
    evaluate,
)
from placement.balance import Balanced, Places, layer_caps
from placement.field.eplb import Eplb
from placement.search.copies import Scope, judged_loads
from placement.search.least_copies import LeastCopies
from placement.search.local_search import LocalSearch
from workloads import ExpertProfile


def make_problem(seed: int, **changed: int) -> PlacementProblem:
    """Build 3 layers x 10 experts on 2 servers of 2 GPUs with room, one hot expert each."""
    rng = np.random.default_rng(seed)
    weight = rng.pareto(1.5, 10) + 0.4
    draw = [[rng.choice(10, 2, replace=False, p=weight / weight.sum()) for _ in range(3)]]
    draw += [[rng.permutation(10)[:2] for _ in range(3)] for _ in range(80)]
    draw += draw[:1] * 40
    topk = np.array(draw)
    count = np.stack([np.bincount(topk[:, at].ravel(), minlength=10) for at in range(3)])
    shape = {"gpus_per_server": 2, "layer_slots": 8, "server_slots": 18} | changed
    return PlacementProblem(
        model="test",
        cost=rng.integers(1, 9, (3, 2)).astype(np.float64),
        profile=ExpertProfile(load=count / count.sum(1, keepdims=True), source="t", choices=topk),
        top_k=2,
        **shape,
    )


def hottest(placement: Placement, problem: PlacementProblem, scope: Scope) -> np.ndarray:
    """Hottest place over the mean [layers], counted from the tokens."""
    choices = problem.profile.choices
    assert choices is not None
    return judged_loads(placement, choices, scope=scope).max(axis=1)


SCOPES: tuple[Scope, ...] = ("gpu", "server")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("seed", range(3))
def test_the_least_beta_that_packing_meets_is_met(seed: int, scope: Scope) -> None:
    """However the search starts, it meets the least beta that the caps on counts allow."""
    problem = make_problem(seed)
    caps = layer_caps(problem, 1.0, relax=True, scope=scope)
    beta = float(caps.least.max()) * Places.of(problem, scope).server.size * (1 + 1e-9)
    previous = Contiguous()(problem)
    for search in (
        LeastCopies(beta=beta, scope=scope, proposals=60),
        LocalSearch(beta=beta, scope=scope, proposals=60),
        LocalSearch(beta=beta, scope=scope, proposals=60, base=Contiguous()),
        LocalSearch(beta=beta, scope=scope, proposals=60, previous=previous),
    ):
        placement = search(problem)
        problem.check(placement)
        assert hottest(placement, problem, scope).max() <= beta * (1 + 1e-9)
    # The equal counts of the start alone would not do: a cap as low on them is not met.
    if scope == "gpu":
        equal = layer_caps(replace(problem, layer_slots=6), 1.0, relax=True, scope=scope)
        assert equal.least.max() >= caps.least.max()


@pytest.mark.parametrize("scope", SCOPES)
def test_the_beta_named_works_for_all_layers(scope: Scope) -> None:
    """The message names layer, expert and a beta; that one is met, and nothing below the proof."""
    problem = make_problem(1)
    choices = problem.profile.choices
    assert choices is not None
    # Half of all choices in layer 1 are expert 3: a server's mean, and it needs company.
    chosen = choices.copy()
    chosen[:, 1] = np.stack((np.full(len(chosen), 3), 4 + np.arange(len(chosen)) % 6), axis=1)
    load = problem.profile.load.copy()
    load[1] = np.bincount(chosen[:, 1].ravel(), minlength=10) / chosen[:, 1].size
    load[1, :3] += 1e-3
    load /= load.sum(axis=1, keepdims=True)
    problem = replace(problem, profile=ExpertProfile(load=load, source="t", choices=chosen))
    with pytest.raises(InfeasibleError, match=r"in layer \d: expert \d alone carries") as caught:
        LeastCopies(beta=1.0, scope=scope, proposals=40)(problem)
    found = re.search(
        r"least workable beta found is (\d\.\d+)(?: \(proven.* (\d\.\d+)\))?", str(caught.value)
    )
    assert found is not None
    least = float(found[1])
    proven = float(found[2] or least - 1.5e-4)
    assert 1 <= proven <= least
    placement = LeastCopies(beta=least, scope=scope, proposals=40)(problem)
    judged = evaluate(placement, problem)
    mean = judged.balance_server if scope == "server" else judged.balance_gpu
    assert mean <= least * (1 + 1e-9)
    bound = layer_caps(problem, 1.0, relax=True, scope=scope).least_bound.max()
    assert proven <= bound * Places.of(problem, scope).server.size


def test_within_a_budget_a_beta_that_works_is_named() -> None:
    """Moves too few for beta: the beta named is below that of the start, and it works."""
    problem = make_problem(2)
    previous = Contiguous()(problem)
    search = LocalSearch(beta=1.0, previous=previous, max_moves=3, proposals=100)
    with pytest.raises(InfeasibleError, match=r"not met within 3 moves") as caught:
        search(problem)
    least = float(re.findall(r"found is (\d\.\d+)", str(caught.value))[0])
    # Three moves are one swap and a half: layer 2, the worst (1.570), is mended by the swap.
    assert hottest(previous, problem, "gpu").max() > 1.57 > least + 0.05
    placement = replace(search, beta=least)(problem)
    assert (placement.gpu_of_expert != previous.gpu_of_expert).sum() <= 3
    assert hottest(placement, problem, "gpu").max() <= least * (1 + 1e-9)


def test_replicas_that_cannot_meet_beta() -> None:
    """With replicas too the beta named works for all layers."""
    problem = make_problem(0)
    search = LocalSearch(beta=1.0, base=Eplb(redundant=2, hierarchical=False), proposals=60)
    with pytest.raises(InfeasibleError, match="least workable beta") as caught:
        search(problem)
    least = float(re.findall(r"found is (\d\.\d+)", str(caught.value))[0])
    placement = replace(search, beta=least)(problem)
    assert hottest(placement, problem, "gpu").max() <= least * (1 + 1e-9)


@pytest.mark.parametrize("scope", SCOPES)
def test_relaxed_layers_get_the_least_found(scope: Scope) -> None:
    """Relaxed, a layer is no hotter than beta or what `layer_caps` gives it."""
    problem = make_problem(1)
    caps = layer_caps(problem, 1.05, relax=True, scope=scope)
    most = caps.cap * Places.of(problem, scope).server.size
    for hops in (0.0, 1.0):
        search = LocalSearch(
            hops=hops, copies=1.0, beta=1.05, relax=True, scope=scope, proposals=40
        )
        assert (hottest(search(problem), problem, scope) <= most * (1 + 1e-9)).all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("price", [0.0, 0.3, 3.0, 100.0])
def test_a_price_gives_what_balanced_gives_or_better(scope: Scope, price: float) -> None:
    """Hops plus price x load above, as judged; between its bound and `Balanced` at that price."""
    problem = make_problem(3)
    search = LocalSearch(beta=1.2, beta_price=price, scope=scope, proposals=150)
    placement = search(problem)
    report, other = placement.solve, Balanced(1.2, scope=scope, price=price)(problem).solve
    assert report is not None and other is not None  # noqa: PT018
    assert report.bound is not None
    choices = problem.profile.choices
    assert choices is not None
    above = np.maximum(judged_loads(placement, choices, scope=scope) - 1.2, 0).sum(axis=1).mean()
    layer, server = placement.slot_layer, placement.slot_gpu // 2
    load = problem.profile.load[layer, placement.slot_expert]
    hops = 2 * float(load @ problem.cost[layer, server]) / 3
    assert report.objective == pytest.approx(hops + price * above)
    assert report.bound <= report.objective <= other.objective * (1 + 1e-9)


def test_the_dearer_the_less_above() -> None:
    """Load above the cap falls with its price, from the hop optimum's to none."""
    problem = make_problem(3)
    above = []
    for price in (0.0, 1.0, 1e3):
        placement = LocalSearch(beta=1.6, beta_price=price, scope="server", proposals=150)(problem)
        above.append(float(np.maximum(hottest(placement, problem, "server") - 1.6, 0).sum()))
    assert above[0] > 0
    assert above[0] >= above[1] >= above[2]
    assert above[2] < 1e-9


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"beta_price": 1.0}, "beta_price needs beta"),
        ({"beta": 1.2, "beta_price": -1.0}, "beta_price is -1.0; expected a finite number"),
        ({"beta": 1.2, "beta_price": 1.0, "relax": True}, "relax or beta_price, not both"),
    ],
)
def test_prices_that_mean_nothing(options: dict[str, object], expected: str) -> None:
    """Each is refused in one line when the policy is made."""
    for policy in (LocalSearch, LeastCopies):
        with pytest.raises(PlacementError, match=expected):
            policy(**options)  # type: ignore[operator]
