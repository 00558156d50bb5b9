"""From the options of a placement to the policy that takes them: exact where there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.costs import link_cost, replica_problem, step_prices
from experiments.errors import ExperimentError
from experiments.workload import domain_profile
from placement import Ilp, IlpLoad, apply_policy
from placement.balance import Balanced
from placement.congestion import CongestionProblem, LeastCongestion
from placement.field import Eplb, HottestEverywhere, doubled_warning
from placement.groups import KeepGroups
from placement.memory import slot_bytes
from placement.moves import Replace
from placement.policies import POLICIES
from placement.replicas import Replicated
from placement.search import LeastCopies, LocalSearch
from placement.step import LeastSeconds

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from experiments.run import Setting
    from experiments.spec import PlacementSpec
    from placement import Placement, PlacementProblem
    from placement.congestion import CongestionResult
    from placement.policy import Policy


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """What is asked of a policy.

    Attributes
    ----------
    spec
        The options.
    setting
        Model, cluster, attention and workload.
    problem
        The setting's problem, under the rules of the engine.
    previous
        The placement to start from, if any.
    """

    spec: PlacementSpec
    setting: Setting
    problem: PlacementProblem
    previous: Placement | None = None

    @property
    def variant(self) -> frozenset[str]:
        """Which of balance, moves, replicas and groups are asked for.

        A previous placement brings its replicas.
        """
        spec, names = self.spec, {"beta", "previous", "keep_groups"} & set(self.spec.asked)
        had = self.previous is not None and self.previous.redundant
        if spec.redundant or had or spec.policy == "replicated":
            names.add("redundant")
        return frozenset(names)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A placement, and what its policy says beyond the report.

    Attributes
    ----------
    placement
        Where the experts went.
    congestion
        The certificate of every layer, from least-congestion.
    least_busiest
        float64 [layers]: proven least load of the busiest GPU over the mean that any choice of
        replicas reaches under the rule, from replicated; None where nothing is proven.
    notes
        Sentences for people.
    """

    placement: Placement
    congestion: CongestionResult | None = None
    least_busiest: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


def choose(order: Order) -> Choice:
    """Place by the policy that the options ask for.

    Raises
    ------
    PlacementError, ExperimentError
        If the policy cannot place, or does not exist.
    """
    name = order.spec.policy
    route = ROUTES.get(name)
    if route is None:
        if name not in POLICIES and ":" not in name:
            allowed = ", ".join(dict.fromkeys((*POLICIES, *ROUTES)))
            raise ExperimentError(
                f"unknown policy '{name}'; allowed: {allowed}, or package.module:Class"
            )
        return Choice(apply_policy(name, order.problem))
    choice = route(order)
    order.problem.check(choice.placement)
    return choice


def _fewest_hops(order: Order) -> Choice:
    return EXACT.get(order.variant, _local_search)(order)


def _ilp_load(order: Order) -> Choice:
    return Choice(IlpLoad(time_limit_s=order.spec.time_limit)(order.problem))


def _ilp(order: Order) -> Choice:
    return Choice(Ilp(time_limit_s=order.spec.time_limit)(order.problem))


def _balanced(order: Order) -> Choice:
    spec = order.spec
    policy = Balanced(
        relax=spec.beta_relax,
        scope=spec.beta_scope,
        price=spec.beta_price,
        seed=spec.search_seed,
        **_given(beta=spec.beta, time_limit_s=spec.time_limit),
    )
    return Choice(policy(order.problem))


def _replace(order: Order) -> Choice:
    spec = order.spec
    if spec.time_limit is not None:
        raise ExperimentError(
            "placement: 'time_limit' with 'previous' goes with 'beta', 'redundant' or "
            "least-copies; moves alone are found by exact flows, which are not cut short"
        )
    per_gb = spec.move_price_gb
    policy = Replace(
        max_moves=spec.max_moves,
        price_hops=spec.move_price,
        price_hops_per_byte=None if per_gb is None else per_gb / 1e9,
        slot_bytes=_slot_bytes(order),
        **_given(previous=order.previous),
    )
    return Choice(policy(order.problem))


def _keep_groups(order: Order) -> Choice:
    return Choice(KeepGroups()(order.problem))


def _replicated(order: Order) -> Choice:
    """Replicas for balance (or up to beta on a GPU), then fewest hops under the rule."""
    spec = order.spec
    rule = spec.replica_rule
    if "beta" in order.variant and (spec.beta_scope == "server" or spec.beta_price is not None):
        return _local_search(order)
    policy = Replicated(
        spec.redundant or 0,
        # The engines' own rules are equal in expectation, or nearly.
        rule=rule if rule in ("equal", "nearest", "lp") else "equal",
        cap=spec.beta,
        relax=spec.beta_relax,
        seed=spec.search_seed,
        time_limit_s=spec.time_limit,
    )
    result = policy.replicate(replica_problem(order.setting, order.problem))
    # SGLang's static rule gives every rank one replica: its loads are near those of `equal` only.
    proven = rule != "sglang_static"
    return Choice(result.placement, least_busiest=result.bound if proven else None)


def _local_search(order: Order) -> Choice:
    return _searched(order, LocalSearch(name=order.spec.policy, **_search_options(order)))


