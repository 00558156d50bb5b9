"""Re-placement against brute force, a naive binary program and its own certificate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from placement import (
    InfeasibleError,
    Placement,
    PlacementProblem,
    Random,
)
from placement.highs import Program, solve
from placement.moves.fill import go_towards, spend_rest
from placement.moves.keep_flow import KeepFlow
from placement.moves.keep_gpus import keep_gpus
from placement.moves.replace import Replace
from placement.moves.search import MoveSearch, expert_network
from placement.naive import naive_program
from workloads import ExpertProfile


def make_problem(
    cost: np.ndarray, counts: np.ndarray, caps: tuple[int, int], gpus_per_server: int = 1
) -> PlacementProblem:
    """Build a top-1 problem from costs, counts and (C_layer, C_exp)."""
    return PlacementProblem(
        model="tiny",
        cost=cost,
        profile=ExpertProfile(load=counts / counts.sum(axis=1, keepdims=True), source="test"),
        top_k=1,
        gpus_per_server=gpus_per_server,
        layer_slots=caps[0],
        server_slots=caps[1],
    )


@st.composite
def cases(
    draw: st.DrawFn, experts: int = 5, layers: int = 3, servers: int = 4
) -> tuple[PlacementProblem, np.ndarray]:
    """Random problems whose costs tie and caps bind, and homes that may break the caps."""
    layers, experts = draw(st.integers(1, layers)), draw(st.integers(1, experts))
    servers = draw(st.integers(1, servers))
    rng = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32))))
    layer_slots = draw(st.integers(-(-experts // servers), experts))
    server_slots = -(-layers * experts // servers) + draw(st.integers(0, 2))
    assume(servers * min(server_slots, layers * layer_slots) >= layers * experts)
    cost = rng.integers(0, 5, (layers, servers)).astype(float)
    problem = make_problem(
        cost, rng.integers(1, 9, (layers, experts)).astype(float), (layer_slots, server_slots)
    )
    if draw(st.booleans()):
        return problem, rng.integers(0, servers, (layers, experts))
    return problem, Random()(problem).server_of_expert.astype(np.int64)


def placed(problem: PlacementProblem, server: np.ndarray) -> Placement:
    """Turn servers into a placement whether or not they keep the caps; GPU 0 of a server."""
    layer, expert = np.divmod(np.arange(server.size), problem.experts)
    return Placement(
        model=problem.model,
        layers=problem.layers,
        experts=problem.experts,
        gpus=problem.servers * problem.gpus_per_server,
        gpus_per_server=problem.gpus_per_server,
        slot_layer=layer,
        slot_gpu=server.ravel() * problem.gpus_per_server,
        slot_expert=expert,
        policy="previous",
    )


def naive_hops(
    problem: PlacementProblem, home: np.ndarray, *, moves: int | None = None, price: float = 0.0
) -> float | None:
    """Least hops + price x moves of L*E*S binaries, at most `moves` moves; None if infeasible."""
    program = naive_program(problem, integer=True)
    layers, experts, servers = problem.layers, problem.experts, problem.servers
    moved = np.arange(servers) != home.reshape(layers, experts, 1)
    scale = problem.top_k / layers / experts
    columns, row = program.cost.size, program.row_lower.size
    rows = np.column_stack((program.index.reshape(columns, 3), np.full(columns, row)))
    values = np.column_stack((program.value.reshape(columns, 3), moved.ravel()))
    limit = layers * experts if moves is None else moves
    result = solve(
        Program(
            cost=program.cost + price / scale * moved.ravel(),
            lower=program.lower,
            upper=program.upper,
            start=np.arange(0, 4 * columns + 1, 4, dtype=np.int32),
            index=rows.ravel().astype(np.int32),
            value=values.ravel().astype(float),
            row_lower=np.append(program.row_lower, 0.0),
            row_upper=np.append(program.row_upper, float(limit)),
            integer=True,
        )
    )
    return None if result.objective is None else result.objective * scale


def hops_of(problem: PlacementProblem, server: np.ndarray) -> float:
    """Expected hops per token and layer, the long way."""
    total = 0.0
    for layer, expert in itertools.product(range(problem.layers), range(problem.experts)):
        total += problem.profile.load[layer, expert] * problem.cost[layer, server[layer, expert]]
    return problem.top_k * total / problem.layers


def keeps_caps(problem: PlacementProblem, server: np.ndarray) -> bool:
    """Whether C_layer and C_exp hold."""
    counts = np.array([np.bincount(row, minlength=problem.servers) for row in server])
    fits = counts.max() <= problem.layer_slots and counts.sum(0).max() <= problem.server_slots
    return bool(fits)


@settings(max_examples=80, deadline=None)
@given(case=cases(), price=st.sampled_from([0.0, 0.01, 0.05, 0.3, 50.0]))
def test_priced_moves_equal_the_naive_binary_program(
    case: tuple[PlacementProblem, np.ndarray], price: float
) -> None:
    """Hops plus price times moves are the least possible, and proven so."""
    problem, home = case
    search = MoveSearch(problem, home)
    best = search.priced(price)
    total = hops_of(problem, best.server) + price * best.moved
    assert keeps_caps(problem, best.server)
    assert best.moved == (best.server != home).sum()
    assert total == pytest.approx(naive_hops(problem, home, price=price), abs=1e-6)
    assert search.bound(best.moved) == pytest.approx(hops_of(problem, best.server), abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(case=cases(), moves=st.integers(0, 15))
def test_limited_moves_against_the_naive_binary_program(
    case: tuple[PlacementProblem, np.ndarray], moves: int
) -> None:
    """The limit holds, and the true optimum lies between the bound and what was found."""
    problem, home = case
    best = naive_hops(problem, home, moves=moves)
    if best is None:
        with pytest.raises(InfeasibleError, match="keeping them takes at least"):
            Replace(placed(problem, home), max_moves=moves)(problem)
        return
    found = Replace(placed(problem, home), max_moves=moves)(problem)
    report = found.solve
    assert report is not None
    assert report.bound_hops is not None
    assert (found.server_of_expert != home).sum() <= moves
    assert keeps_caps(problem, found.server_of_expert)
    assert hops_of(problem, found.server_of_expert) == pytest.approx(report.objective_hops)
    assert report.bound_hops <= best + 1e-6
    assert best <= report.objective_hops + 1e-6


@settings(max_examples=30, deadline=None)
@given(case=cases(experts=3, layers=2, servers=3))
def test_limits_against_brute_force(case: tuple[PlacementProblem, np.ndarray]) -> None:
    """No assignment within the limit beats the bound; within all moves none beats the result."""
    problem, home = case
    shape = (problem.layers, problem.experts)
    every = [
        np.array(choice).reshape(shape)
        for choice in itertools.product(range(problem.servers), repeat=home.size)
    ]
    valid = [server for server in every if keeps_caps(problem, server)]
    best = [np.inf] * (home.size + 1)
    for server in valid:
        moved, hops = int((server != home).sum()), hops_of(problem, server)
        best[moved:] = [min(other, hops) for other in best[moved:]]
    search = MoveSearch(problem, home)
    least = min(int((server != home).sum()) for server in valid)
    assert search.fewest_moves() == least
    for moves in range(least, home.size + 1):
        found = search.within(moves)
        assert search.bound(moves) - 1e-9 <= best[moves]
        assert best[moves] - 1e-9 <= hops_of(problem, found.server)
    assert hops_of(problem, search.free().server) == pytest.approx(best[-1])
    # The hop optimum moves as few experts as any.
    assert search.free().moved == next(
        moves for moves, hops in enumerate(best) if hops <= best[-1] + 1e-12
    )


def test_brute_force_would_notice_a_wrong_answer() -> None:
    """The oracle's cost of staying, of the swap and of the limits, by hand."""
    # Servers at 0 and 2 hops, loads 3/4 and 1/4, the hot expert far: 3/4 * 2 = 1.5. Swapped 0.5.
    problem = make_problem(np.array([[0.0, 2.0]]), np.array([[3.0, 1.0]]), (1, 1))
    home = np.array([[1, 0]])
    assert hops_of(problem, home) == pytest.approx(1.5)
    assert [naive_hops(problem, home, moves=m) for m in (0, 1, 2)] == pytest.approx([1.5, 1.5, 0.5])
    # The swap saves 1.0 with two moves: worth it below 0.5 a move.
    assert naive_hops(problem, home, price=0.4) == pytest.approx(0.5 + 0.8)
    assert naive_hops(problem, home, price=0.6) == pytest.approx(1.5)
    # A result that stayed home although two moves were allowed is told from the optimum.
    lie = Replace(placed(problem, home), max_moves=1)(problem)
    assert hops_of(problem, lie.server_of_expert) != pytest.approx(0.5)
    assert not keeps_caps(problem, np.array([[0, 0]]))


