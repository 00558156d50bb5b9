"""Max-min fair rates of a set of flows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError
from sim.network._fluid_routes import bundle_rows
from sim.network._fluid_state import BUNDLE, FIRST, LAST, new_state, with_room, with_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sim.network._fluid_routes import Bundles
    from sim.network._fluid_state import State


def max_min_rates(
    indptr: ArrayLike, link: ArrayLike, fraction: ArrayLike, *, capacity: ArrayLike
) -> NDArray[np.float64]:
    """Return float64 [flows]: the rates that no flow can better but at the cost of a slower one.

    Parameters
    ----------
    indptr, link, fraction
        int [flows + 1], int [entries] and float [entries]: flow i at rate r takes
        ``r * fraction[e]`` of ``link[e]`` for every entry e from indptr[i] to indptr[i + 1] - 1.
        `topologies.Router.link_usage` gives them.
    capacity
        [links], in the unit of the rates.

    Raises
    ------
    SimulationError
        If a flow crosses no link, or a fraction or capacity is not positive and finite.
    """
    starts, links = np.asarray(indptr, dtype=np.int64), np.asarray(link, dtype=np.int32)
    parts, room = np.asarray(fraction, dtype=np.float64), np.asarray(capacity, dtype=np.float64)
    if (np.diff(starts) < 1).any():
        flow = int((np.diff(starts) < 1).argmax())
        raise SimulationError(f"flow {flow} crosses no link; expected one or more")
    for what, values in (("fractions", parts), ("capacities", room)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise SimulationError(f"{what} must be positive and finite")
    from sim.network._fill_kernel import fill  # noqa: PLC0415  loads numba

    flows = len(starts) - 1
    state = with_rows(new_state(room, steps=np.inf, bins=2), flows)
    state = _with_routes(state, bundle_rows(starts, links, parts))
    fill(state, 0, flows)
    return state.rows.rate[:flows].copy()


def _with_routes(state: State, routes: Bundles) -> State:
    state = with_room(state, "bundles", len(routes.indptr) - 1)
    state = with_room(state, "entries", len(routes.link))
    state.bundles["begin"], state.bundles["end"] = routes.indptr[:-1], routes.indptr[1:]
    state.entries["link"], state.entries["fraction"] = routes.link, routes.fraction
    for column, values in ((FIRST, routes.first), (LAST, routes.last), (BUNDLE, routes.bundle)):
        state.rows.way[:, column] = values
    return state
