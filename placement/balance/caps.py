"""How evenly a layer can be spread at all, and the load caps that follow from beta."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError, PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem

SCOPES = ("server", "gpu")
"""What the cap on load speaks of."""

TOLERANCE = 1e-9
"""Relative excess of a load over its cap that is rounding."""

_KICKS = 3000
_SHOWN = 1.5e-4
"""Distance of a beta from its bound that is more than the rounding of both in a message."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The places whose load is capped, servers or GPUs, and the count caps on them.

    Attributes
    ----------
    server
        int64 [places]: server of every place.
    layer_slots, total_slots
        Most experts on a place: of one layer, over all layers.
    """

    server: NDArray[np.int64]
    layer_slots: int
    total_slots: int

    @classmethod
    def of(cls, problem: PlacementProblem, scope: str) -> Places:
        """Return the servers, or their GPUs with ``ceil(slots / gpus)`` slots each."""
        if scope not in SCOPES:
            raise PlacementError(f"unknown scope '{scope}'; allowed: {', '.join(SCOPES)}")
        each = problem.gpus_per_server if scope == "gpu" else 1
        return cls(
            server=np.repeat(np.arange(problem.servers), each),
            layer_slots=ceil(problem.layer_slots / each),
            total_slots=ceil(problem.server_slots / each),
        )

    @property
    def per_server(self) -> int:
        """Places of a server."""
        return self.server.size // int(self.server[-1] + 1)


@dataclass(frozen=True, slots=True, eq=False)
class LayerCaps:
    """Load caps of every layer, in shares of the layer's load.

    Attributes
    ----------
    cap
        float64 [layers]: most load of a place.
    wanted
        ``beta`` times the mean load of a place.
    least
        float64 [layers]: the least maximum load of a place that was found under the count caps;
        the search stops once it is within `wanted`.
    least_bound
        float64 [layers]: no placement has a lower maximum.
    packing
        int64 [layers, experts]: the place of every expert that gives `least`; places are
        interchangeable here.
    """

    cap: NDArray[np.float64]
    wanted: float
    least: NDArray[np.float64]
    least_bound: NDArray[np.float64]
    packing: NDArray[np.int64]

    @property
    def short(self) -> NDArray[np.bool_]:
        """bool [layers]: layers for which no packing within `wanted` was found."""
        return self.least > self.wanted * (1 + TOLERANCE)


def layer_caps(
    problem: PlacementProblem,
    beta: float,
    *,
    relax: bool = False,
    even: bool = False,
    scope: str = "server",
    seed: int = 0,
) -> LayerCaps:
    """Return ``beta`` x mean for every layer, or what comes nearest where that cannot hold.

    Parameters
    ----------
    problem
        Loads and count caps.
    beta
        Most load of a place over the mean.
    relax
        Give a layer that falls short its least maximum load as cap, instead of refusing.
    even
        Look only at packings whose places take ``ceil(E / places)`` experts at most: those of
        all layers fit together under C_exp most easily.
    scope
        ``server`` or ``gpu``.
    seed
        Of the search for the least maximum.

    Raises
    ------
    InfeasibleError
        If a layer cannot meet beta and `relax` is off; names layer, expert and what would do.
    """
    places = Places.of(problem, scope)
    wanted = wanted_load(places, beta)
    bound = least_maximum_bound(problem, places)
    packing, least = _pack(problem, places, np.maximum(bound, wanted), even=even, seed=seed)
    cap = np.where(least > wanted * (1 + TOLERANCE), least, wanted)
    caps = LayerCaps(cap=cap, wanted=wanted, least=least, least_bound=bound, packing=packing)
    if caps.short.any() and not relax:
        workable = _workable(problem, places, caps, seed)
        raise InfeasibleError(_why(problem, places, caps, beta, workable))
    return caps


def priced_caps(problem: PlacementProblem, beta: float, *, scope: str = "server") -> LayerCaps:
    """Return ``beta`` x mean for every layer, to be exceeded at a price: no layer is short."""
    places = Places.of(problem, scope)
    wanted = np.full(problem.layers, wanted_load(places, beta))
    return LayerCaps(
        cap=wanted,
        wanted=float(wanted[0]),
        least=wanted,
        least_bound=least_maximum_bound(problem, places),
        packing=np.zeros((problem.layers, problem.experts), dtype=np.int64),
    )


def wanted_load(places: Places, beta: float) -> float:
    """Return ``beta`` x the mean load of a place, as share of a layer's load."""
    if not (np.isfinite(beta) and beta >= 1):
        raise PlacementError(f"beta must be a number of at least 1 (the mean), got {beta}")
    return beta / places.server.size


