"""What searches that start elsewhere than at a placement promise of it, and other certificates."""

from __future__ import annotations

import numpy as np
import pytest
from conformance_cases import (
    CASES,
    TIE_FREE,
    Case,
    expert_order,
    rename_experts,
    rename_servers,
    server_order,
)
from conformance_judges import place_load, priced_hops, ruled_load

from placement import IlpLoad, make_policy
from placement.balance import Balanced, Places, spread_gpus
from placement.balance.relaxation import solve_relaxation
from placement.balance.start import start
from placement.congestion import LeastCongestion
from placement.field import Eplb
from placement.field.eplb import doubled_cells
from placement.replicas import Replicated
from placement.slots import place_on_gpus
from workloads import coactivation

EVERY = (*CASES.values(), *TIE_FREE)


def names(case: Case) -> str:
    """Name a case in a test id."""
    return case.name


def longest_first(case: Case, redundant: int) -> np.ndarray | None:
    """Busiest GPU of every layer over the mean, water-filled and dealt longest first.

    A redundant slot goes to the expert with the most load a slot; a slot, heaviest first, to the
    coolest GPU with room and without its expert. None if one finds no such GPU.
    """
    experts, gpus = case.problem.experts, case.gpus
    busiest = []
    for load in case.problem.profile.load:
        count = np.ones(experts, dtype=int)
        for _ in range(redundant):
            count[np.argmax(np.where(count < gpus, load / count, -1.0))] += 1
        heat, held = np.zeros(gpus), [set() for _ in range(gpus)]
        for expert in np.argsort(-load / count, kind="stable"):
            for _ in range(count[expert]):
                open_to = [
                    g
                    for g in range(gpus)
                    if len(held[g]) < (experts + redundant) // gpus and expert not in held[g]
                ]
                if not open_to:
                    return None
                at = min(open_to, key=lambda g: heat[g])
                heat[at] += load[expert] / count[expert] * gpus
                held[at].add(expert)
        busiest.append(heat.max())
    return np.array(busiest)


@pytest.mark.parametrize("case", EVERY, ids=names)
def test_replicated_balances_no_worse_than_its_start_and_eplb(case: Case) -> None:
    """The lightest found is below water-filling dealt longest first, and EPLB, in every layer."""
    policy = Replicated(case.redundant, steps=300)
    result = policy.replicate(case.problem)
    found = place_load(result.lightest, case, "gpu").max(axis=1)
    np.testing.assert_allclose(found, result.least, rtol=1e-9)
    assert (result.bound <= found * (1 + 1e-9)).all()
    assert (ruled_load(result.placement, case, policy) <= result.cap * (1 + 1e-9)).all()
    dealt = longest_first(case, case.redundant)
    assert dealt is None or (found <= dealt * (1 + 1e-9)).all()
    eplb = Eplb(case.redundant, hierarchical=False)(case.problem)
    if not doubled_cells(eplb):
        assert found.mean() <= place_load(eplb, case, "gpu").max(axis=1).mean() * (1 + 1e-9)


def test_longest_first_can_be_beaten() -> None:
    """The start is no optimum everywhere, so that being no worse says something."""
    gains = []
    for case in EVERY:
        dealt = longest_first(case, case.redundant)
        if dealt is not None:
            least = Replicated(case.redundant, steps=300).replicate(case.problem).least
            gains.append(float((dealt - least).max()))
    assert max(gains) > 0.01


@pytest.mark.parametrize("scope", ["server", "gpu"])
@pytest.mark.parametrize("case", EVERY, ids=names)
def test_balanced_is_no_worse_than_its_rounding(case: Case, scope: str) -> None:
    """Priced, where every rounding is allowed: the objective is at most the rounding's."""
    problem, beta, price = case.problem, 1.1, 0.5
    policy = Balanced(beta, scope=scope, price=price, proposals=30)
    places = Places.of(problem, scope)
    sites = places.server.size
    cap = np.full(problem.layers, beta / sites)
    relaxed = solve_relaxation(
        problem, cap * places.per_server, price=price * sites / problem.top_k, time_limit_s=10.0
    )
    rounded = start(problem, places, relaxed, {})
    assert rounded is not None
    if scope == "server":
        first = problem.place(rounded, policy="rounded")
    else:
        first = place_on_gpus(problem, rounded, policy="rounded")
    objective = policy(problem).solve.objective
    assert objective <= priced_hops(first, case, policy) + 1e-9


@pytest.mark.parametrize("case", EVERY, ids=names)
def test_spread_is_no_worse_than_dealing_in_turn(case: Case) -> None:
    """The busiest GPU of a layer is at most that of experts dealt by id, and above its bound."""
    placement = IlpLoad()(case.problem)
    dealt = spread_gpus(case.problem, placement.server_of_expert)
    turns = place_load(placement, case, "gpu").max(axis=1) / case.gpus
    assert (dealt.busiest <= turns * (1 + 1e-9)).all()
    assert (dealt.bound <= dealt.busiest * (1 + 1e-9)).all()


@pytest.mark.parametrize("case", EVERY, ids=names)
def test_pairs_keep_no_fewer_than_runs_by_load(case: Case) -> None:
    """Collaborative pairs keep at least what experts in order of load, in runs, keep."""
    problem = case.problem
    grouped = make_policy("pairs")(problem).gpu_of_expert
    weight = coactivation(problem.profile.choices, problem.experts)
    for layer, load in enumerate(problem.profile.load):
        counts = np.bincount(grouped[layer], minlength=case.gpus)
        runs = np.empty(problem.experts, dtype=int)
        runs[np.argsort(-load, kind="stable")] = np.repeat(np.arange(case.gpus), counts)
        kept = [weight[layer][np.equal.outer(row, row)].sum() for row in (grouped[layer], runs)]
        assert kept[0] >= kept[1]


@pytest.mark.parametrize("links", ["all", "fabric"])
@pytest.mark.parametrize("case", EVERY, ids=names)
def test_congestion_is_certified(case: Case, links: str) -> None:
    """The seconds are those of the placement's loads on the links, and no less than the bound."""
    result = LeastCongestion(links).solve(case.links)
    load = place_load(result.placement, case, "gpu") / case.gpus
    seconds = case.links.links.seconds(load)
    if links == "fabric":
        seconds = seconds[:, :, np.unique(case.links.links.fabric_link)]
    busiest = seconds.max(axis=2, initial=0.0).sum(axis=1)
    for layer, expected in zip(result.layers, busiest, strict=True):
        assert layer.objective_s == pytest.approx(expected, rel=1e-9, abs=1e-18)
        assert layer.bound_s <= expected * (1 + 1e-9) + 1e-18
    assert result.objective_s == pytest.approx(busiest.sum(), rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("links", ["all", "fabric"])
@pytest.mark.parametrize("case", TIE_FREE, ids=names)
def test_bounds_on_congestion_know_no_names(case: Case, links: str) -> None:
    """The bound in seconds is equal when servers, with their links, or experts are renamed."""
    bound = LeastCongestion(links).solve(case.links).bound_s
    servers = rename_servers(case, server_order(case))
    experts = rename_experts(case, expert_order(case))
    for renamed in (servers, experts):
        again = LeastCongestion(links).solve(renamed.links).bound_s
        assert again == pytest.approx(bound, rel=1e-9)