@settings(max_examples=50, deadline=None)
@given(case=cases(), seed=st.integers(0, 99), price=st.floats(0, 3))
def test_any_prices_prove_a_bound(
    case: tuple[PlacementProblem, np.ndarray], seed: int, price: float
) -> None:
    """Room priced at random proves at most the optimum, and the solver's prices prove it all."""
    problem, home = case
    network = expert_network(problem, home)
    flow = KeepFlow(network)
    whole = int(price * flow.scale)
    result = flow.solve(whole)
    optimum = result.cost / flow.scale + whole / flow.scale * result.moved
    assert result.bound == pytest.approx(optimum, abs=1e-6)
    rng = np.random.Generator(np.random.PCG64(seed))
    cells, bins = len(network.cell_capacity), len(network.bin_capacity)
    for _ in range(5):
        prices = rng.exponential(size=cells), rng.exponential(size=bins)
        assert network.bound(whole / flow.scale, *prices) <= optimum + 1e-9


def test_a_bound_from_wrong_prices_is_caught() -> None:
    """Prices below zero "prove" more than an optimum costs; prices of zero prove too little."""
    # One free server with room for both experts beside a far one: staying costs nothing.
    problem = make_problem(np.array([[0.0, 2.0]]), np.array([[3.0, 1.0]]), (2, 2))
    network = expert_network(problem, np.array([[0, 0]]))
    assert network.bound(0.0, np.zeros(2), np.zeros(2)) == pytest.approx(0.0)
    assert network.bound(0.0, np.zeros(2), np.full(2, -1.0)) > 0
    # With room for one, the cold one must go: loads x experts 1.5 and 0.5, so 0.5 * 2 = 1.0.
    tight = make_problem(problem.cost, np.array([[3.0, 1.0]]), (1, 1))
    network = expert_network(tight, np.array([[0, 1]]))
    assert KeepFlow(network).solve(0).bound == pytest.approx(1.0)
    assert network.bound(0.0, np.zeros(2), np.zeros(2)) == pytest.approx(0.0)


