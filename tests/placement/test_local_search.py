"""The combined local search, against slow sums, brute force and the evaluators."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import (
    Contiguous,
    InfeasibleError,
    Placement,
    PlacementError,
    PlacementProblem,
    Random,
    evaluate,
)
from placement.field.eplb import Eplb
from placement.search import _anneal_kernel as kernel
from placement.search import _tables_kernel as tables
from placement.search import layer as searched
from placement.search.items import slots_of
from placement.search.layer import Arrangement, CopyTerm, LayerSearch, LoadCap, MoveCap, arrange
from placement.search.layer_items import LayerItems
from placement.search.local_search import LocalSearch
from placement.search.share_moves import _hull, share_moves
from placement.search.start import hottest_first, least_beta, starts_of, together
from workloads import ExpertProfile


def make_layer(seed: int, *, free: int = 0, robust: float | str = "mean") -> LayerSearch:
    """Build 6 items of 5 experts on 3 places, every term in use, all numbers dyadic."""
    rng = np.random.default_rng(seed)
    slots = np.array([2, 2, 2 + free])
    return LayerSearch(
        expert=np.array([0, 0, 1, 2, 3, 4]),
        slots=slots,
        copies=CopyTerm(
            item=np.array([rng.permutation(6)[:3] for _ in range(16)]),
            domain=np.arange(16) % 2,
            cost=rng.integers(1, 4, 3).astype(np.float64),
            robust=robust,  # type: ignore[arg-type]
        ),
        linear=rng.integers(0, 8, (6, 3)) / 8,
        loads=LoadCap(load=rng.integers(1, 9, (2, 6)).astype(np.float64), beta=np.full(2, 1.375)),
        moves=MoveCap(previous=np.array([0, 1, 0, 2, -1, 1]), most=3, price=0.25),
    )


def slow_value(layer: LayerSearch, place: list[int]) -> float:
    """Add up all cost terms, token by token."""
    total = 0.0
    if layer.linear is not None:
        total += sum(layer.linear[i, p] for i, p in enumerate(place))
    if layer.moves is not None:
        total += layer.moves.price * slow_moved(layer.moves, place)
    term = layer.copies
    if term is None:
        return total
    cost = [1.0] * len(layer.slots) if term.cost is None else term.cost.tolist()
    copies = [sum(cost[p] for p in {place[i] for i in items}) for items in term.item.tolist()]
    if term.robust == "mean" or term.domain is None:
        return total + sum(copies) / len(copies)
    means = [
        np.mean([c for c, d in zip(copies, term.domain, strict=True) if d == x]) for x in (0, 1)
    ]
    if term.robust == "worst":
        return total + max(means)
    return total + float(np.mean(means) + term.robust * np.std(means))


def slow_moved(moves: MoveCap, place: list[int]) -> int:
    """Count the items that left their place."""
    return sum(old >= 0 and old != p for old, p in zip(moves.previous, place, strict=True))


def slow_excess(layer: LayerSearch, place: list[int]) -> float:
    """Add up what is above every cap."""
    excess, places = 0.0, range(len(layer.slots))
    if layer.loads is not None:
        for load, beta in zip(layer.loads.load, layer.loads.beta, strict=True):
            mean = load.sum() / len(places)
            for p in places:
                heat = sum(load[i] for i, at in enumerate(place) if at == p)
                excess += max(0.0, heat / mean - beta)
    for x in set(layer.expert.tolist()):
        for p in places:
            held = sum(e == x and at == p for e, at in zip(layer.expert, place, strict=True))
            excess += max(0, held - layer.most_replicas)
    if layer.moves is not None and layer.moves.most is not None:
        excess += max(0, slow_moved(layer.moves, place) - layer.moves.most)
    return excess


def brute_force(layer: LayerSearch) -> tuple[float, float]:
    """Least excess, then least value, over all arrangements."""
    seats = np.repeat(np.arange(len(layer.slots)), layer.slots).tolist()
    every = {seat[: layer.items] for seat in permutations(seats)}
    judged = [(slow_excess(layer, list(p)), slow_value(layer, list(p))) for p in sorted(every)]
    return min((round(excess, 9), value) for excess, value in judged)


def run(layer: LayerSearch, seed: int = 0, proposals: int = 2000) -> Arrangement:
    """Search from contiguous and 23 other starts."""
    rng = np.random.default_rng(seed)
    first = np.repeat(np.arange(len(layer.slots)), layer.slots)[: layer.items]
    starts = [first, hottest_first(layer), *(rng.permutation(first) for _ in range(22))]
    return arrange(layer, starts, proposals=proposals, rng=rng)


ROBUST = ("mean", "worst", 0.75)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 3), st.sampled_from(ROBUST), st.integers(0, 1))
def test_sums_kept_step_by_step(seed: int, free: int, robust: str | float, firm: int) -> None:
    """After many accepted swaps every table equals the one summed up afresh."""
    layer = make_layer(seed, free=free, robust=robust)
    tokens, terms = searched._tokens(layer, tables), searched._terms(layer, tables)
    state = searched._state(layer, tokens, terms, tables)
    first = np.repeat(np.arange(3), [2, 2, 2])
    state.place[:] = searched._with_free(layer, first)
    tables.sum_up(tokens, terms, state)
    schedule = kernel.Schedule(5.0, 1.0, 1.0, bool(firm), 300)
    kernel.anneal(np.random.default_rng(seed), tokens, terms, state, schedule)
    fresh = searched._state(layer, tokens, terms, tables)
    fresh.place[:] = state.place
    tables.sum_up(tokens, terms, fresh)
    for name in ("reached", "enters", "leaves", "copies", "holds", "moved"):
        assert getattr(state, name).tolist() == getattr(fresh, name).tolist(), name
    assert state.heat == pytest.approx(fresh.heat, abs=1e-12)
    assert np.bincount(state.place, minlength=3).tolist() == layer.slots.tolist()
    assert state.place[state.item_at].tolist() == np.repeat(np.arange(3), layer.slots).tolist()


def test_stale_sums_would_be_noticed() -> None:
    """The comparison above can fail: one swap without its update leaves every table wrong."""
    layer = make_layer(0)
    tokens, terms = searched._tokens(layer, tables), searched._terms(layer, tables)
    state, fresh = (searched._state(layer, tokens, terms, tables) for _ in range(2))
    state.place[:] = [0, 1, 0, 2, 2, 1]
    fresh.place[:] = [2, 1, 0, 0, 2, 1]
    for each in (state, fresh):
        tables.sum_up(tokens, terms, each)
    for name in ("reached", "enters", "leaves", "copies", "heat", "holds", "moved"):
        assert getattr(state, name).tolist() != getattr(fresh, name).tolist(), name


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(ROBUST))
def test_change_of_every_swap(seed: int, robust: str | float) -> None:
    """The change foretold for each swap is the difference of the slow sums."""
    layer = replace(make_layer(seed, robust=robust), linear=None, moves=None, loads=None)
    tokens, terms = searched._tokens(layer, tables), searched._terms(layer, tables)
    state = searched._state(layer, tokens, terms, tables)
    place = np.random.default_rng(seed).permutation(np.repeat(np.arange(3), 2))
    state.place[:] = place
    tables.sum_up(tokens, terms, state)
    now = slow_value(layer, place.tolist())
    for e, f in permutations(range(6), 2):
        if place[e] == place[f]:
            continue
        other = place.copy()
        other[e], other[f] = place[f], place[e]
        change = kernel._copies_change(tokens, terms, state, e, f, np.inf)
        assert now + change == pytest.approx(slow_value(layer, other.tolist()), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 2), st.sampled_from(ROBUST))
def test_value_and_excess_of_the_answer(seed: int, free: int, robust: str | float) -> None:
    """What the search says of its answer is what slow sums say."""
    layer = make_layer(seed, free=free, robust=robust)
    found = run(layer, proposals=300)
    assert found.value == pytest.approx(slow_value(layer, found.place.tolist()), abs=1e-12)
    assert found.excess == pytest.approx(slow_excess(layer, found.place.tolist()), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dropped", [(), ("linear",), ("copies",), ("loads",), ("moves",)])
def test_reaches_brute_force(seed: int, dropped: tuple[str, ...]) -> None:
    """The best of all arrangements is found, whichever term is left out."""
    layer = replace(make_layer(seed, free=seed % 2), **dict.fromkeys(dropped))
    excess, value = brute_force(layer)
    found = run(layer, seed)
    assert round(found.excess, 9) == excess
    assert found.value == pytest.approx(value, abs=1e-12)


def test_every_term_matters() -> None:
    """Leaving out a term changes the best arrangement of some layer."""
    for term in ("linear", "copies", "loads", "moves"):
        changed = []
        for seed in range(6):
            layer = make_layer(seed)
            place = run(replace(layer, **{term: None}), seed).place.tolist()
            excess, value = brute_force(layer)
            changed.append(
                slow_excess(layer, place) > excess + 1e-9 or slow_value(layer, place) > value + 1e-9
            )
        assert any(changed), term


def test_replicas_of_one_expert_part() -> None:
    """Two replicas a linear cost draws to one place go to two, unless a place may hold both."""
    layer = LayerSearch(
        expert=np.array([0, 0, 1, 2]),
        slots=np.array([2, 2]),
        linear=np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
    )
    assert run(layer).value == 1.0
    assert run(replace(layer, most_replicas=2)).value == 0.0


def test_from_a_start_above_the_caps() -> None:
    """A start above its load cap is brought below."""
    load = np.array([[4.0, 4.0, 1.0, 1.0, 1.0, 1.0]])
    layer = LayerSearch(
        expert=np.arange(6), slots=np.array([3, 3]), loads=LoadCap(load, np.array([1.0]))
    )
    found = arrange(
        layer, [np.array([0, 0, 0, 1, 1, 1])], proposals=400, rng=np.random.default_rng(0)
    )
    assert found.excess == 0.0
    stuck = replace(layer, moves=MoveCap(np.array([0, 0, 0, 1, 1, 1]), most=0))
    start = np.array([0, 0, 0, 1, 1, 1])
    found = arrange(stuck, [start], proposals=400, rng=np.random.default_rng(0))
    assert found.place.tolist() == start.tolist()


def test_same_seed_same_answer() -> None:
    """The search is deterministic and its seed matters."""
    layer = make_layer(3)
    short = [run(layer, seed, proposals=2).place.tolist() for seed in (1, 1)]
    assert short[0] == short[1]
    assert run(layer, 1).place.tolist() == run(layer, 1).place.tolist()


def test_starts() -> None:
    """Starts differ, fit the slots, and with a budget of moves keep the previous places."""
    layer = replace(make_layer(0), moves=None)
    first = np.repeat(np.arange(3), 2)
    starts = starts_of(layer, first, number=5, rng=np.random.default_rng(0))
    assert len({tuple(start) for start in starts}) == 5
    assert all(np.bincount(start).tolist() == [2, 2, 2] for start in starts)
    budgeted = starts_of(make_layer(0), first, number=2, rng=np.random.default_rng(0))
    assert [start.tolist() for start in budgeted] == [first.tolist()] * 2


def test_hand_made_starts() -> None:
    """Hottest first levels loads; items used together meet."""
    load = LoadCap(np.array([[4.0, 3.0, 2.0, 1.0]]), np.array([1.0]))
    copies = CopyTerm(np.array([[0, 3], [0, 3], [1, 2]]))
    layer = LayerSearch(np.arange(4), np.array([2, 2]), copies=copies, loads=load)
    # 4 | 3, then 2 beside 3 and 1 beside 4.
    assert hottest_first(layer).tolist() == [0, 1, 1, 0]
    assert together(layer).tolist() == [0, 1, 1, 0]
    layer = replace(layer, copies=CopyTerm(np.array([[0, 1], [0, 1], [2, 3]])))
    assert together(layer).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_least_beta_by_brute_force(seed: int) -> None:
    """The least cap found is the least over all arrangements, in the worst of two domains."""
    layer = replace(make_layer(seed), moves=None)
    assert layer.loads is not None
    share = layer.loads.load / layer.loads.load.sum(axis=1, keepdims=True) * 3
    best = np.inf
    for place in {p for p in permutations((0, 0, 1, 1, 2, 2)) if p[0] != p[1]}:
        heat = [np.bincount(place, row, 3).max() for row in share]
        best = min(best, max(heat))
    tight = replace(layer, loads=LoadCap(layer.loads.load, np.ones(2)))
    factor, place = least_beta(tight, np.repeat(np.arange(3), 2), rng=np.random.default_rng(0))
    assert factor == pytest.approx(best, rel=1e-9)
    assert max(np.bincount(place, row, 3).max() for row in share) == pytest.approx(best)


def test_hull_keeps_the_convex_corners() -> None:
    """Points above the lower hull drop out; points on it may stay."""
    assert _hull([0, 1, 2, 4], [4.0, 3.5, 1.0, 0.0]) == [(0, 2), (2, 3)]
    assert _hull([0], [1.0]) == []


def test_moves_go_where_they_gain_most() -> None:
    """A layer that gains nothing gets no moves while another can use them."""
    previous = MoveCap(np.array([0, 0, 1, 1]))
    idle = LayerSearch(np.arange(4), np.array([2, 2]), linear=np.zeros((4, 2)), moves=previous)
    wants = replace(idle, linear=np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    first = [np.array([0, 0, 1, 1])] * 2
    budgets = [
        layer.moves.most
        for layer in share_moves([idle, wants], first, 4, seed=0)
        if layer.moves is not None
    ]
    assert budgets == [0, 4]
    assert share_moves([idle, wants], first, None, seed=0) == [idle, wants]


def make_problem(seed: int = 0, **changed: int) -> PlacementProblem:
    """Build 3 layers x 12 experts on 3 servers of 2 GPUs, with 200 tokens of top-3."""
    rng = np.random.default_rng(seed)
    weight = rng.pareto(3.0, 12) + 0.5
    topk = np.array(
        [
            [rng.choice(12, 3, replace=False, p=weight / weight.sum()) for _ in range(3)]
            for _ in range(200)
        ],
        dtype=np.uint8,
    )
    count = np.stack([np.bincount(topk[:, layer].ravel(), minlength=12) for layer in range(3)])
    load = count / count.sum(axis=1, keepdims=True)
    shape = {"gpus_per_server": 2, "layer_slots": 6, "server_slots": 12} | changed
    return PlacementProblem(
        model="test",
        cost=rng.integers(1, 9, (3, 3)).astype(np.float64),
        profile=ExpertProfile(load=load, source="test", choices=topk),
        top_k=3,
        **shape,
    )


def doubled(placement: Placement) -> bool:
    """Whether two slots of one expert share a GPU."""
    cells = np.stack((placement.slot_layer, placement.slot_gpu, placement.slot_expert))
    return len(np.unique(cells, axis=1).T) < len(cells.T)


def gpu_load(placement: Placement, load: np.ndarray) -> float:
    """Worst load of a GPU in any layer over the mean, replicas sharing equally."""
    share = load[placement.slot_layer, placement.slot_expert]
    share = share / placement.replicas[placement.slot_layer, placement.slot_expert]
    flat = placement.slot_layer * placement.gpus + placement.slot_gpu
    return float(np.bincount(flat, share).max() * placement.gpus)


@pytest.mark.parametrize("seed", range(3))
def test_hops_balance_replicas_and_moves_together(seed: int) -> None:
    """All options at once: caps, replicas apart, the budget kept, fewer hops, hops as judged."""
    problem = make_problem(seed)
    previous = Eplb(redundant=6)(problem)
    beta = max(1.35, gpu_load(previous, problem.profile.load))
    placement = LocalSearch(beta=beta, previous=previous, max_moves=6, proposals=200)(problem)
    judged = evaluate(placement, problem)
    assert placement.solve is not None
    assert placement.solve.objective_hops == pytest.approx(judged.hops_per_token_layer)
    assert placement.solve.bound_hops is not None
    assert placement.solve.bound_hops <= judged.hops_per_token_layer
    assert judged.hops_per_token_layer < evaluate(previous, problem).hops_per_token_layer
    assert gpu_load(placement, problem.profile.load) <= beta * (1 + 1e-9)
    assert placement.replicas.tolist() == previous.replicas.tolist()
    assert not doubled(placement)
    assert moved(placement, previous) <= 6
    free = LocalSearch(beta=beta, previous=previous, proposals=200)(problem)
    assert evaluate(free, problem).hops_per_token_layer < judged.hops_per_token_layer
    assert moved(free, previous) > 6


def moved(placement: Placement, previous: Placement) -> int:
    """Slots of a placement that the other does not have."""

    def cells(of: Placement) -> list[tuple[int, ...]]:
        return list(zip(of.slot_layer, of.slot_gpu, of.slot_expert, strict=True))

    return len(set(cells(placement)) - set(cells(previous)))


def test_a_price_on_moves() -> None:
    """The dearer a move the fewer are made; a price above every gain keeps the placement."""
    problem = make_problem()
    previous = Contiguous()(problem)
    counts = []
    for price in (0.0, 0.02, 1e3):
        placement = LocalSearch(previous=previous, move_price=price, proposals=200)(problem)
        assert placement.solve is not None
        moves = moved(placement, previous)
        hops = evaluate(placement, problem).hops_per_token_layer
        assert placement.solve.objective_hops == pytest.approx(hops + price * moves)
        counts.append(moves)
    assert counts[0] > counts[1] > counts[2] == 0


def test_hop_optimum_is_kept() -> None:
    """Without other options the search cannot beat, nor lose, the exact hop optimum."""
    problem = make_problem()
    placement = LocalSearch(proposals=50, starts=1)(problem)
    from placement import IlpLoad  # noqa: PLC0415  only here

    best = evaluate(IlpLoad()(problem), problem).hops_per_token_layer
    assert evaluate(placement, problem).hops_per_token_layer == pytest.approx(best)
    assert placement.solve is not None
    assert placement.solve.status == "optimal"


@pytest.mark.parametrize("redundant", [0, 6])
def test_server_scope(redundant: int) -> None:
    """Servers keep their counts, GPUs theirs, and replicas part on GPUs."""
    problem = make_problem()
    base = Eplb(redundant=redundant) if redundant else Contiguous()
    placement = LocalSearch(scope="server", base=base, proposals=100, beta=1.6)(problem)
    start = base(problem)

    def counts(of: Placement, inside: int) -> list[int]:
        return np.bincount(of.slot_layer * 6 + of.slot_gpu // inside, minlength=18).tolist()

    assert counts(placement, 2) == counts(start, 2)
    assert not doubled(placement)
    if redundant:
        assert counts(placement, 1) == counts(start, 1)
    hops = evaluate(placement, problem).hops_per_token_layer
    assert hops <= evaluate(start, problem).hops_per_token_layer
    again = LocalSearch(scope="server", previous=placement, move_price=1e3, proposals=100)(problem)
    assert again == placement


def test_free_slots_are_handed_out_within_the_caps() -> None:
    """What the caps leave free is spread over layers, and none is left where a layer has room."""
    problem = make_problem(layer_slots=5, server_slots=14)
    base = Contiguous()(problem)
    for scope, inside in (("gpu", 1), ("server", 2)):
        slots = slots_of(problem, base, scope)  # type: ignore[arg-type]
        server = slots.reshape(3, 3, -1).sum(axis=2)
        assert server.max() <= 5
        assert server.sum(axis=0).max() <= 14
        assert slots.sum() > 36
        assert slots.max() <= -(-5 // (2 // inside))
    assert slots_of(make_problem(), base, "gpu").sum() == 36
    replicated = Eplb(redundant=6)(problem)
    assert slots_of(problem, replicated, "gpu").sum() == len(replicated.slot_gpu)


def test_tokens_are_dealt_evenly_to_replicas() -> None:
    """Each replica gets about its share, and two experts' deals are independent."""
    items = LayerItems(
        expert=np.array([0, 0, 1, 2, 2]),
        gpu=np.zeros(5, np.int64),
        first=np.array([0, 2, 3]),
        replicas=np.array([2, 1, 2]),
    )
    dealt = items.of_choices(np.tile([0, 2], (4000, 1))) - np.array([0, 3])
    assert set(dealt.ravel().tolist()) == {0, 1}
    table = np.bincount(2 * dealt[:, 0] + dealt[:, 1], minlength=4)
    # 1000 each; five standard deviations of a binomial (4000, 1/4) are 137.
    assert np.abs(table - 1000).max() < 137
    assert (items.of_choices(np.ones((9, 1), dtype=np.uint8)) == 2).all()


