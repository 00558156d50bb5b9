"""What a placement policy is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from placement.placement import Placement
    from placement.problem import PlacementProblem


class Policy(Protocol):
    """An object that is called with a problem and returns a placement.

    Hyper-parameters belong in the constructor, data in the call. `name` is how tables and files
    call the policy.
    """

    @property
    def name(self) -> str:
        """How tables and files call the policy."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place every expert of `problem`."""
