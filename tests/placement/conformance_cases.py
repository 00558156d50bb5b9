"""Small problems for the conformance suite, and the same problems with other names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from placement import DataParallel, Pipelined, Placement, PlacementProblem, Random
from placement.congestion import CongestionProblem, LinkCost
from placement.field import HottestEverywhere
from placement.replicas import ReplicaProblem
from topologies import Router, ServerLinks, from_links
from workloads import ExpertProfile

if TYPE_CHECKING:
    from topologies import Cluster

TOKENS = 120


@dataclass(frozen=True, eq=False)
class Case:
    """One problem in the three forms that policies take, and what options refer to."""

    name: str
    origins: ReplicaProblem
    links: CongestionProblem
    previous: Placement
    replicated: Placement
    second: ExpertProfile

    @property
    def problem(self) -> PlacementProblem:
        """The problem alone."""
        return self.origins.problem

    @property
    def gpus(self) -> int:
        """GPUs of the cluster."""
        return self.problem.servers * self.problem.gpus_per_server

    @property
    def redundant(self) -> int:
        """Fewest redundant slots, but at least one where GPUs allow, that divide by the GPUs."""
        return min(-self.problem.experts % self.gpus or self.gpus, self.most_redundant)

    @property
    def most_redundant(self) -> int:
        """Redundant slots with every expert on every GPU."""
        return self.problem.experts * (self.gpus - 1)

    def given(self, takes: str) -> object:
        """Return the form of the problem that a policy takes."""
        return getattr(self, takes)


def tree(servers: int, gpus: int) -> Cluster:
    """Every server on a leaf of its own, below one switch: all pairs are as far."""
    cables = [(leaf, servers) for leaf in range(servers)]
    return _cluster(cables, servers, gpus)


def line(servers: int, gpus: int) -> Cluster:
    """Leaves in a row: servers in the middle are nearer to all others."""
    return _cluster([(leaf, leaf + 1) for leaf in range(servers - 1)], servers, gpus)


def _cluster(cables: list[tuple[int, int]], servers: int, gpus: int) -> Cluster:
    leaf = np.repeat(np.arange(servers), gpus)
    return from_links(cables, leaf_of_gpu=leaf, servers=ServerLinks(gpus_per_server=gpus))


def profile(weight: np.ndarray, top_k: int, seed: int, *, tied: bool = True) -> ExpertProfile:
    """Draw tokens that prefer experts by weight [layers, experts], and count them.

    Counts of so few tokens tie; `tied` False adds weights that do not.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    with np.errstate(divide="ignore"):
        appeal = np.log(weight) + rng.gumbel(size=(TOKENS, *weight.shape))
    choices = np.argsort(-appeal, axis=2)[:, :, :top_k]
    counts = np.stack(
        [np.bincount(choices[:, at].ravel(), minlength=row.size) for at, row in enumerate(weight)]
    ).astype(float)
    if not tied:
        counts += rng.random(counts.shape)
    load = counts / counts.sum(axis=1, keepdims=True)
    return ExpertProfile(load=load, source="drawn", choices=choices.astype(np.uint8))


def make_case(
    name: str,
    cluster: Cluster,
    weight: np.ndarray,
    *,
    top_k: int = 2,
    pipelined: bool = True,
    caps: tuple[int, int] | None = None,
    n_group: int | None = None,
    distance: np.ndarray | None = None,
) -> Case:
    """Build a case; caps are the tightest that hold the experts unless given."""
    layers, experts = weight.shape
    servers, inside = cluster.servers, cluster.gpus_per_server
    hops = Router(cluster).server_distance() if distance is None else distance
    attention = (Pipelined if pipelined else DataParallel)(layers, servers, inside)
    tight = ceil(experts / servers), ceil(layers * experts / servers)
    layer_slots, server_slots = caps or tight
    problem = PlacementProblem(
        model=name,
        cost=attention.origin_share() @ hops + attention.collector_share() @ hops.T,
        profile=profile(weight, top_k, 1, tied=distance is None),
        top_k=top_k,
        gpus_per_server=inside,
        layer_slots=layer_slots,
        server_slots=server_slots,
        n_group=n_group,
    )
    links = LinkCost.of(Router(cluster), top_k=top_k, dispatch_bytes=7, combine_bytes=14)
    previous = Random(seed=3)(problem)
    return Case(
        name=name,
        origins=ReplicaProblem.of(problem, hops, attention),
        links=CongestionProblem.of(problem, links),
        previous=previous,
        replicated=HottestEverywhere(base=Random(seed=4))(problem),
        second=profile(weight[:, ::-1], top_k, 2),
    )


def skewed(layers: int, experts: int, seed: int = 0) -> np.ndarray:
    """Weights with a heavy head."""
    return np.random.Generator(np.random.PCG64(seed)).pareto(1.5, (layers, experts)) + 0.1


def distinct(servers: int) -> np.ndarray:
    """Distances such that no two servers of a layer cost the same."""
    rng = np.random.Generator(np.random.PCG64(9))
    return rng.integers(1, 1000, (servers, servers))


