"""Busiest links on recorded R1 loads: how near to their bound placement brings them."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.clusters import study_clusters
from placement import DataParallel, PlacementProblem
from placement.congestion.least import CongestionProblem, LeastCongestion
from placement.congestion.link_cost import LinkCost
from sim import MessageSizes
from topologies import PRESETS, ClusterSpec, Router
from workloads import model
from workloads.readers import read_logical_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workloads import ExpertProfile

DEPLOYMENTS = ("ep32", "ep64", "ep72", "ep144")
RATIOS = (1.0, 2.0, 4.0)
REDUNDANT = 32
"""Redundant slots of a layer on clusters that are no deployment."""
LOAD = "decode_in1000out1000"


def congestion_rows(
    data: Path,
    *,
    clusters: Sequence[str] | None = None,
    ratios: Sequence[float] = RATIOS,
    load: str = LOAD,
) -> list[dict[str, Any]]:
    """Place R1 on every cluster, with and without replicas, for all links and the fabric alone.

    Parameters
    ----------
    data
        Folder of the recorded loads.
    clusters
        Names; by default the study's clusters and the deployments.
    ratios
        Oversubscription of every tier.
    load
        Which of the recorded loads.

    Returns
    -------
    list of dict
        ``cluster``, ``oversubscription``, ``redundant``, ``links``; ``busiest_us`` and
        ``bound_us``, microseconds per layer (mean) of a batch of one token a GPU, dispatch and
        combine added; ``gap`` of their sums and ``worst_gap`` of a layer; ``pinned_layers``,
        whose bound is set by one expert's own links; ``seconds``.
    """
    profile = read_logical_count(data / "deepseek-r1-loads" / f"{load}.json", model("DeepSeek-R1"))
    names = clusters or (*study_clusters(), *DEPLOYMENTS)
    return [
        _row(problem, links, redundant) | {"cluster": name, "oversubscription": ratio}
        for name in names
        for ratio in ratios
        for redundant in (0, _redundant(name))
        for problem in [_problem(name, ratio, redundant, profile)]
        for links in ("all", "fabric")
    ]


def oversubscribed(spec: ClusterSpec, ratio: float) -> ClusterSpec:
    """Return the cluster with less bandwidth between switches.

    A fat-tree gets the ratio on every tier; a dragonfly's links between routers carry a lane per
    network card of a server, divided by the ratio.
    """
    parameters = dict(spec.parameters)
    if spec.builder == "fat-tree":
        parameters["oversubscription"] = ratio
    else:
        lane = parameters["host_bandwidth_Bps"] * parameters["gpus_per_server"] / ratio
        parameters |= {"local_bandwidth_Bps": lane, "global_bandwidth_Bps": lane}
    return ClusterSpec(spec.builder, parameters, spec.name)


def _spec(name: str) -> ClusterSpec:
    study = study_clusters()
    return study[name] if name in study else PRESETS[name].spec


def _redundant(name: str) -> int:
    slots = PRESETS[name].slots_per_layer if name in PRESETS else None
    return REDUNDANT if slots is None else slots - model("DeepSeek-R1").experts


def _problem(name: str, ratio: float, redundant: int, profile: ExpertProfile) -> CongestionProblem:
    """Build the problem with C_layer twice, and C_exp exactly, a server's share of the slots."""
    r1 = model("DeepSeek-R1")
    cluster = oversubscribed(_spec(name), ratio).build()
    router, servers, slots = Router(cluster), cluster.servers, r1.experts + redundant
    problem = PlacementProblem.build(
        r1,
        router.server_distance().astype(np.int64),
        DataParallel(r1.layers, servers, cluster.gpus_per_server),
        profile,
        gpus_per_server=cluster.gpus_per_server,
        layer_slots=ceil(2 * slots / servers),
        server_slots=ceil(r1.layers * slots / servers),
    )
    sizes = MessageSizes.from_model(r1)
    cost = LinkCost.of(
        router,
        top_k=r1.top_k,
        dispatch_bytes=sizes.dispatch_bytes,
        combine_bytes=sizes.combine_bytes,
    )
    return CongestionProblem.of(problem, cost)


def _row(problem: CongestionProblem, links: str, redundant: int) -> dict[str, Any]:
    result = LeastCongestion(links, redundant=redundant).solve(problem)
    return {
        "redundant": redundant,
        "links": links,
        "busiest_us": result.objective_s / problem.layers * 1e6,
        "bound_us": result.bound_s / problem.layers * 1e6,
        "gap": result.gap,
        "worst_gap": max(layer.gap for layer in result.layers),
        "pinned_layers": sum(layer.pinned_expert is not None for layer in result.layers),
        "seconds": result.seconds,
    }
