"""Every policy and variant of one, what its report speaks of, and the laws it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from conformance_cases import experts_divide, groups_fit, runs_fit, turns_fit
from conformance_judges import (
    flat_hops,
    hops,
    link_seconds,
    place_load,
    priced_hops,
    ruled_hops,
    searched_value,
    start_value,
    within,
)

from placement import POLICIES, IlpLoad, make_policy
from placement.balance import Balanced, Places, layer_caps, spread
from placement.congestion import LeastCongestion
from placement.field import Eplb, HottestEverywhere
from placement.moves import Replace, count_moves
from placement.replicas import Replicated
from placement.search import LeastCopies, LocalSearch
from placement.step import LeastSeconds, StepSeconds, step_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance_cases import Case

    from placement import Placement, PlacementProblem, Policy

QUICK = {"proposals": 30, "starts": 2}
STEPS = 300


def always(_: Case) -> bool:
    """Every case suits."""
    return True


@dataclass(frozen=True)
class Variant:
    """One policy with its options.

    Attributes
    ----------
    name
        Of the variant, in test ids.
    make
        Makes the policy for a case, whose previous placements and profiles options refer to.
    judge
        What the report's objective should be, from the definition.
    takes
        Form of the problem: ``problem``, ``origins`` or ``links``.
    servers, experts
        What becomes of the placement when servers, or experts, are renamed:

        - ``same``: the same slots, as the policy does not look at what is renamed;
        - ``follows``: the renamed slots, exactly, as names only break ties;
        - ``home``: the renamed servers; GPUs inside are dealt by expert id;
        - ``load``: the loads of the GPUs, in some order, as packs of one go by expert id;
        - ``value``: other slots perhaps, of an objective and a bound equal to 1e-9: exact
          solvers;
        - ``bound``: the proven bound equal to 1e-9. Annealing draws its proposals by position,
          so a heuristic's objective may differ: it is held to the contract and to its start;
        - ``full``: as ``bound`` where the caps leave no slot free: local search hands free slots
          out by index, and bounds what these slots allow;
        - ``none``: the start goes by index, tokens are dealt to replicas by expert id, or caps
          are what a search found: the contract and the start hold, no more is equal.
    repeats
        Whether replicas may share a GPU.
    accepts
        Which cases suit; others must be refused in one line.
    keeps
        The options' own promise.
    start
        Objective of what the policy starts from, which its own must not exceed; None for none.
    """

    name: str
    make: Callable[[Case], Policy]
    judge: Callable[[Placement, Case, Any], float] = hops
    takes: str = "problem"
    servers: str = "bound"
    experts: str = "bound"
    repeats: bool = False
    accepts: Callable[[Case], bool] = always
    keeps: Callable[[Placement, Case], bool] = field(default=lambda _p, _c: True)
    start: Callable[[Any, Case], float | None] = field(default=lambda _p, _c: None)


# -- policies of this suite -----------------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """A user's policy: hottest experts to servers in turn, the cheapest server first."""

    name: str = "own"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Deal the experts, and start each layer where the last one ended."""
        server = np.empty((problem.layers, problem.experts), dtype=int)
        dealt = np.arange(problem.experts)
        for layer, load in enumerate(problem.profile.load):
            turn = np.argsort(problem.cost.sum(axis=0), kind="stable")
            at = (dealt + layer * problem.experts) % problem.servers
            server[layer, np.argsort(-load, kind="stable")] = turn[at]
        return problem.place(server, policy=self.name)


@dataclass(frozen=True)
class Spread:
    """The hop optimum, its experts spread over each server's GPUs by load."""

    name: str = "ilp-load"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place servers, then GPUs."""
        return spread(problem, IlpLoad()(problem))


# -- the built-in names --------------------------------------------------------------------------

BLIND = {"servers": "same", "experts": "same"}
BY_LOAD = {"servers": "same", "experts": "follows"}
NAMED = {
    "contiguous": {**BLIND, "accepts": runs_fit},
    "round-robin": {**BLIND, "accepts": turns_fit},
    "random": BLIND,
    "greedy": {"servers": "value", "experts": "same"},
    "greedy-load": {"servers": "value", "experts": "home"},
    "ilp": {"servers": "value", "experts": "same", "judge": flat_hops},
    "ilp-load": {"servers": "value", "experts": "value"},
    "keep-groups": {"servers": "value", "experts": "value", "accepts": groups_fit},
    "eplb": {"servers": "same", "experts": "load", "accepts": experts_divide},
    "eplb-auto": {"servers": "same", "experts": "load", "accepts": experts_divide},
    "pairs": BY_LOAD,
    "affinity": BY_LOAD,
    "cluster-map": BY_LOAD,
    # Runs of consecutive experts, whose hottest are added everywhere.
    "hottest": {"servers": "same", "experts": "none"},
    "least-copies": {
        "servers": "same",
        "experts": "full",
        "judge": searched_value,
    },
    "replicated": {"accepts": experts_divide},
}


def named() -> list[Variant]:
    """Everything in `POLICIES`, with its defaults."""
    assert list(NAMED) == list(POLICIES)
    return [
        Variant(name, lambda _, name=name: make_policy(name), **options)
        for name, options in NAMED.items()
    ]


# -- families ------------------------------------------------------------------------------------


def workable(case: Case, scope: str) -> float:
    """Return a beta that every layer can meet, and that binds."""
    caps = layer_caps(case.problem, 1.0, relax=True, scope=scope)
    return 1.1 * max(1.0, float(caps.least.max()) * Places.of(case.problem, scope).server.size)


def balanced() -> list[Variant]:
    """Caps on the load of servers or GPUs: hard, relaxed, priced."""
    variants = []
    for scope in ("server", "gpu"):
        quick = {"scope": scope, "proposals": 30}
        variants += [
            Variant(
                f"balanced {scope} hard",
                lambda case, q=quick: Balanced(workable(case, q["scope"]), **q),
                keeps=lambda p, case, s=scope: within(p, case, workable(case, s), s),
            ),
            Variant(
                f"balanced {scope} relaxed",
                lambda _, q=quick: Balanced(1.1, relax=True, **q),
                # Relaxed caps are the least loads that a search found.
                servers="none",
                experts="none",
            ),
            Variant(
                f"balanced {scope} priced",
                lambda _, q=quick: Balanced(1.1, price=0.5, **q),
                judge=priced_hops,
            ),
        ]
    return variants


def replaced() -> list[Variant]:
    """From a previous placement: free, few moves, at a price, at a price by the byte."""
    options = {
        "free": ({}, "value"),
        "few moves": ({"max_moves": 3}, "bound"),
        "no moves": ({"max_moves": 0}, "value"),
        "at a price": ({"price_hops": 0.1}, "value"),
        "by the byte": ({"price_hops_per_byte": 0.01, "slot_bytes": 10}, "value"),
    }
    return [
        Variant(
            f"replace {name}",
            lambda case, given=given: Replace(case.previous, **given),
            servers=law,
            experts=law,
            keeps=lambda p, case, given=given: (
                count_moves(case.previous, p).servers
                <= given.get("max_moves", p.layers * p.experts)
            ),
            start=lambda _, case: hops(case.previous, case),
        )
        for name, (given, law) in options.items()
    ]


def replicated() -> list[Variant]:
    """Redundant slots, under the three rules, with and without a cap on the load."""
    return [
        Variant(
            f"replicated {rule}{' capped' if cap else ''}",
            lambda case, rule=rule, cap=cap: Replicated(
                case.redundant, rule, cap=cap, relax=True, steps=STEPS
            ),
            judge=ruled_hops,
            takes="origins",
            # The hops are bounded under the least load that a search found.
            servers="none",
            experts="none",
        )
        for rule, cap in product(("equal", "nearest", "lp"), (None, 1.5))
    ]


def fields() -> list[Variant]:
    """The field's policies with replicas and other scopes."""
    return [
        Variant(
            f"eplb {'hierarchical' if hierarchical else 'global'} with replicas",
            lambda case, h=hierarchical: Eplb(max(case.redundant, 0), hierarchical=h),
            servers="same",
            experts="load",
            repeats=True,
        )
        for hierarchical in (False, True)
    ] + [
        Variant(
            f"hottest on every {scope}{' from ilp-load' if base else ''}",
            lambda _, scope=scope, base=base: HottestEverywhere(scope=scope, base=base),
            servers="none" if base else "same",
            experts="none",
        )
        for scope, base in product(("server", "gpu"), (None, IlpLoad()))
    ]


