"""Replica rules against slow twins, Monte-Carlo draws and a brute-force grid."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import (
    Attention,
    DataParallel,
    Evaluation,
    Pipelined,
    Placement,
    PlacementError,
    PlacementProblem,
    evaluate,
)
from placement.replicas.problem import ReplicaProblem
from placement.replicas.rules import (
    RULES,
    Equal,
    LeastHops,
    Nearest,
    ReplicaRule,
    SglangStatic,
    VllmModulo,
    evaluate_replicas,
    gpu_load,
    layer_hops,
    make_rule,
    replica_flows,
)
from workloads import ExpertProfile, MoEModel

LINE = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
"""Three servers in a row, one hop apart."""


def make_problem(
    load: np.ndarray,
    distance: np.ndarray,
    attention: type[Pipelined | DataParallel],
    *,
    inside: int = 2,
    choices: np.ndarray | None = None,
) -> ReplicaProblem:
    """Build a problem of a model with as many experts as the loads have."""
    layers, experts = load.shape
    shape = MoEModel("test", layers, tuple(range(layers)), experts, 2, 0, 8, 8)
    mode: Attention = attention(layers, len(distance), inside)
    profile = ExpertProfile(load / load.sum(axis=1, keepdims=True), "test", choices)
    problem = PlacementProblem.build(
        shape, distance, mode, profile, gpus_per_server=inside, layer_slots=experts
    )
    return ReplicaProblem.of(problem, distance, mode)


def make_placement(slots: np.ndarray, inside: int) -> Placement:
    """Place ``slots[layer, gpu, position]``; the experts are 0 to the largest named."""
    layers, gpus, room = slots.shape
    return Placement(
        model="test",
        layers=layers,
        experts=int(slots.max()) + 1,
        gpus=gpus,
        gpus_per_server=inside,
        slot_layer=np.repeat(np.arange(layers), gpus * room),
        slot_gpu=np.tile(np.repeat(np.arange(gpus), room), layers),
        slot_expert=slots.ravel(),
        policy="test",
    )


def random_case(
    seed: int, attention: type[Pipelined | DataParallel]
) -> tuple[ReplicaProblem, Placement]:
    """Draw 2 layers, 4 experts, 3 servers of 2 GPUs with 2 slots, lopsided distances."""
    rng = np.random.default_rng(seed)
    distance = rng.integers(0, 4, (3, 3))
    distance[np.arange(3), np.arange(3)] = 0
    rows = [
        [*rng.permutation(4).reshape(2, 2), *(rng.permutation(4)[:2] for _ in range(4))]
        for _ in range(2)
    ]
    slots = np.array([rng.permutation(np.array(layer)) for layer in rows])
    problem = make_problem(rng.random((2, 4)) + 0.05, distance, attention)
    return problem, make_placement(slots, 2)


def slow_nearest(problem: ReplicaProblem, placement: Placement) -> tuple[float, np.ndarray]:
    """Hops per token and layer, and GPU loads, by loops over origins, experts and replicas."""
    base, distance = problem.problem, problem.server_distance
    hops, heat = 0.0, np.zeros((base.layers, placement.gpus))
    for layer, o, e in product(range(base.layers), range(base.servers), range(base.experts)):
        gpus = [
            g
            for at, g, x in zip(
                placement.slot_layer, placement.slot_gpu, placement.slot_expert, strict=True
            )
            if (at, x) == (layer, e)
        ]
        least = min(distance[o, g // 2] for g in gpus)
        near = [g for g in gpus if distance[o, g // 2] == least]
        for g in near:
            part = problem.origin_share[layer, o] * base.profile.load[layer, e] / len(near)
            heat[layer, g] += part
            back = sum(
                p * distance[g // 2, c] for c, p in enumerate(problem.collector_share[layer])
            )
            if problem.returns_home:
                back = distance[g // 2, o]
            hops += part * base.top_k * (least + back) / base.layers
    return hops, heat


def agree(found: Evaluation, hops: float, heat: np.ndarray) -> bool:
    """Whether an evaluation is that of these hops and GPU loads."""
    ratio = heat.max(axis=1) / heat.mean(axis=1)
    server = heat.reshape(len(heat), -1, 2).sum(axis=2)
    return bool(
        np.isclose(found.hops_per_token_layer, hops, rtol=1e-12)
        and np.isclose(found.balance_gpu, ratio.mean(), rtol=1e-12)
        and np.isclose(found.balancedness, (1 / ratio).mean(), rtol=1e-12)
        and np.isclose(
            found.balance_server, (server.max(axis=1) / server.mean(axis=1)).mean(), rtol=1e-12
        )
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.sampled_from([Pipelined, DataParallel]))
def test_nearest_equals_its_slow_twin(seed: int, attention: type[Pipelined | DataParallel]) -> None:
    """Hops and balances of random placements, lopsided distances included."""
    problem, placement = random_case(seed, attention)
    found = evaluate_replicas(placement, problem, Nearest())
    hops, heat = slow_nearest(problem, placement)
    assert agree(found, hops, heat)


def test_the_twin_tells_rules_apart() -> None:
    """The same comparison fails on the rule `equal`."""
    problem, placement = random_case(1, DataParallel)
    hops, heat = slow_nearest(problem, placement)
    assert not agree(evaluate_replicas(placement, problem, Equal()), hops, heat)


def test_nearest_by_hand() -> None:
    """Servers 0-1-2 in a row, expert 0 on servers 0 and 2, expert 1 on server 1.

    Origin 1 is one hop from both replicas of expert 0 and splits. Expert 0 has load 3/4.
    """
    problem = make_problem(np.array([[3.0, 1.0]]), LINE, DataParallel, inside=1)
    placement = make_placement(np.array([[[0], [1], [0]]]), 1)
    part = Nearest()(placement, problem)
    assert part.tolist() == [[1, 1, 0], [0.5, 1, 0.5], [0, 1, 1]]
    # Expert 0: only origin 1 travels, 2 hops there and back; expert 1: origins 0 and 2 do.
    # 2 choices x (3/4 x 1/3 x 2 + 1/4 x 2/3 x 2) = 2 x 5/6.
    found = evaluate_replicas(placement, problem, Nearest())
    assert found.hops_per_token_layer == pytest.approx(5 / 3)
    # Loads 3/8, 1/4, 3/8, mean 1/3.
    assert found.balance_gpu == pytest.approx(9 / 8)


@pytest.mark.parametrize("attention", [Pipelined, DataParallel])
def test_equal_is_what_placements_are_judged_by(
    attention: type[Pipelined | DataParallel],
) -> None:
    """`equal` and `sglang_dynamic` give what `evaluate` does, to rounding."""
    problem, placement = random_case(3, attention)
    known = evaluate(placement, problem.problem)
    for rule in (Equal(), make_rule("sglang_dynamic")):
        found = evaluate_replicas(placement, problem, rule)
        for name in ("hops_per_token_layer", "balance_server", "balance_gpu", "balancedness"):
            assert getattr(found, name) == pytest.approx(getattr(known, name), rel=1e-12)


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("attention", [Pipelined, DataParallel])
def test_every_rule_parts_every_expert(
    name: str, attention: type[Pipelined | DataParallel]
) -> None:
    """Parts are non-negative and sum to 1 for every origin and expert; flows sum to 1."""
    problem, placement = random_case(5, attention)
    part = make_rule(name)(placement, problem)
    assert part.min() >= 0
    for layer, e in product(range(2), range(4)):
        mine = (placement.slot_layer == layer) & (placement.slot_expert == e)
        assert part[:, mine].sum(axis=1) == pytest.approx(1, abs=1e-9)
    flows = replica_flows(placement, problem, make_rule(name))
    assert flows.shape == (3, 24)
    assert flows.sum() == pytest.approx(2, abs=1e-9)
    assert np.array_equal(part, make_rule(name)(placement, problem))


@pytest.mark.parametrize("rule", [Equal(), Nearest(), SglangStatic()], ids=lambda r: r.name)
def test_flows_are_what_drawn_tokens_do(rule: ReplicaRule) -> None:
    """200,000 tokens drawn one by one from the rule's parts: loads within 5 deviations."""
    problem, placement = random_case(7, DataParallel)
    part, rng, draws = rule(placement, problem), np.random.default_rng(0), 200_000
    layer = placement.slot_layer == 0
    chance = part[:, layer].T * problem.problem.profile.load[0][placement.slot_expert[layer], None]
    chance /= chance.sum()
    drawn = rng.multinomial(draws, chance.ravel()).reshape(chance.shape).sum(axis=1)
    counted = np.bincount(placement.slot_gpu[layer], drawn, placement.gpus) / draws
    heat = gpu_load(placement, replica_flows(placement, problem, rule))[0]
    deviation = np.sqrt(heat * (1 - heat) / draws)
    assert (np.abs(counted - heat) <= 5 * deviation).all()
    # Loads in another order are told apart.
    assert (np.abs(counted - heat[::-1]) > 5 * deviation).any()