def test_equal_savings_are_cut_where_the_limit_is() -> None:
    """Ten swaps that save alike: any even limit is reached exactly and proven best."""
    # Every layer has one hot expert far and one cold near: each swap saves 1/2 * 2 / 10 hops.
    problem = make_problem(np.tile([0.0, 2.0], (10, 1)), np.tile([1.0, 3.0], (10, 1)), (1, 10))
    previous = placed(problem, np.tile([0, 1], (10, 1)))
    for moves in range(21):
        report = Replace(previous, max_moves=moves)(problem).solve
        assert report is not None
        assert report.objective_hops == pytest.approx(1.5 - 0.1 * (moves // 2))
        # Half a swap more would be 0.05 less, which the bound cannot exclude.
        assert report.bound_hops == pytest.approx(1.5 - 0.05 * moves)
        assert report.status == ("optimal" if moves % 2 == 0 else "feasible")


def test_a_way_between_optima_keeps_the_caps() -> None:
    """Whatever part of the way is taken, counts stay between those of both ends."""
    rng = np.random.Generator(np.random.PCG64(5))
    for _ in range(50):
        left, right, home = (rng.integers(0, 5, (4, 7)) for _ in range(3))
        most = int((left != home).sum()) + int(rng.integers(0, 12))
        found = go_towards(left, right, home, most)
        assert (found != home).sum() <= most
        assert ((found == left) | (found == right)).all()
        counts = [
            np.array([np.bincount(row, minlength=5) for row in server])
            for server in (left, found, right)
        ]
        for low, mid, high in (counts, [count.sum(axis=0) for count in counts]):
            assert (np.minimum(low, high) <= mid).all()
            assert (mid <= np.maximum(low, high)).all()


def test_the_last_moves_are_spent_on_the_best_exchange() -> None:
    """Two moves buy the swap that saves most, one move only a relocation to a free slot."""
    # Loads .5 .3 .2 at servers 2, 1, 0 hops away: swapping the ends saves (.5 - .2) * 2 = 0.6.
    problem = make_problem(np.array([[2.0, 1.0, 0.0]]), np.array([[5.0, 3.0, 2.0]]), (1, 1))
    home = np.array([[0, 1, 2]])
    assert spend_rest(problem, home, home, 2).tolist() == [[2, 1, 0]]
    assert spend_rest(problem, home, home, 1).tolist() == [[0, 1, 2]]
    # Room for two: the hottest goes to the nearest, which saves .5 * 2 = 1.0 with one move.
    roomy = make_problem(problem.cost, np.array([[5.0, 3.0, 2.0]]), (2, 2))
    assert spend_rest(roomy, home, home, 1).tolist() == [[2, 1, 2]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_gpus_are_kept_as_brute_force_keeps_them(seed: int) -> None:
    """As few experts change GPUs as any choice within the caps of a GPU allows."""
    rng = np.random.Generator(np.random.PCG64(seed))
    # One server of 2 GPUs with 2 layers x 3 experts, 3 a GPU in all and 2 of a layer.
    problem = make_problem(np.zeros((2, 1)), np.ones((2, 3)), (3, 6), 2)
    old, server = rng.integers(0, 2, (2, 3)), np.zeros((2, 3), dtype=np.int64)
    gpu = keep_gpus(problem, server, old)
    least = min(
        int((np.array(choice).reshape(2, 3) != old).sum())
        for choice in itertools.product((0, 1), repeat=6)
        if gpu_caps_hold(np.array(choice).reshape(2, 3))
    )
    assert gpu_caps_hold(gpu)
    assert (gpu != old).sum() == least


def gpu_caps_hold(gpu: np.ndarray) -> bool:
    """At most 3 experts on each of 2 GPUs, 2 of a layer."""
    counts = np.array([np.bincount(row, minlength=2) for row in gpu])
    return bool(counts.max() <= 2 and counts.sum(axis=0).max() <= 3)