def congested() -> list[Variant]:
    """Least busiest link, in seconds."""
    return [
        Variant(
            f"least-congestion {name}",
            lambda case, given=given: LeastCongestion(**given(case)),
            judge=link_seconds,
            takes="links",
            servers="bound",
            experts="bound",
            accepts=accepts,
        )
        for name, given, accepts in (
            ("all", lambda _: {}, always),
            ("fabric", lambda _: {"links": "fabric"}, always),
            ("beta", lambda case: {"beta": workable(case, "server")}, always),
            ("beta gpu", lambda case: {"beta": workable(case, "gpu"), "scope": "gpu"}, always),
            ("redundant", lambda _: {"redundant": 1}, room_for_one),
        )
    ]


def room_for_one(case: Case) -> bool:
    """Whether the caps hold a slot more in every layer, and a GPU a second replica."""
    problem = case.problem
    slots = problem.experts + 1
    room = min(problem.layer_slots * problem.layers, problem.server_slots) * problem.servers
    return (
        case.most_redundant >= 1
        and slots <= problem.layer_slots * problem.servers
        and slots * problem.layers <= room
    )


def searched() -> list[Variant]:
    """Everything that local search combines."""
    weights = {"hops": (1.0, 0.0), "copies": (0.0, 1.0), "both": (1.0, 0.5)}
    variants = []
    for goal, beta, replicas, moves in product(weights, (None, 1.4), (False, True), (False, True)):
        hop, copy = weights[goal]
        options = {"hops": hop, "copies": copy, "beta": beta, "relax": True, **QUICK}
        words = [goal, *["beta"] * bool(beta), *["replicas"] * replicas, *["moves"] * moves]
        by_start = "none" if replicas and not moves else "full"
        variants.append(
            Variant(
                f"local-search {' '.join(words)}",
                lambda case, o=options, r=replicas, m=moves: LocalSearch(**o, **_start(case, r, m)),
                judge=searched_value,
                start=start_value,
                servers=by_start,
                experts="none" if replicas and copy else by_start,
            )
        )
    return [*variants, *hard()]