def test_sglang_static_prefers_the_own_gpu() -> None:
    """A rank that holds the expert takes its own; the others take one replica each, dealt evenly.

    6 ranks on 3 servers; expert 0 on GPUs 0 and 3, so ranks 0 and 3 serve themselves and the
    other four are dealt two and two.
    """
    problem = make_problem(np.ones((1, 5)), LINE, DataParallel)
    placement = make_placement(np.array([[[0], [1], [2], [0], [3], [4]]]), 2)
    part = SglangStatic()(placement, problem)[:, [0, 3]]
    # Each rank is half of its server's tokens.
    assert set(part.ravel().tolist()) <= {0.0, 0.5, 1.0}
    assert part[0, 0] >= 0.5
    assert part[1, 1] >= 0.5
    assert part.sum(axis=0).tolist() == [1.5, 1.5]
    others = [SglangStatic(seed)(placement, problem)[:, [0, 3]] for seed in range(8)]
    assert any(not np.array_equal(part, other) for other in others)


def test_vllm_modulo_counts_positions() -> None:
    """Position t * k + j modulo the replicas, counted in a slow loop over the ordered choices."""
    rng = np.random.default_rng(2)
    choices = np.array([[rng.permutation(4)[:2] for _ in range(2)] for _ in range(30)])
    load = np.stack([np.bincount(choices[:, at].ravel(), minlength=4) for at in range(2)])
    _, placement = random_case(11, DataParallel)
    problem = make_problem(load + 0.0, LINE, DataParallel, choices=choices)
    part = VllmModulo()(placement, problem)[0]
    counted = np.zeros(24)
    for (t, layer), j in product(product(range(30), range(2)), range(2)):
        slots = np.flatnonzero(
            (placement.slot_layer == layer) & (placement.slot_expert == choices[t, layer, j])
        )
        counted[slots[(t * 2 + j) % len(slots)]] += 1
    share = part * load[placement.slot_layer, placement.slot_expert]
    assert share == pytest.approx(counted)
    assert share != pytest.approx(counted[::-1])


