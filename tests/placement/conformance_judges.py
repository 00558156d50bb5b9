"""What the reports of policies speak of, counted from the definitions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import chain, permutations, product
from typing import TYPE_CHECKING

import numpy as np

from placement import evaluate
from placement.replicas import evaluate_replicas
from placement.replicas.rules import LeastHops, gpu_load, make_rule, replica_flows
from placement.search.flatten import flattened
from placement.search.items import items_of
from workloads import ExpertProfile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conformance_cases import Case

    from placement import Placement
    from placement.balance import Balanced
    from placement.congestion import LeastCongestion
    from placement.replicas import ReplicaRule, Replicated
    from placement.search import LeastCopies, LocalSearch

    Searched = LocalSearch | LeastCopies


def hops(placement: Placement, case: Case, _policy: object = None) -> float:
    """Hops per token and layer, replicas sharing equally."""
    return evaluate(placement, case.problem).hops_per_token_layer


def flat_hops(placement: Placement, case: Case, _policy: object = None) -> float:
    """Hops per token and layer as if all experts were chosen alike."""
    problem = case.problem
    load = np.full((problem.layers, problem.experts), 1 / problem.experts)
    flat = replace(problem, profile=ExpertProfile(load=load, source="flat"))
    return evaluate(placement, flat).hops_per_token_layer


def link_seconds(placement: Placement, case: Case, policy: LeastCongestion) -> float:
    """Busiest link's seconds, mean over layers, dispatch and combine added."""
    seconds = case.links.links.seconds(place_load(placement, case, "gpu") / case.gpus)
    if policy.links == "fabric":
        seconds = seconds[:, :, np.unique(case.links.links.fabric_link)]
    return float(seconds.max(axis=2, initial=0.0).sum(axis=1).mean())


