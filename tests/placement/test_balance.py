"""Balanced placements against brute force, their bound, and recorded figures (FACTS, section 1)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from placement import InfeasibleError, Pipelined, PlacementError, PlacementProblem, evaluate
from placement.balance import Balanced, pareto
from placement.balance.caps import Places, layer_caps, least_maximum_bound
from placement.balance.relaxation import solve_relaxation
from topologies import Router, preset
from workloads import ExpertProfile, model
from workloads.readers import read_logical_count

if TYPE_CHECKING:
    from pathlib import Path

ROUNDING = 1e-9


def make_problem(
    cost: np.ndarray,
    counts: np.ndarray,
    layer_slots: int,
    server_slots: int,
    *,
    gpus: int = 1,
) -> PlacementProblem:
    """Build a top-1 problem from integer counts."""
    load = counts / counts.sum(axis=1, keepdims=True)
    return PlacementProblem(
        model="tiny",
        cost=np.asarray(cost, dtype=float),
        profile=ExpertProfile(load=load, source="test"),
        top_k=1,
        gpus_per_server=gpus,
        layer_slots=layer_slots,
        server_slots=server_slots,
    )


@dataclass(frozen=True)
class Exhausted:
    """Every assignment of experts to places that keeps the count caps, and what it costs."""

    heat: np.ndarray
    hops: np.ndarray

    def best(self, cap: np.ndarray) -> float:
        """Fewest hops with every layer's hottest place within `cap` [layers]; inf if none."""
        within = (self.heat.max(axis=2) <= cap * (1 + ROUNDING)).all(axis=1)
        return float(self.hops[within].min(initial=np.inf))

    def best_priced(self, cap: float, price: float) -> float:
        """Least hops plus priced excess."""
        layers, places = self.heat.shape[1:]
        excess = np.maximum(self.heat - cap, 0).sum(axis=(1, 2)) * places / layers
        return float((self.hops + price * excess).min())