def test_vllm_modulo_parts_by_rank_of_the_choice() -> None:
    """With k = 2 and two replicas an expert that always comes first uses its first replica only."""
    choices = np.tile(np.array([[[0, 1]]]), (8, 1, 1))
    problem = make_problem(np.ones((1, 2)), LINE[:2, :2], DataParallel, choices=choices)
    placement = make_placement(np.array([[[0], [1], [0], [1]]]), 2)
    part = VllmModulo()(placement, problem)
    # Expert 0 sits on GPUs 0 and 2 and comes at even positions, expert 1 at odd ones.
    assert part.tolist() == [[1, 0, 0, 1]] * 2
    blind = make_problem(np.ones((1, 2)), LINE[:2, :2], DataParallel)
    assert VllmModulo()(placement, blind).tolist() == [[0.5] * 4] * 2


def best_of_grid(
    problem: ReplicaProblem, placement: Placement, steps: int
) -> tuple[float, list[tuple[float, float]]]:
    """Try all fractions of expert 0's two replicas, in equal steps, for 2 origins.

    Returns
    -------
    Least busiest GPU, and (busiest GPU, hops) of every point.
    """
    points = []
    at = np.flatnonzero(placement.slot_expert == 0)

    def grid(fractions: tuple[float, float]) -> np.ndarray:
        part = np.ones((2, len(placement.slot_expert)))
        part[:, at[0]] = fractions
        part[:, at[1]] = 1 - np.array(fractions)
        return part

    ticks = np.linspace(0, 1, steps + 1)
    for fractions in product(ticks, ticks):

        class Fixed:
            name = "fixed"

            def __call__(self, placement: Placement, problem: ReplicaProblem) -> np.ndarray:  # noqa: ARG002
                return grid(fractions)  # noqa: B023  called before the loop goes on

        flows = replica_flows(placement, problem, Fixed())
        heat = gpu_load(placement, flows).max()
        points.append((float(heat), float(layer_hops(placement, problem, flows)[0])))
    return min(p[0] for p in points), points