def _zeros_and_ties() -> np.ndarray:
    """Half of the experts are never chosen, the others alike."""
    return np.tile(np.repeat([1.0, 0.0], 4), (2, 1))


CASES = {
    case.name: case
    for case in (
        make_case("loose", line(4, 2), skewed(3, 8), caps=(4, 8), n_group=4),
        make_case("tight, symmetric", tree(4, 2), skewed(2, 8), pipelined=False, n_group=4),
        make_case("more servers than groups", line(4, 1), skewed(2, 8), caps=(3, 5), n_group=2),
        make_case("uneven", line(4, 1), skewed(3, 9), pipelined=False),
        make_case("all experts chosen", line(2, 2), np.ones((2, 4)), top_k=4),
        make_case("one layer", tree(3, 2), skewed(1, 12), caps=(6, 6)),
        make_case("one server", tree(1, 4), skewed(2, 8)),
        make_case("one GPU", tree(1, 1), skewed(2, 4)),
        make_case("zeros and ties", line(4, 2), _zeros_and_ties(), caps=(4, 6)),
    )
}
TIE_FREE = (
    make_case(
        "tie-free", line(4, 2), skewed(3, 8, 5), caps=(4, 7), n_group=4, distance=distinct(4)
    ),
    make_case("tie-free, tight", tree(3, 1), skewed(2, 9, 6), top_k=3, distance=distinct(3)),
)


def rename_servers(case: Case, order: np.ndarray) -> Case:
    """Call server ``order[i]`` server i."""
    problem, origins, links = case.problem, case.origins, case.links.links
    inside = problem.gpus_per_server
    gpu = (order[:, None] * inside + np.arange(inside)).ravel()
    renamed = replace(problem, cost=problem.cost[:, order])
    costs = replace(
        links,
        own_link=links.own_link[:, gpu],
        own_cost=links.own_cost[:, :, gpu],
        class_of_gpu=links.class_of_gpu[gpu],
    )
    number = np.argsort(gpu)
    return replace(
        case,
        origins=ReplicaProblem(
            problem=renamed,
            server_distance=origins.server_distance[np.ix_(order, order)],
            origin_share=origins.origin_share[:, order],
            collector_share=origins.collector_share[:, order],
            returns_home=origins.returns_home,
        ),
        links=CongestionProblem.of(renamed, costs),
        previous=replace(case.previous, slot_gpu=number[case.previous.slot_gpu]),
        replicated=replace(case.replicated, slot_gpu=number[case.replicated.slot_gpu]),
    )


def rename_experts(case: Case, order: np.ndarray) -> Case:
    """Call expert ``order[i]`` expert i, in every layer."""
    number = np.argsort(order)
    problem = replace(case.problem, profile=_renamed(case.problem.profile, order))
    return replace(
        case,
        origins=replace(case.origins, problem=problem),
        links=CongestionProblem.of(problem, case.links.links),
        previous=replace(case.previous, slot_expert=number[case.previous.slot_expert]),
        replicated=replace(case.replicated, slot_expert=number[case.replicated.slot_expert]),
        second=_renamed(case.second, order),
    )


def _renamed(known: ExpertProfile, order: np.ndarray) -> ExpertProfile:
    choices = np.argsort(order)[known.choices]
    return replace(known, load=known.load[:, order], choices=choices)


def server_order(case: Case) -> np.ndarray:
    """Permutation of the servers without a fixed point, where there are several."""
    return np.roll(np.arange(case.problem.servers)[::-1], case.problem.servers % 2)


def expert_order(case: Case) -> np.ndarray:
    """Permutation of the experts that keeps groups together: groups turn, and experts in them."""
    groups = case.problem.n_group or 1
    rng = np.random.Generator(np.random.PCG64(7))
    expert = np.arange(case.problem.experts).reshape(groups, -1)
    return rng.permuted(expert[rng.permutation(groups)], axis=1).ravel()


def runs_fit(case: Case) -> bool:
    """Whether runs of consecutive experts keep both caps."""
    return _fits(case, np.arange(case.problem.experts) * case.problem.servers // _experts(case))


def turns_fit(case: Case) -> bool:
    """Whether experts dealt in turn keep both caps."""
    return _fits(case, np.arange(case.problem.experts) % case.problem.servers)


def _experts(case: Case) -> int:
    return case.problem.experts


def _fits(case: Case, server: np.ndarray) -> bool:
    most = int(np.bincount(server).max())
    return most <= case.problem.layer_slots and (
        most * case.problem.layers <= case.problem.server_slots
    )


def experts_divide(case: Case) -> bool:
    """Whether the GPUs divide the experts."""
    return case.problem.experts % case.gpus == 0


def groups_fit(case: Case) -> bool:
    """Whether whole groups fit homes: a server, or as many servers for every group."""
    problem = case.problem
    if problem.n_group is None:
        return False
    each = max(1, problem.servers // problem.n_group)
    size = problem.experts // problem.n_group
    homes = problem.servers // each
    layer, total = problem.layer_slots * each // size, problem.server_slots * each // size
    return min(layer * problem.layers, total) * homes >= problem.n_group * problem.layers
