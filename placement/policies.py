"""Names of the policies, and policies of the user's own."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from placement.baselines import Contiguous, Random, RoundRobin
from placement.errors import PlacementError
from placement.field import (
    ClusterThenMap,
    CollaborativePairs,
    Eplb,
    HottestEverywhere,
    InterLayerAffinity,
)
from placement.greedy import Greedy, GreedyLoad
from placement.groups import KeepGroups
from placement.hops import Ilp, IlpLoad
from placement.placement import Placement
from placement.replicas import Replicated
from placement.search import LeastCopies

if TYPE_CHECKING:
    from collections.abc import Callable

    from placement.policy import Policy
    from placement.problem import PlacementProblem

POLICIES: dict[str, Callable[[], Policy]] = {
    "contiguous": Contiguous,
    "round-robin": RoundRobin,
    "random": Random,
    "greedy": Greedy,
    "greedy-load": GreedyLoad,
    "ilp": Ilp,
    "ilp-load": IlpLoad,
    "keep-groups": KeepGroups,
    "eplb": partial(Eplb, hierarchical=False),
    "eplb-auto": partial(Eplb, name="eplb-auto"),
    "pairs": CollaborativePairs,
    "affinity": InterLayerAffinity,
    "cluster-map": ClusterThenMap,
    "hottest": HottestEverywhere,
    "least-copies": LeastCopies,
    "replicated": partial(Replicated, 0),
}
"""The built-in policies that need no parameter, in the order tables list them."""


def apply_policy(name: str, problem: PlacementProblem) -> Placement:
    """Let the policy called `name` place, and see that it did.

    A policy of the user's own works on a copy of the problem.

    Raises
    ------
    PlacementError
        If the user's policy raises, or returns no placement of this problem.
    InfeasibleError
        If the placement breaks a cap.
    """
    chosen = make_policy(name)
    placement = chosen(problem) if name in POLICIES else _guarded(name, chosen, problem)
    problem.check(placement)
    return placement


def _guarded(name: str, own: Policy, problem: PlacementProblem) -> Placement:
    known = problem.profile
    choices = None if known.choices is None else known.choices.copy()
    profile = replace(known, load=known.load.copy(), choices=choices)
    try:
        placement = own(replace(problem, profile=profile))
    except PlacementError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise PlacementError(f"policy '{name}' raised {type(error).__name__}: {error}") from error
    if not isinstance(placement, Placement):
        raise PlacementError(
            f"policy '{name}' must return a Placement (problem.place makes one), got "
            f"{type(placement).__name__}"
        )
    if own.name in POLICIES:
        raise PlacementError(f"policy '{name}' is named '{own.name}', as a built-in one is")
    if placement.policy != own.name:
        raise PlacementError(
            f"policy '{name}' is named '{own.name}' but signs its placement '{placement.policy}'"
        )
    return placement


def make_policy(name: str) -> Policy:
    """Return the policy called `name`: a built-in one, or ``package.module:Class`` of the user.

    Raises
    ------
    PlacementError
        If there is no such policy, or the class cannot be imported or made.
    """
    if name in POLICIES:
        return POLICIES[name]()
    if ":" not in name:
        raise PlacementError(
            f"unknown policy '{name}'; allowed: {', '.join(POLICIES)}, or package.module:Class"
        )
    module, _, attribute = name.partition(":")
    try:
        own: Policy = getattr(importlib.import_module(module), attribute)()
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise PlacementError(
            f"policy '{name}' cannot be made: {type(error).__name__}: {error}"
        ) from error
    if not callable(own) or not isinstance(getattr(own, "name", None), str):
        raise PlacementError(
            f"policy '{name}' must be callable with a problem and have a name (a string)"
        )
    return own
