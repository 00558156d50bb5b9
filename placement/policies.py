"""Names of the policies, and policies of the user's own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from placement.baselines import Contiguous, Random, RoundRobin
from placement.errors import PlacementError
from placement.greedy import Greedy, GreedyLoad
from placement.hops import Ilp, IlpLoad

if TYPE_CHECKING:
    from collections.abc import Callable

    from placement.policy import Policy

POLICIES: dict[str, Callable[[], Policy]] = {
    "contiguous": Contiguous,
    "round-robin": RoundRobin,
    "random": Random,
    "greedy": Greedy,
    "greedy-load": GreedyLoad,
    "ilp": Ilp,
    "ilp-load": IlpLoad,
}
"""The built-in policies, in the order tables list them."""


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
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise PlacementError(f"policy '{name}' cannot be made: {error}") from error
    if not callable(own) or not isinstance(getattr(own, "name", None), str):
        raise PlacementError(
            f"policy '{name}' must be callable with a problem and have a name (a string)"
        )
    return own
