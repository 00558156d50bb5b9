"""Keep routing groups together: a token that uses few groups then meets few servers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError, PlacementError
from placement.hops import hop_optimum
from placement.solve import SolveReport, status_of
from placement.spread import balance_in_tiers
from workloads import ExpertProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class KeepGroups:
    """Least expected hops with every routing group whole on one home.

    A home is a server, or, where there are more servers than groups, a fixed run of
    neighbouring servers. Groups are placed as the hop program places experts: exactly, by the
    flow over prefixes of the groups' sorted loads. In a home of several servers each takes the
    same number of a group's experts, balanced. The bound prices a home at its cheapest server,
    so it is tight where homes are servers.

    Source of the idea: DeepSeek-V3's node-limited routing (arXiv 2412.19437), whose groups were
    made to sit on one node each.
    """

    name: str = "keep-groups"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place whole groups.

        Raises
        ------
        PlacementError
            If the model has no groups, or groups and servers do not divide each other.
        InfeasibleError
            If a cap cannot hold a whole group.
        """
        begun = time.perf_counter()
        homes = _homes(problem)
        placed = _group_problem(problem, homes, np.mean)
        loads = placed.profile.load
        optimum = hop_optimum(placed, loads)
        home = balance_in_tiers(loads, optimum.counts, optimum.tiers.tier_of_server)
        server = _within_homes(problem, homes, home)
        bound = hop_optimum(_group_problem(problem, homes, np.min), loads).bound_hops
        hops = problem.top_k * float(
            (problem.profile.load * np.take_along_axis(problem.cost, server, axis=1)).sum()
        )
        objective = hops / problem.layers
        report = SolveReport(
            status=status_of(objective, bound),
            objective=objective,
            bound=bound,
            seconds=time.perf_counter() - begun,
            limit=optimum.limit,
        )
        return problem.place(server, policy=self.name, solve=report)


def group_loads(problem: PlacementProblem) -> NDArray[np.float64]:
    """float64 [layers, groups]: load of every routing group."""
    by_group = problem.profile.load.reshape(problem.layers, _groups(problem), -1)
    total: NDArray[np.float64] = by_group.sum(axis=2)
    return total


def _groups(problem: PlacementProblem) -> int:
    if problem.n_group is None:
        raise PlacementError(
            f"keep-groups: model '{problem.model}' has no routing groups; use ilp-load"
        )
    return problem.n_group


def _homes(problem: PlacementProblem) -> NDArray[np.int64]:
    """int64 [homes, servers of a home]: runs of neighbouring servers."""
    groups, servers = _groups(problem), problem.servers
    if servers <= groups:
        return np.arange(servers)[:, None]
    size = problem.experts // groups
    if servers % groups or size % (servers // groups):
        raise PlacementError(
            f"keep-groups: {servers} servers cannot share {groups} groups of {size} experts "
            "evenly; expected a multiple of the groups that divides a group's experts"
        )
    return np.arange(servers).reshape(groups, -1)


def _group_problem(
    problem: PlacementProblem, homes: NDArray[np.int64], price: np.ufunc | object
) -> PlacementProblem:
    """The same problem with groups for experts and homes for servers."""
    groups, members = _groups(problem), homes.shape[1]
    size = problem.experts // groups
    caps = problem.layer_slots * members // size, problem.server_slots * members // size
    for cap, need in zip(caps, (groups, groups * problem.layers), strict=True):
        if len(homes) * cap < need:
            raise InfeasibleError(
                f"keep-groups: the caps hold {len(homes) * cap} whole groups of {size} experts, "
                f"{need} are to be placed; {need - len(homes) * cap} do not fit"
            )
    return replace(
        problem,
        cost=price(problem.cost[:, homes], axis=2),  # type: ignore[operator]
        profile=ExpertProfile(load=group_loads(problem), source=problem.profile.source),
        gpus_per_server=1,
        layer_slots=caps[0],
        server_slots=caps[1],
        n_group=None,
    )


def _within_homes(
    problem: PlacementProblem, homes: NDArray[np.int64], home: NDArray[np.int32]
) -> NDArray[np.int32]:
    """int32 [layers, experts]: deal each group's experts to the servers of its home."""
    groups, members = _groups(problem), homes.shape[1]
    size = problem.experts // groups
    by_group = problem.profile.load.reshape(problem.layers * groups, size)
    counts = np.full((len(by_group), members), size // members)
    place = balance_in_tiers(by_group, counts, np.zeros_like(counts))
    server = homes[home.reshape(-1, 1), place]
    return server.reshape(problem.layers, problem.experts).astype(np.int32)
