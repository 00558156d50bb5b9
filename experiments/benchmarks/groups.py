"""Routing groups kept whole on servers: how few servers a token meets, and the price."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.clusters import find_cluster
from placement import IlpLoad, Pipelined, PlacementProblem, RoundRobin, evaluate
from placement.field.eplb import Eplb
from placement.groups import KeepGroups
from sim.messages import distinct_destinations
from topologies import Router
from workloads import draw_trace, model, read_logical_count, stream

if TYPE_CHECKING:
    from pathlib import Path

    from placement import Placement, Policy
    from workloads import ExpertProfile, RoutingTrace

TOKENS = 1000

CASES = ((4, 2.93, 3.63), (8, 3.63, 5.34), (16, 5.34, 6.60))
"""Servers, and the distinct servers of a token under uniform choices of 8 experts in 4 of R1's 8
groups: groups whole on a server (on two of 16), and experts scattered."""

ROUNDING = 0.02
"""Of the figures above, and of a mean over the tokens drawn."""

POLICIES: tuple[Policy, ...] = (
    KeepGroups(),
    IlpLoad(),
    RoundRobin(),
    Eplb(groups=8, name="eplb-auto"),
    Eplb(hierarchical=False, name="eplb"),
)
"""Groups whole by design, hops alone, blind, and balance with groups whole and without."""


def group_rows(data: Path) -> list[dict[str, Any]]:
    """Place R1 on small fat-trees with its groups whole and scattered.

    Every server takes its even share of a layer's experts, as engines want it: groups cannot
    crowd on a few servers. Attention is pipelined, loads are recorded.

    Parameters
    ----------
    data
        Folder of the recorded loads.

    Returns
    -------
    list of dict
        ``servers``, ``policy``; ``distinct`` servers of a token and layer under uniform choices,
        beside the known ``distinct_whole`` and ``distinct_scattered``; ``distinct_loaded``, the
        same under choices drawn with the recorded loads; ``hops`` per token and layer;
        ``balance_server``, ``balance_gpu``.
    """
    r1 = model("DeepSeek-R1")
    profile = read_logical_count(data / "deepseek-r1-loads" / "decode_in1000out1000.json", r1)
    uniform = np.full_like(profile.load, 1 / r1.experts)
    traces = [draw_trace(load, r1, TOKENS, stream(0, "trace")) for load in (uniform, profile.load)]
    rows = []
    for servers, whole, scattered in CASES:
        problem = _problem(servers, profile)
        known = {"servers": servers, "distinct_whole": whole, "distinct_scattered": scattered}
        rows += [known | _judged(policy, problem, traces) for policy in POLICIES]
    return rows


def _problem(servers: int, profile: ExpertProfile) -> PlacementProblem:
    """Build the problem on one pod of the reference fat-tree with 4 servers a leaf."""
    r1 = model("DeepSeek-R1")
    reference = find_cluster("facts-fat-tree").spec
    shape = {"pods": 1, "leaves_per_pod": servers // 4, "cores_per_aggregation": 0}
    cluster = replace(reference, parameters={**reference.parameters, **shape}).build()
    return PlacementProblem.build(
        r1,
        Router(cluster).server_distance().astype(np.int64),
        Pipelined(r1.layers, servers, cluster.gpus_per_server),
        profile,
        gpus_per_server=cluster.gpus_per_server,
        layer_slots=r1.experts // servers,
    )


def _judged(
    policy: Policy, problem: PlacementProblem, traces: list[RoutingTrace]
) -> dict[str, Any]:
    placement = policy(problem)
    expected = evaluate(placement, problem)
    uniform, loaded = (_servers_met(placement, trace) for trace in traces)
    return {
        "policy": policy.name,
        "distinct": uniform,
        "distinct_loaded": loaded,
        "hops": expected.hops_per_token_layer,
        "balance_server": expected.balance_server,
        "balance_gpu": expected.balance_gpu,
    }


def _servers_met(placement: Placement, trace: RoutingTrace) -> float:
    """Mean distinct servers of a token and layer."""
    _, met = distinct_destinations(trace, placement)
    return met / (len(trace.topk) * placement.layers)