def _start(case: Case, replicas: bool, moves: bool) -> dict[str, Any]:
    """Options that say where local search starts."""
    if not moves:
        return {"base": HottestEverywhere() if replicas else IlpLoad()}
    previous = case.replicated if replicas else case.previous
    return {"previous": previous, "max_moves": 3, "move_price": 0.05}


def hard() -> list[Variant]:
    """A beta that the previous placement just keeps, so that none may be refused."""

    def beta(case: Case, scope: str) -> float:
        return float(place_load(case.replicated, case, scope).max())

    return [
        Variant(
            f"local-search on {scope}s within a hard beta",
            lambda case, s=scope: LocalSearch(
                copies=0.5, scope=s, previous=case.replicated, beta=beta(case, s), **QUICK
            ),
            judge=searched_value,
            servers="none",
            experts="none",
            keeps=lambda p, case, s=scope: within(p, case, beta(case, s), s),
            start=start_value,
        )
        for scope in ("server", "gpu")
    ]


def copied() -> list[Variant]:
    """Variants of least copies."""
    shapes = {
        "on servers": {"scope": "server"},
        "by hops": {"hop_weighted": True},
        "by hops from ilp-load": {"hop_weighted": True, "base": IlpLoad()},
        "flattened": {"flatten": 1.0},
        "robust mean": {"robust": "mean"},
        "robust worst": {"robust": "worst"},
        "robust deviation": {"robust": 1.0},
    }
    return [
        Variant(
            f"least-copies {name}",
            lambda case, given=given: LeastCopies(
                **given,
                domains=(case.problem.profile, case.second) if "robust" in given else (),
                **QUICK,
            ),
            judge=searched_value,
            start=start_value,
            servers="full" if "hop_weighted" in given else "same",
            experts="full",
        )
        for name, given in shapes.items()
    ]


OTHERS = [
    Variant(
        "least-seconds",
        lambda _: LeastSeconds(StepSeconds(64, 13e-6, 1e-6, 1e-10, 700, 1400), proposals=20),
        judge=lambda placement, case, policy: (
            step_seconds(placement, case.problem, policy.step).mean_s
        ),
    ),
    Variant("spread", lambda _: Spread(), servers="value", experts="value"),
    Variant("a user's own", lambda _: Own(), servers="none", experts="home"),
]
VARIANTS = {
    variant.name: variant
    for family in (named, balanced, replaced, replicated, fields, congested, searched, copied)
    for variant in family()
} | {variant.name: variant for variant in OTHERS}