def _least_copies(order: Order) -> Choice:
    spec = order.spec
    shape = order.setting.model
    policy = LeastCopies(
        hop_weighted=spec.hop_weighted,
        robust=spec.robust,
        domains=tuple(domain_profile(shape, Path(path)) for path in spec.domains),
        flatten=spec.flatten,
        **_search_options(order),
    )
    return _searched(order, policy)


def _search_options(order: Order) -> dict[str, Any]:
    """Options that every combination shares."""
    spec = order.spec
    price = spec.move_price or 0.0
    if spec.move_price_gb is not None:
        price = spec.move_price_gb * _slot_bytes(order) / 1e9
    return {
        "scope": spec.beta_scope,
        "beta": spec.beta,
        "relax": spec.beta_relax,
        "beta_price": spec.beta_price,
        "redundant": spec.redundant if order.previous is not None else spec.redundant or None,
        "previous": order.previous,
        "max_moves": spec.max_moves,
        "move_price": price,
        "seed": spec.search_seed,
        "time_limit_s": spec.time_limit,
    }


def _searched(order: Order, policy: Policy) -> Choice:
    rule, placement = order.spec.replica_rule, policy(order.problem)
    if placement.redundant and rule != "equal":
        return Choice(placement, notes=(_searched_under_equal(policy.name, rule),))
    return Choice(placement)


def _searched_under_equal(name: str, rule: str) -> str:
    return (
        f"the search of {name} shares an expert's tokens equally between its replicas, caps "
        f"included; the figures are under '{rule}'"
    )


def _least_congestion(order: Order) -> Choice:
    spec, redundant = order.spec, order.spec.redundant or 0
    policy = LeastCongestion(
        links=spec.links,
        redundant=redundant,
        beta=spec.beta,
        scope=spec.beta_scope,
        seed=spec.search_seed,
        time_limit_s=spec.time_limit,
    )
    result = policy.solve(_with_links(order, redundant))
    notes: tuple[str, ...] = ()
    if redundant and spec.replica_rule != "equal":
        notes = (_searched_under_equal(policy.name, spec.replica_rule),)
    return Choice(result.placement, congestion=result, notes=notes)


def _with_links(order: Order, redundant: int) -> CongestionProblem:
    """Add what loads cost the links, and slots for the replicas, which come on top of the caps."""
    setting, problem = order.setting, order.problem
    if redundant:
        extra = ceil(redundant / problem.servers)
        problem = replace(
            problem,
            layer_slots=problem.layer_slots + extra,
            server_slots=problem.server_slots + extra * problem.layers,
        )
    return CongestionProblem.of(problem, link_cost(setting))


def _least_seconds(order: Order) -> Choice:
    spec = order.spec
    policy = LeastSeconds(
        step_prices(spec, order.setting),
        seed=spec.search_seed,
        **_given(time_limit_s=spec.time_limit),
    )
    return Choice(policy(order.problem))


def _balancer(order: Order) -> Choice:
    name = order.spec.policy
    redundant = order.spec.redundant or 0
    policy = Eplb(redundant=redundant, hierarchical=name == "eplb-auto", name=name)
    placement = policy(order.problem)
    warning = doubled_warning(placement)
    return Choice(placement, notes=() if warning is None else (warning,))


def _hottest(order: Order) -> Choice:
    """Put as many experts on every server as the redundant slots allow."""
    redundant, problem = order.spec.redundant, order.problem
    if redundant is None:
        return Choice(HottestEverywhere()(problem))
    others = problem.servers - 1
    most = problem.experts * others
    if others < 1 or not others <= redundant <= most:
        raise ExperimentError(
            f"placement: hottest takes {max(1, others)} redundant slots for each expert on all "
            f"{problem.servers} servers, {most} for all {problem.experts} experts; got {redundant}"
        )
    hot = redundant // others
    placement, used = HottestEverywhere(hot)(problem), hot * others
    if used == redundant:
        return Choice(placement)
    note = (
        f"hottest uses {used} of the {redundant} redundant slots of a layer: {others} put one "
        "expert on every server"
    )
    return Choice(placement, notes=(note,))


def _slot_bytes(order: Order) -> int:
    return slot_bytes(order.setting.model, bytes_per_parameter=order.spec.bytes_per_parameter)


def _given(**options: Any) -> dict[str, Any]:
    """Options that are not None; the others keep the policy's default."""
    return {name: value for name, value in options.items() if value is not None}


EXACT: dict[frozenset[str], Callable[[Order], Choice]] = {
    frozenset(): _ilp_load,
    frozenset({"beta"}): _balanced,
    frozenset({"previous"}): _replace,
    frozenset({"keep_groups"}): _keep_groups,
    frozenset({"redundant"}): _replicated,
    frozenset({"redundant", "beta"}): _replicated,
}
"""What finds the fewest hops under each option alone; the local search takes all others."""

ROUTES: dict[str, Callable[[Order], Choice]] = {
    "ilp": _ilp,
    "ilp-load": _fewest_hops,
    "replicated": _fewest_hops,
    "keep-groups": _keep_groups,
    "least-copies": _least_copies,
    "least-congestion": _least_congestion,
    "least-seconds": _least_seconds,
    "eplb": _balancer,
    "eplb-auto": _balancer,
    "hottest": _hottest,
}
"""Policies that take options, see `experiments.combine`; the others are called as they are."""