def exhaust(problem: PlacementProblem, scope: str = "server") -> Exhausted:
    """Try every assignment of every expert of every layer to a server or GPU."""
    each = problem.gpus_per_server if scope == "gpu" else 1
    places, cells = problem.servers * each, problem.layers * problem.experts
    every = np.array(list(itertools.product(range(places), repeat=cells)))
    place = every.reshape(-1, problem.layers, problem.experts)
    sits = place[..., None] == np.arange(places)
    on_server = place[..., None] // each == np.arange(problem.servers)
    fits = (sits.sum(axis=2) <= -(-problem.layer_slots // each)).all(axis=(1, 2))
    fits &= (sits.sum(axis=(1, 2)) <= -(-problem.server_slots // each)).all(axis=1)
    fits &= (on_server.sum(axis=2) <= problem.layer_slots).all(axis=(1, 2))
    fits &= (on_server.sum(axis=(1, 2)) <= problem.server_slots).all(axis=1)
    load = problem.profile.load
    heat = np.einsum("le,alep->alp", load, sits[fits].astype(float))
    there = np.einsum("le,ales->als", load, on_server[fits].astype(float))
    hops = np.einsum("als,ls->a", there, problem.cost) * problem.top_k / problem.layers
    return Exhausted(heat=heat, hops=hops)


def server_heat(problem: PlacementProblem, place: np.ndarray, places: int) -> np.ndarray:
    """Load of every place, the long way."""
    heat = np.zeros((problem.layers, places))
    for layer in range(problem.layers):
        for expert in range(problem.experts):
            heat[layer, place[layer, expert]] += problem.profile.load[layer, expert]
    return heat


@st.composite
def problems(draw: st.DrawFn) -> PlacementProblem:
    """Tiny feasible problems: at most 3 ** 8 assignments."""
    layers, experts, servers = draw(
        st.sampled_from([(1, 4, 2), (1, 5, 3), (2, 3, 3), (2, 4, 2), (1, 6, 3), (3, 3, 2)])
    )
    draws = st.lists(st.integers(0, 4), min_size=layers * servers, max_size=layers * servers)
    cost = np.array(draw(draws)).reshape(layers, servers)
    counts = st.lists(st.integers(1, 9), min_size=layers * experts, max_size=layers * experts)
    layer_slots = draw(st.integers(-(-experts // servers), experts))
    least = -(-layers * experts // servers)
    server_slots = draw(st.integers(least, least + 2))
    assume(servers * min(server_slots, layers * layer_slots) >= layers * experts)
    loads = np.array(draw(counts), dtype=float).reshape(layers, experts)
    return make_problem(cost, loads, layer_slots, server_slots)


@pytest.mark.parametrize("seed", [4, 5, 8])
def test_places_of_uneven_counts_keep_the_servers_cap(seed: int) -> None:
    """GPUs of 2 slots on servers that take 3 of a layer: C_layer holds, with C_exp to spare."""
    rng = np.random.default_rng(seed)
    cost, counts = rng.integers(0, 9, (3, 3)), rng.pareto(1, (3, 6)) + 0.01
    problem = make_problem(cost, counts, 3, 18, gpus=2)
    problem.check(Balanced(2.5, scope="gpu", price=5.0)(problem))


@settings(max_examples=60, deadline=None)
@given(problem=problems(), beta=st.sampled_from([1.0, 1.2, 1.5, 2.0]))
def test_hard_beta_against_brute_force(problem: PlacementProblem, beta: float) -> None:
    """The caps hold, the bound is below the best of all assignments, a refusal is true."""
    cap = np.full(problem.layers, beta / problem.servers)
    best = exhaust(problem).best(cap)
    try:
        placement = Balanced(beta, proposals=300)(problem)
    except InfeasibleError as refused:
        said = str(refused)
    else:
        said = None
    if said is not None:
        assert best == np.inf or "cannot be met" not in said
        return
    report = placement.solve
    assert report is not None
    assert report.bound_hops is not None
    heat = server_heat(problem, placement.server_of_expert, problem.servers)
    assert heat.max() <= cap[0] * (1 + ROUNDING)
    assert report.bound_hops <= best + 1e-7
    assert report.objective_hops >= best - 1e-9
    hops = evaluate(placement, problem).hops_per_token_layer
    assert hops == pytest.approx(report.objective_hops)


@pytest.mark.parametrize("seed", range(40))
def test_search_ends_at_the_best(seed: int) -> None:
    """On tiny problems, hard or relaxed, the best of all assignments is found."""
    rng = np.random.Generator(np.random.PCG64(seed))
    layers, experts, servers = ((2, 4, 2), (3, 3, 2), (1, 6, 3), (2, 3, 3))[seed % 4]
    slots = -(-experts // servers)
    problem = make_problem(
        rng.integers(0, 5, (layers, servers)),
        rng.integers(1, 10, (layers, experts)).astype(float),
        int(rng.integers(slots, experts + 1)),
        -(-layers * experts // servers) + int(rng.integers(0, 2)),
    )
    caps = layer_caps(problem, 1.3, relax=True)
    best = exhaust(problem).best(caps.cap)
    relaxed = Balanced(1.3, relax=True, proposals=300)(problem).solve
    assert relaxed is not None
    # Layers may be unable to reach their least maxima together, under C_exp.
    if best < np.inf:
        assert relaxed.objective_hops == pytest.approx(best)
    hard = exhaust(problem).best(np.full(layers, 1.3 / servers))
    if hard < np.inf:
        found = Balanced(1.3, proposals=300)(problem).solve
        assert found is not None
        assert found.objective_hops == pytest.approx(hard)
    priced = Balanced(1.3, price=1.0, proposals=300)(problem).solve
    assert priced is not None
    assert priced.objective_hops == pytest.approx(exhaust(problem).best_priced(1.3 / servers, 1.0))


@settings(max_examples=40, deadline=None)
@given(problem=problems(), beta=st.sampled_from([1.0, 1.2, 1.5]))
def test_relaxed_layers_have_their_least_maximum(problem: PlacementProblem, beta: float) -> None:
    """A layer that cannot meet beta gets the least maximum of all packings as cap, no other."""
    caps = layer_caps(problem, beta, relax=True)
    everything = exhaust(
        PlacementProblem(
            model="tiny",
            cost=problem.cost[:1],
            profile=ExpertProfile(load=problem.profile.load[:1], source="test"),
            top_k=1,
            gpus_per_server=1,
            layer_slots=problem.layer_slots,
            server_slots=problem.experts,
        )
    )
    least = everything.heat.max(axis=2).min()
    assert caps.cap[0] == pytest.approx(max(beta / problem.servers, least))
    assert least_maximum_bound(problem, Places.of(problem, "server"))[0] <= least + ROUNDING
    assert (caps.least_bound <= caps.least + ROUNDING).all()


@settings(max_examples=30, deadline=None)
@given(problem=problems(), price=st.sampled_from([0.0, 0.1, 1.0, 20.0]))
def test_priced_excess_against_brute_force(problem: PlacementProblem, price: float) -> None:
    """The bound is below the least hops plus priced excess, and the policy is not."""
    report = Balanced(1.2, price=price, proposals=300)(problem).solve
    best = exhaust(problem).best_priced(1.2 / problem.servers, price)
    assert report is not None
    assert report.bound_hops is not None
    assert report.bound_hops <= best + 1e-7
    assert report.objective_hops >= best - 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_gpu_scope_equals_brute_force(seed: int) -> None:
    """Capping the load of GPUs finds the best of all assignments to GPUs."""
    rng = np.random.Generator(np.random.PCG64(seed))
    problem = make_problem(
        rng.integers(0, 5, (1, 2)), rng.integers(1, 9, (1, 6)).astype(float), 5, 5, gpus=2
    )
    cap = layer_caps(problem, 1.3, relax=True, scope="gpu").cap
    best = exhaust(problem, "gpu").best(cap)
    placement = Balanced(1.3, relax=True, scope="gpu", proposals=300)(problem)
    assert placement.solve is not None
    assert placement.solve.bound_hops is not None
    assert placement.solve.bound_hops <= best + 1e-7
    assert placement.solve.objective_hops == pytest.approx(best)
    assert server_heat(problem, placement.gpu_of_expert, 4).max() <= cap[0] * (1 + ROUNDING)


def test_brute_force_would_notice_a_wrong_answer() -> None:
    """The oracle rejects assignments that are too hot, and a bound above its best is caught."""
    # Loads 4, 3, 2, 1 of 10 on two servers at 0 and 2 hops, mean 5. Cap 5: {4, 1} and {3, 2},
    # 0.5 * 2 = 1 hop. Cap 7: {4, 3} near, 0.3 * 2 = 0.6.
    problem = make_problem(np.array([[0, 2]]), np.array([[4.0, 3, 2, 1]]), 2, 2)
    every = exhaust(problem)
    assert every.best(np.array([0.5])) == pytest.approx(1.0)
    assert every.best(np.array([0.7])) == pytest.approx(0.6)
    assert every.best(np.array([0.49])) == np.inf
    assert every.best_priced(0.5, 0.0) == pytest.approx(0.6)
    # 0.2 above the cap are 0.4 mean loads: at 2 hops each dearer than the 0.4 hops they save.
    assert every.best_priced(0.5, 2.0) == pytest.approx(1.0)
    loose, tight = (Balanced(beta)(problem).solve for beta in (1.4, 1.0))
    assert loose is not None
    assert tight is not None
    assert tight.objective_hops == pytest.approx(1.0)
    assert loose.objective_hops < every.best(np.array([0.5])) - 0.3


def test_count_caps_hold_where_both_bind() -> None:
    """Twenty layers whose slots leave no room: no server above C_layer or C_exp, GPUs alike."""
    rng = np.random.Generator(np.random.PCG64(2))
    load = rng.pareto(1.5, (20, 24)) + 0.1
    problem = make_problem(rng.integers(0, 5, (20, 6)), load, 7, 80, gpus=2)
    for scope in ("server", "gpu"):
        placement = Balanced(1.3, relax=True, scope=scope, proposals=100)(problem)
        per_layer = [np.bincount(row, minlength=6) for row in placement.server_of_expert]
        assert np.max(per_layer) <= 7
        assert np.sum(per_layer, axis=0).max() == 80
        on_gpu = np.array([np.bincount(row, minlength=12) for row in placement.gpu_of_expert])
        assert on_gpu.max() <= 4
        assert on_gpu.sum(axis=0).max() == 40
        places = placement.server_of_expert if scope == "server" else placement.gpu_of_expert
        cap = layer_caps(problem, 1.3, relax=True, scope=scope).cap
        heat = server_heat(problem, places, 6 if scope == "server" else 12)
        assert (heat.max(axis=1) <= cap * (1 + ROUNDING)).all()


def test_same_problem_same_placement() -> None:
    """Two policies of the same seed place the same."""
    rng = np.random.Generator(np.random.PCG64(3))
    problem = make_problem(rng.integers(0, 5, (4, 4)), rng.pareto(1.5, (4, 16)) + 0.1, 8, 16)
    assert Balanced(1.5, relax=True)(problem) == Balanced(1.5, relax=True)(problem)


def test_impossible_beta_says_what_would_do() -> None:
    """The error names layer, expert, the least beta that works and the replicas that would."""
    # Two servers, mean 0.5; in layer 1 expert 2 carries 0.8 and must take the coldest, 0.05.
    counts = np.array([[5.0, 5, 5, 5], [10, 5, 80, 5]])
    problem = make_problem(np.zeros((2, 2)), counts, 2, 4)
    with pytest.raises(InfeasibleError) as error:
        Balanced(1.2)(problem)
    # 0.8 / (0.6 - 0.05) = 1.45: two replicas of at most 0.55 each beside the coldest.
    assert str(error.value) == (
        "beta 1.2 cannot be met in layer 1: expert 2 alone carries 1.6 x the mean server load, "
        "1.7 x with the coldest that must sit beside it; the least workable beta found is 1.7000, "
        "or 2 replicas of that expert"
    )
    assert Balanced(1.7)(problem).solve is not None
    relaxed = Balanced(1.2, relax=True)(problem)
    assert evaluate(relaxed, problem).balance_server == pytest.approx((1 + 1.7) / 2)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (lambda: Balanced(1.5, price=-1.0), "price must be a number of at least 0, got -1.0"),
        (lambda: Balanced(1.5, time_limit_s=0.0), "time_limit_s and proposals must be positive"),
        (lambda: Balanced(0.9), "beta must be a number of at least 1"),
        (lambda: Balanced(float("nan")), "beta must be a number of at least 1"),
        (lambda: Balanced(1.5, scope="rack"), "unknown scope 'rack'; allowed: server, gpu"),
    ],
)
def test_senseless_parameters(policy: object, message: str) -> None:
    """Each is refused in a line that says what was expected."""
    problem = make_problem(np.zeros((1, 2)), np.ones((1, 4)), 2, 2)
    with pytest.raises(PlacementError, match=message):
        policy()(problem)  # type: ignore[operator]


def test_a_time_limit_is_reported() -> None:
    """An anneal cut short says so, and its placement still keeps the caps."""
    rng = np.random.Generator(np.random.PCG64(4))
    problem = make_problem(rng.integers(0, 5, (8, 4)), rng.pareto(1.5, (8, 32)) + 0.1, 16, 64)
    placement = Balanced(1.5, relax=True, time_limit_s=0.02)(problem)
    assert placement.solve is not None
    assert placement.solve.limit == "time"
    cap = layer_caps(problem, 1.5, relax=True).cap
    heat = server_heat(problem, placement.server_of_expert, 4)
    assert (heat.max(axis=1) <= cap * (1 + ROUNDING)).all()


def test_front_trades_hops_for_balance() -> None:
    """A looser cap costs no more hops; points come sorted by beta."""
    rng = np.random.Generator(np.random.PCG64(5))
    problem = make_problem(rng.integers(0, 5, (4, 4)), rng.pareto(2, (4, 32)) + 0.1, 16, 32)
    front = pareto(problem, (3.0, 1.2, 1.6))
    assert [point.beta for point in front] == [1.2, 1.6, 3.0]
    for tight, loose in itertools.pairwise(front):
        assert loose.bound <= tight.bound + 1e-9
        assert loose.hops <= tight.hops * 1.002
    assert all(point.bound <= point.hops + 1e-9 for point in front)
    assert front[0].balance < front[-1].balance


def r1_problem(data: Path, layer_slots: int) -> PlacementProblem:
    """Build the facts' problem: R1 decode 1000/1000, 32 servers of 8 GPUs, C_exp 464."""
    r1 = model("DeepSeek-R1")
    return PlacementProblem.build(
        r1,
        Router(preset("facts-fat-tree").spec.build()).server_distance(),
        Pipelined(r1.layers, 32, 8),
        read_logical_count(data / "deepseek-r1-loads" / "decode_in1000out1000.json", r1),
        gpus_per_server=8,
        layer_slots=layer_slots,
        server_slots=464,
    )


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("layer_slots", "beta", "bound"),
    [(8, 1.1, 72.93), (8, 1.25, 69.82), (8, 1.5, 65.51), (16, 1.5, 64.64), (16, 2.0, 54.28)],
)
def test_known_bounds(real_data: Path, layer_slots: int, beta: float, bound: float) -> None:
    """The relaxation reaches the known bounds, no layer relaxed (FACTS section 1)."""
    problem = r1_problem(real_data, layer_slots)
    relaxed = solve_relaxation(problem, np.full(problem.layers, beta / 32))
    assert relaxed.limit is None
    # Known to two decimals.
    assert relaxed.bound * problem.top_k / 58 / 256 == pytest.approx(bound, abs=0.005)


@pytest.mark.real_data
@pytest.mark.parametrize(("layer_slots", "beta"), [(8, 1.1), (16, 2.0)])
def test_gap_on_recorded_loads(real_data: Path, layer_slots: int, beta: float) -> None:
    """A short anneal ends within half a percent of the bound, every layer within its cap."""
    problem = r1_problem(real_data, layer_slots)
    placement = Balanced(beta, relax=True, proposals=200)(problem)
    assert placement.solve is not None
    assert placement.solve.gap is not None
    assert placement.solve.gap <= 0.005
    cap = layer_caps(problem, beta, relax=True).cap
    heat = server_heat(problem, placement.server_of_expert, 32)
    assert (heat.max(axis=1) <= cap * (1 + ROUNDING)).all()