def test_layers_do_not_depend_on_each_other_and_runs_repeat() -> None:
    """The same call gives the same placement; another seed may not."""
    problem = make_problem()
    policy = LocalSearch(copies=1.0, base=Random(), beta=1.7, proposals=20)
    assert policy(problem) == policy(problem)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scope": "rack"}, "unknown scope 'rack'; allowed: gpu, server"),
        ({"hops": -1.0}, "hops is -1.0; expected a finite number of 0 or more"),
        ({"robust": "best"}, "robust is 'best'; allowed: mean, worst, or a number of 0 or more"),
        ({"robust": -1.0}, "robust is -1.0"),
        ({"beta": 0.9}, "beta is 0.9; expected a number of at least 1"),
        ({"starts": 0}, "starts and proposals must be positive"),
        ({"max_moves": 3}, "max_moves and move_price need a previous placement"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, object], expected: str) -> None:
    """Each is refused in one line when the policy is made."""
    with pytest.raises(PlacementError, match=expected):
        LocalSearch(**options)  # type: ignore[arg-type]


def test_starts_that_do_not_fit() -> None:
    """Another model's placement, two starts at once, and a negative budget are refused."""
    problem = make_problem()
    base = Contiguous()(problem)
    with pytest.raises(PlacementError, match="the start is of other with"):
        LocalSearch(previous=replace(base, model="other"))(problem)
    with pytest.raises(PlacementError, match="give a base or a previous placement, not both"):
        LocalSearch(previous=base, base=Contiguous())
    with pytest.raises(PlacementError, match="max_moves is -1; expected 0 or more"):
        LocalSearch(previous=base, max_moves=-1)
    with pytest.raises(PlacementError, match="7 items do not fit into 6 slots"):
        LayerSearch(np.arange(7), np.array([3, 3]))


def test_impossible_beta() -> None:
    """The message names layer, expert, replicas that would do and the least beta; relax goes on."""
    problem = make_problem()
    load = np.full((3, 12), 1 / 12)
    load[1] *= 0.5
    load[1, 7] += 0.5
    problem = replace(problem, profile=ExpertProfile(load=load, source="test"))
    # Expert 7 holds 13/24 of the layer, 3.25 x the mean of 6 GPUs, and can sit alone.
    expected = "beta 1.5 cannot be met in layer 1: expert 7 alone carries 3.25 x the mean GPU load"
    with pytest.raises(InfeasibleError, match=expected) as caught:
        LocalSearch(beta=1.5, base=Contiguous(), proposals=50)(problem)
    # Two replicas would carry 1.625 x each, three 1.083 x.
    assert "least workable beta found is 3.2500, or 3 replicas of" in str(caught.value)
    relaxed = LocalSearch(beta=1.5, base=Contiguous(), proposals=50, relax=True)(problem)
    assert gpu_load(relaxed, load) == pytest.approx(3.25)
    assert gpu_load(LocalSearch(beta=3.25, proposals=50)(problem), load) == pytest.approx(3.25)
