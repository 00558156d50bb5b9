"""The combined local search, against the evaluators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

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
from placement.search.items import slots_of
from placement.search.layer import LayerSearch
from placement.search.layer_items import LayerItems
from placement.search.local_search import LocalSearch
from workloads import ExpertProfile


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