def place_load(placement: Placement, case: Case, scope: str) -> np.ndarray:
    """Load of every place over the mean, slot by slot: [layers, places]."""
    inside = placement.gpus_per_server if scope == "server" else 1
    heat = np.zeros((placement.layers, placement.gpus // inside))
    for layer, gpu, expert in zip(
        placement.slot_layer, placement.slot_gpu, placement.slot_expert, strict=True
    ):
        share = case.problem.profile.load[layer, expert] / placement.replicas[layer, expert]
        heat[layer, gpu // inside] += share * heat.shape[1]
    return heat


def within(placement: Placement, case: Case, beta: float, scope: str) -> bool:
    """Whether no place exceeds beta times the mean."""
    return bool(place_load(placement, case, scope).max() <= beta * (1 + 1e-9))


def priced_hops(placement: Placement, case: Case, policy: Balanced) -> float:
    """Hops, and the price of the load above beta: mean over layers, in mean loads of a place."""
    over = np.maximum(place_load(placement, case, policy.scope) - policy.beta, 0.0)
    return hops(placement, case) + policy.price * float(over.sum(axis=1).mean())


@cache
def caps_of(policy: Replicated, case: Case) -> tuple[float, ...]:
    """Load over the mean that the policy kept every layer's GPUs to."""
    return tuple(policy.replicate(case.origins).cap.tolist())


def rule_of(policy: Replicated, case: Case) -> ReplicaRule:
    """Return the rule that the policy places for; of lp, under the policy's caps."""
    return LeastHops(caps_of(policy, case)) if policy.rule == "lp" else make_rule(policy.rule)


def ruled_hops(placement: Placement, case: Case, policy: Replicated) -> float:
    """Hops under the policy's rule."""
    rule = rule_of(policy, case)
    return evaluate_replicas(placement, case.origins, rule).hops_per_token_layer


def ruled_load(placement: Placement, case: Case, policy: Replicated) -> np.ndarray:
    """Busiest GPU of every layer over the mean, under the policy's rule."""
    flows = replica_flows(placement, case.origins, rule_of(policy, case))
    return gpu_load(placement, flows).max(axis=1) * placement.gpus


def searched_value(placement: Placement, case: Case, policy: Searched) -> float:
    """Local search's objective: hops, copies and price of moves, token by token.

    Where experts have replicas the search deals tokens to numbered replicas, and a placement
    does not say which of its slots has which number: of the values that some numbering gives,
    this is the one nearest to what the placement reports, or the least if it reports nothing.
    """
    claimed = 0.0 if placement.solve is None else placement.solve.objective
    fixed, sums = _hops_part(placement, case, policy), {0.0}
    for layer, gpus in _gpus_of_experts(placement):
        numberings = product(*(sorted(set(permutations(row))) for row in gpus))
        values = {round(_value(layer, numbering, case, policy), 10) for numbering in numberings}
        sums = {round(a + b / placement.layers, 10) for a in sums for b in values}
    return min((fixed + total for total in sums), key=lambda total: abs(total - claimed))


def start_value(policy: Searched, case: Case) -> float | None:
    """Objective of the placement the search starts from; None if it is not known or breaks beta."""
    start = _start_of(policy, case)
    if start is None or not within(start, case, policy.beta or np.inf, policy.scope):
        return None
    values = [_value(layer, gpus, case, policy) for layer, gpus in _gpus_of_experts(start)]
    return _hops_part(start, case, policy) + float(np.mean(values))


def _start_of(policy: Searched, case: Case) -> Placement | None:
    if policy.previous is not None:
        return policy.previous
    return None if policy.base is None else policy.base(case.problem)


def _hops_part(placement: Placement, case: Case, policy: Searched) -> float:
    return getattr(policy, "hops", 0.0) * hops(placement, case)


def _gpus_of_experts(placement: Placement) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield every layer with the GPUs of each expert's slots, ascending."""
    for layer in range(placement.layers):
        mine = placement.slot_layer == layer
        gpu, expert = placement.slot_gpu[mine], placement.slot_expert[mine]
        yield layer, [sorted(gpu[expert == e].tolist()) for e in range(placement.experts)]


def _value(layer: int, gpus: Sequence[Sequence[int]], case: Case, policy: Searched) -> float:
    """Copies and price of moves of one layer, replica j of expert e on ``gpus[e][j]``."""
    inside = case.problem.gpus_per_server if policy.scope == "server" else 1
    place = [gpu // inside for row in gpus for gpu in row]
    value = 0.0
    if policy.previous is not None:
        before = dict(_gpus_of_experts(policy.previous))[layer]
        came = [gpu // inside for row in before for gpu in row]
        moved = sum(a != b for a, b in zip(came, place, strict=True))
        value += policy.move_price * case.problem.layers * moved
    weight = getattr(policy, "copies", 1.0)
    return value + weight * _copies(layer, place, case, policy) if weight else value


def _copies(layer: int, place: list[int], case: Case, policy: Searched) -> float:
    """Cost of a token's copies, replicas of expert 0 first, then those of 1, ... [slots]."""
    problem = case.problem
    inside = 1 if policy.scope == "server" else problem.gpus_per_server
    cost = np.repeat(problem.cost[layer], inside) if policy.hop_weighted else None
    sent = []
    for known in policy.domains or (problem.profile,):
        chosen = known.choices[:, layer]
        if policy.flatten:
            chosen = flattened(chosen, known.load[layer], policy.flatten)
        items = _dealt(chosen, layer, case, policy).tolist()
        reached = [{place[item] for item in row} for row in items]
        sent.append([len(row) if cost is None else cost[[*row]].sum() for row in reached])
    means = np.array([np.mean(row) for row in sent])
    if policy.robust == "mean":
        return float(np.mean([*chain.from_iterable(sent)]))
    if policy.robust == "worst":
        return float(means.max())
    return float(means.mean() + policy.robust * means.std())


def _dealt(chosen: np.ndarray, layer: int, case: Case, policy: Searched) -> np.ndarray:
    """Slots that tokens use: without replicas those of their experts, else as the search deals."""
    start = _start_of(policy, case)
    if start is None or not start.redundant:
        return chosen
    return list(items_of(start))[layer].of_choices(chosen)
