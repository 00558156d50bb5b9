"""Training tokens as policies see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from placement.errors import PlacementError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workloads import ExpertProfile


def training_choices(profile: ExpertProfile, policy: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the choices [tokens, layers, k] that a profile keeps.

    Raises
    ------
    PlacementError
        If it has none, saying how to give them.
    """
    if profile.choices is None:
        raise PlacementError(
            f"policy '{policy}' needs the experts each token chose, and the profile from "
            f"'{profile.source}' has loads only: give a routing trace "
            "(--trace; from Python ExpertProfile.from_trace(trace, keep_choices=True)) instead of "
            "loads"
        )
    return profile.choices