@pytest.mark.parametrize("seed", range(4))
def test_lp_equals_a_grid(seed: int) -> None:
    """No point of a grid over the fractions is lighter, or as light with fewer hops."""
    rng = np.random.default_rng(seed)
    distance = np.array([[0, 2], [3, 0]])
    problem = make_problem(rng.random((1, 3)) + 0.2, distance, DataParallel)
    placement = make_placement(np.array([[[0], [1], [0], [2]]]), 2)
    flows = replica_flows(placement, problem, LeastHops())
    heat = float(gpu_load(placement, flows).max())
    hops = float(layer_hops(placement, problem, flows)[0])
    least, points = best_of_grid(problem, placement, 60)
    # A grid step moves at most 1/60 of half the tokens.
    assert heat <= least + 1e-9 <= heat + 1 / 60
    rivals = [h for load, h in points if load <= heat + 1e-9]
    assert all(hops <= h + 1e-6 for h in rivals)
    # More load allowed: fewer hops, as the grid finds, and no point of it is better.
    cap = (heat * 1.2) * 4
    loose = replica_flows(placement, problem, LeastHops((cap,)))
    assert gpu_load(placement, loose).max() * 4 <= cap + 1e-6
    fewest = min(h for load, h in points if load * 4 <= cap)
    assert layer_hops(placement, problem, loose)[0] <= fewest + 1e-6
    assert layer_hops(placement, problem, loose)[0] >= fewest - 2 * 5 / 60
    # The grid's worst point fails the comparison.
    assert max(h for _, h in points) > hops + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_lp_is_as_light_as_any_rule(seed: int) -> None:
    """Least balance of all rules; at the balance of `nearest`, no more hops than it."""
    problem, placement = random_case(seed, DataParallel)
    flows = {name: replica_flows(placement, problem, make_rule(name)) for name in RULES}
    heat = {name: gpu_load(placement, f).max(axis=1) for name, f in flows.items()}
    for name in RULES:
        assert (heat["lp"] <= heat[name] + 1e-8).all()
    cap = tuple(heat["nearest"] * placement.gpus)
    under = replica_flows(placement, problem, LeastHops(cap))
    found = layer_hops(placement, problem, under)
    assert (found <= layer_hops(placement, problem, flows["nearest"]) + 1e-7).all()


def test_unknown_rule_and_wrong_shape_are_refused() -> None:
    """One line that lists the rules, or says what differs."""
    with pytest.raises(PlacementError, match="unknown replica rule 'best'; allowed: equal, near"):
        make_rule("best")
    _, placement = random_case(1, DataParallel)
    other = make_problem(np.ones((2, 4)), LINE[:2, :2], DataParallel)
    with pytest.raises(PlacementError, match="has 3 servers, the problem 2"):
        evaluate_replicas(placement, other, Equal())
    wide = make_problem(np.ones((2, 4)), LINE, DataParallel, inside=4)
    with pytest.raises(PlacementError, match="has 2 GPUs a server, the problem 4"):
        evaluate_replicas(placement, wide, Equal())


def test_problem_refuses_what_contradicts_its_costs() -> None:
    """Distances, shares and costs must agree."""
    good = make_problem(np.ones((2, 4)), LINE, Pipelined)
    with pytest.raises(PlacementError, match=r"server_distance must be non-negative of shape"):
        ReplicaProblem.of(good.problem, LINE[:2], Pipelined(2, 3, 2))
    with pytest.raises(PlacementError, match="layer 0, server 0: the problem's cost is"):
        ReplicaProblem.of(good.problem, LINE, DataParallel(2, 3, 2))
    with pytest.raises(PlacementError, match="returns_home needs collector_share equal"):
        ReplicaProblem(
            good.problem, LINE, good.origin_share, good.collector_share, returns_home=True
        )


@pytest.mark.parametrize("rule", [Equal(), Nearest()], ids=lambda rule: type(rule).__name__)
def test_fractions_of_a_hop_count(rule: ReplicaRule) -> None:
    """Routing over paths of two lengths gives mean distances: of half the hops, half the cost."""
    whole, placement = random_case(3, DataParallel)
    load, distance = whole.problem.profile.load, whole.server_distance
    half = make_problem(load, distance / 2, DataParallel)
    found, expected = (
        evaluate_replicas(placement, each, rule).hops_per_token_layer for each in (half, whole)
    )
    assert (distance % 2).any()
    assert found == pytest.approx(expected / 2, rel=1e-12)