def least_maximum_bound(problem: PlacementProblem, places: Places) -> NDArray[np.float64]:
    """float64 [layers]: max(mean, hottest expert + the m - 1 coldest).

    m is what the place of the hottest expert must take when all others are full:
    ``max(1, E - (S - 1) * C_layer)`` for servers.
    """
    load = np.sort(problem.profile.load, axis=1)
    hot: NDArray[np.float64] = load[:, -1] + load[:, : beside(problem, places)].sum(axis=1)
    bound: NDArray[np.float64] = np.maximum(hot, load.sum(axis=1) / places.server.size)
    return bound


def beside(problem: PlacementProblem, places: Places) -> int:
    """Return m - 1: experts that must join any one on its place when all others are full."""
    in_server = min((places.per_server - 1) * places.layer_slots, problem.layer_slots)
    others = (problem.servers - 1) * problem.layer_slots + in_server
    return max(1, problem.experts - others) - 1


def _pack(
    problem: PlacementProblem,
    places: Places,
    target: NDArray[np.float64],
    *,
    even: bool,
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Search every layer for a light maximum: with even counts if they do, else with any."""
    from placement.balance._pack_kernel import least_maximum  # noqa: PLC0415  numba is slow to import

    load = problem.profile.load
    order = np.argsort(-load, axis=1, kind="stable")
    most = [(ceil(problem.experts / places.server.size), ceil(problem.experts / problem.servers))]
    if not even:
        most.append((places.layer_slots, problem.layer_slots))
    packing, least = np.empty(load.shape, dtype=np.int64), np.full(len(load), np.inf)
    rng = np.random.Generator(np.random.PCG64(seed))
    trial = np.empty(problem.experts, dtype=np.int64)
    for at, row in enumerate(np.take_along_axis(load, order, axis=1)):
        enough = target[at] * (1 + TOLERANCE / 10)
        for each in dict.fromkeys(most):
            if least[at] > enough:
                found = least_maximum(rng, row, (places.server, *each), enough, _KICKS, trial)
                if found < least[at]:
                    least[at], packing[at, order[at]] = found, trial
    return packing, least


def _workable(problem: PlacementProblem, places: Places, caps: LayerCaps, seed: int) -> float:
    """Return a load of a place that all layers can keep to together, under C_exp too.

    Packings that suit each layer may crowd a server over all layers; even ones do not.
    """
    server = places.server[caps.packing]
    held = np.zeros(problem.servers, dtype=np.int64)
    for row in server:
        counts = np.sort(np.bincount(row, minlength=problem.servers))
        # Servers are interchangeable here: the fullest of this layer joins the emptiest so far.
        held[np.argsort(-held, kind="stable")] += counts
    if held.max() <= problem.server_slots:
        return float(caps.least.max())
    target = np.maximum(caps.least_bound, caps.wanted)
    return float(_pack(problem, places, target, even=True, seed=seed)[1].max())


def _why(
    problem: PlacementProblem, places: Places, caps: LayerCaps, beta: float, workable: float
) -> str:
    """Say which layer cannot meet beta, why, and what would do."""
    mean = 1 / places.server.size
    layer = int(np.argmax(caps.least))
    load = problem.profile.load[layer]
    expert = int(np.argmax(load))
    hot = float(load[expert])
    place = "server" if places.per_server == 1 else "GPU"
    proven = caps.least_bound[layer] > caps.wanted * (1 + TOLERANCE)
    text = (
        f"beta {beta:g} {'cannot be met' if proven else 'was not met'} in layer {layer}: expert "
        f"{expert} alone carries {hot / mean:.4g} x the mean {place} load"
    )
    company = float(np.sort(load)[: beside(problem, places)].sum())
    if proven and company > 0:
        text += f", {(hot + company) / mean:.4g} x with the coldest that must sit beside it"
    # Rounded up: the beta that is named must work.
    least = ceil(workable / mean * 1e4) / 1e4
    text += f"; the least workable beta found is {least:.4f}"
    bound = floor(float(caps.least_bound.max()) / mean * 1e4) / 1e4
    if least - bound > _SHOWN:
        text += f" (proven: not below {bound:.4f})"
    if caps.wanted < hot + company and company < caps.wanted:
        text += f", or {ceil(hot / (caps.wanted - company))} replicas of that expert"
    short = int(caps.short.sum())
    return text + (f" ({short} layers are short)" if short > 1 else "")
