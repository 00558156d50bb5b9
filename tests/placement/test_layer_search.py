"""One layer's local search, against slow sums and brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.search import _anneal_kernel as kernel
from placement.search import _tables_kernel as tables
from placement.search import layer as searched
from placement.search.layer import Arrangement, CopyTerm, LayerSearch, LoadCap, MoveCap, arrange
from placement.search.share_moves import _hull, share_moves
from placement.search.start import hottest_first, least_beta, starts_of, together


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
    if layer.loads is not None and layer.loads.price is not None:
        total += layer.loads.price * slow_above(layer, place) / len(layer.loads.load)
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


def slow_above(layer: LayerSearch, place: list[int]) -> float:
    """Add up the load above the caps, over places and domains."""
    above, places = 0.0, range(len(layer.slots))
    assert layer.loads is not None
    for load, beta in zip(layer.loads.load, layer.loads.beta, strict=True):
        mean = load.sum() / len(places)
        for p in places:
            heat = sum(load[i] for i, at in enumerate(place) if at == p)
            above += max(0.0, heat / mean - beta)
    return above


def slow_excess(layer: LayerSearch, place: list[int]) -> float:
    """Add up what is above every hard cap."""
    excess, places = 0.0, range(len(layer.slots))
    if layer.loads is not None and layer.loads.price is None:
        excess += slow_above(layer, place)
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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("price", [0.0, 0.5, 50.0])
def test_priced_load_reaches_brute_force(seed: int, price: float) -> None:
    """Load above a priced cap costs what it says, in both domains, and is no excess."""
    layer = make_layer(seed)
    assert layer.loads is not None
    loads = replace(layer.loads, beta=np.array([1.0, 1.25]), price=price)
    layer = replace(layer, loads=loads)
    excess, value = brute_force(layer)
    found = run(layer, seed)
    assert excess == 0
    assert found.excess == 0
    assert found.value == pytest.approx(value, abs=1e-12)
    assert slow_value(layer, found.place.tolist()) == pytest.approx(value, abs=1e-12)
    # Where the price counts, leaving it out is noticed.
    free = slow_value(replace(layer, loads=None), found.place.tolist())
    assert free < value or price == 0


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
        for layer in share_moves([idle, wants], first, 4, bounds=[-np.inf] * 2, seed=0)
        if layer.moves is not None
    ]
    assert budgets == [0, 4]
    assert share_moves([idle, wants], first, None, bounds=[-np.inf] * 2, seed=0) == [idle, wants]
