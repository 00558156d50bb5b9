"""The fewest moves that bring the loads of a previous placement below caps: found, and proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement.balance.caps import TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.balance.caps import Places
    from placement.problem import PlacementProblem


def mended(
    problem: PlacementProblem,
    places: Places,
    home: NDArray[np.int64],
    cap: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Change few places so that no load is above its cap; greedy, the count caps are kept.

    Parameters
    ----------
    problem, places
        Loads and count caps.
    home
        int64 [layers, experts]: places of the previous placement.
    cap
        float64 [layers]: most load of a place, as share of the layer's.

    Returns
    -------
    int64 [layers, experts]: places; a layer that was not brought below its cap is above it.
    """
    from placement.balance import _mend_kernel as kernel  # noqa: PLC0415  numba is slow to import
    from placement.balance import _search_kernel as tables  # noqa: PLC0415  as above
    from placement.balance.search import state_of  # noqa: PLC0415  a cycle otherwise

    load = problem.profile.load * problem.experts
    most = cap * problem.experts * (1 + TOLERANCE / 100)
    flat = np.zeros((problem.layers, places.server.size))
    prices = tables.Prices(load, np.zeros((1, 1), np.int64), flat, most, np.ones(problem.layers))
    caps = tables.Caps(
        places.server,
        places.layer_slots,
        places.total_slots,
        problem.layer_slots,
        problem.server_slots,
    )
    state = state_of(places, home, load)
    kernel.mend(state, prices, caps, home)
    place: NDArray[np.int64] = state.place
    return place


def fewest_leaving(
    load: NDArray[np.float64], home: NDArray[np.integer], cap: float, places: int
) -> int:
    """Proven least number of items that must leave their place for no load to be above `cap`.

    From a place that is too hot its hottest items leave first; whatever comes adds to it.

    Parameters
    ----------
    load, home
        [items]: load, and place, below 0 for an item that has none.
    cap
        Most load of a place.
    places
        Number of places.
    """
    least = 0
    for place in range(places):
        taken = np.cumsum(-np.sort(-load[home == place]))
        if taken.size and taken[-1] > cap * (1 + TOLERANCE):
            excess = taken[-1] - cap * (1 + TOLERANCE)
            least += int(np.searchsorted(taken, excess)) + 1
    return least
