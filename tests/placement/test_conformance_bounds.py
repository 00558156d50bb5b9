"""Bounds of every policy that gives one, against exhaustive search on tiny problems."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conformance_cases import Case, distinct, line, make_case, skewed
from conformance_judges import hops, place_load, ruled_load
from conformance_policies import VARIANTS, Variant

from placement.balance import Balanced, Places, layer_caps
from placement.conformance import ConformanceError, check_apart, check_caps
from placement.moves import Replace, count_moves
from placement.replicas import Replicated
from placement.search import LeastCopies, LocalSearch
from placement.slots import place_on_gpus

if TYPE_CHECKING:
    from placement import Placement

TINY = {
    case.name: case
    for case in (
        # 6! / 2!^3 = 90 placements.
        make_case("full", line(3, 1), skewed(1, 6, 3)),
        # Two layers that share the servers' slots.
        make_case(
            "two layers", line(2, 1), skewed(2, 4, 4), caps=(3, 4), n_group=4, distance=distinct(2)
        ),
        # Two GPUs a server, and room to spare.
        make_case("GPUs", line(2, 2), skewed(1, 5, 5), caps=(3, 4), distance=distinct(2)),
        # Replicas of four experts on four GPUs.
        make_case("replicas", line(2, 2), skewed(1, 4, 6), distance=distinct(2)),
    )
}
BOUNDED = [
    name
    for name in VARIANTS
    if name.startswith(
        ("ilp", "keep", "balanced", "replace ", "replicated", "local", "least-copies")
    )
]


@cache
def every(case: Case, experts: tuple[int, ...]) -> list[Placement]:
    """All placements of these slots in every layer that keep the caps, no expert twice on a GPU."""
    slots = np.array(experts)
    rows = {
        tuple(sorted(zip(row, experts, strict=True)))
        for row in product(range(case.gpus), repeat=len(experts))
    }
    apart = [np.array(row) for row in sorted(rows) if len(set(row)) == len(slots)]
    found = []
    for layers in product(apart, repeat=case.problem.layers):
        gpu, expert = np.stack(layers).transpose(2, 0, 1)
        placement = place_on_gpus(case.problem, gpu, expert, policy="every")
        if keeps_caps(placement, case):
            found.append(placement)
    return found


def keeps_caps(placement: Placement, case: Case) -> bool:
    """Whether the contract's caps hold."""
    try:
        check_caps(placement, case.problem)
        check_apart(placement)
    except ConformanceError:
        return False
    return True


@cache
def every_replicated(case: Case) -> list[Placement]:
    """All placements with equal slots on every GPU, whatever the numbers of replicas: one layer."""
    experts, each = case.problem.experts, (case.problem.experts + case.redundant) // case.gpus
    found = []
    for held in product(combinations(range(experts), each), repeat=case.gpus):
        if len({expert for row in held for expert in row}) == experts:
            gpu = np.repeat(np.arange(case.gpus), each)[None]
            found.append(place_on_gpus(case.problem, gpu, np.array(held).reshape(1, -1), policy=""))
    return found


def candidates(policy: object, case: Case, made: Placement) -> list[Placement]:
    """Return what the policy's bound speaks of: placements with its options' promise kept."""
    if isinstance(policy, Replicated):
        cap = policy.replicate(case.origins).cap * (1 + 1e-9)
        every_one = every_replicated(case) if policy.redundant else one_each(case)
        return [p for p in every_one if (ruled_load(p, case, policy) <= cap).all()]
    if isinstance(policy, LocalSearch | LeastCopies) and made.redundant:
        all_slots = every(case, tuple(made.slot_expert[made.slot_layer == 0].tolist()))
    else:
        all_slots = one_each(case)
    return [p for p in all_slots if promised(policy, case, made, p)]


def one_each(case: Case) -> list[Placement]:
    """All placements without replicas."""
    return every(case, tuple(range(case.problem.experts)))


def promised(policy: object, case: Case, made: Placement, other: Placement) -> bool:
    """Whether a placement keeps what the policy had to keep."""
    if isinstance(policy, Balanced) and policy.price is None:
        caps = layer_caps(case.problem, policy.beta, relax=True, scope=policy.scope).cap
        most = caps * Places.of(case.problem, policy.scope).server.size
        return bool((place_load(other, case, policy.scope).max(axis=1) <= most * (1 + 1e-9)).all())
    if isinstance(policy, Replace):
        limit = policy.max_moves
        limit = count_moves(policy.previous, made).servers if limit is None else limit
        return count_moves(policy.previous, other).servers <= limit
    if isinstance(policy, LocalSearch | LeastCopies):
        used = [np.bincount(p.slot_gpu, minlength=case.gpus) for p in (made, other)]
        return not made.redundant or bool((used[0] == used[1]).all())
    return True


def suits(variant: Variant, case: Case) -> bool:
    """Whether a tiny case is one for the variant, and small enough to exhaust."""
    if variant.name.startswith("replicated "):
        return case.name == "replicas" and " lp" not in variant.name
    if variant.name.startswith(("local", "least-copies")):
        return case.name == "full"
    return case.name != "replicas" and variant.accepts(case)


PAIRS = [
    pytest.param(VARIANTS[name], case, id=f"{name}-{case.name}")
    for name in BOUNDED
    for case in TINY.values()
    if suits(VARIANTS[name], case)
]


@pytest.mark.parametrize(("variant", "case"), PAIRS)
def test_bound_below_the_exhaustive_optimum(variant: Variant, case: Case) -> None:
    """bound <= best of all placements; what is called optimal is as good as that."""
    policy = variant.make(case)
    placement = policy(case.given(variant.takes))
    others = candidates(policy, case, placement)
    best = min(variant.judge(other, case, policy) for other in others)
    assert placement.solve.bound <= best + 1e-9
    if placement.solve.status == "optimal":
        assert placement.solve.objective <= best + 1e-9


def test_a_bound_above_the_optimum_would_be_noticed() -> None:
    """The optimum is no constant, and the exact solver's bound raised by 0.1 % exceeds it."""
    for case in TINY.values():
        values = [hops(placement, case) for placement in one_each(case)]
        assert max(values) > 1.01 * min(values)
        bound = VARIANTS["ilp-load"].make(case)(case.problem).solve.bound
        assert bound <= min(values) + 1e-9 < 1.001 * bound
    # The 90 of the multinomial, and all subsets but those that miss an expert.
    assert len(one_each(TINY["full"])) == 90
    assert len(every_replicated(TINY["replicas"])) < 6**4
