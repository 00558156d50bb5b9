"""The field's policies on recorded loads and traces: balance, copies, affinity, seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from placement import Contiguous, PlacementProblem, evaluate
from placement.field.affinity import InterLayerAffinity, kept_affinity, kept_affinity_bound
from placement.field.eplb import Eplb, doubled_cells
from placement.field.hottest import HottestEverywhere
from placement.field.mapping import ClusterThenMap, communication, communication_bound
from placement.field.pairs import CollaborativePairs, kept_pairs, kept_pairs_bound
from workloads import (
    ExpertProfile,
    RoutingTrace,
    affinity,
    coactivation,
    model,
    read_logical_count,
    read_trace,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from placement import Placement, Policy

BLOCK = 500
"""Tokens of a block; even blocks train, odd blocks judge."""

DEPLOYMENTS = (
    ("EP32", 4, 256),
    ("EP32", 4, 288),
    ("EP64", 8, 320),
    ("EP144", 18, 288),
    ("256 GPUs", 32, 512),
)
"""Name, servers of 8 GPUs, and slots of a layer."""

REPEATS = 3
"""Every policy runs so often; the shortest time counts (the first may compile)."""


def balance_rows(data: Path) -> list[dict[str, Any]]:
    """Balance from loads alone on every recorded R1 load, under the rule `equal`.

    Parameters
    ----------
    data
        Folder of the recorded loads and traces.

    Returns
    -------
    list of dict
        ``load``, ``deployment``, ``policy`` (``eplb``: global; ``eplb-auto``: hierarchical
        where 8 groups divide by the servers; ``hottest-K``: K experts on every server, as many
        as the redundant slots allow), ``slots`` of a layer, ``balance_gpu``,
        ``balance_server``, ``doubled_cells`` (layer-GPU cells that hold an expert twice) and
        ``seconds``.
    """
    r1 = model("DeepSeek-R1")
    rows = []
    for file in sorted((data / "deepseek-r1-loads").glob("*.json")):
        profile = read_logical_count(file, r1)
        for name, servers, slots in DEPLOYMENTS:
            problem = _problem(r1.name, profile, r1.top_k, servers, 8)
            for policy in _balancers(slots - r1.experts, servers):
                balance = _balance(_best_timed(policy, problem), problem)
                rows.append(
                    {"load": file.stem, "deployment": name, "policy": policy.name} | balance
                )
    return rows


def choice_rows(data: Path, *, servers: int = 8, gpus_per_server: int = 1) -> list[dict[str, Any]]:
    """Policies that look at tokens' choices on V2-Lite, fitted on even blocks, judged on odd.

    Parameters
    ----------
    data
        Folder of the recorded loads and traces.
    servers, gpus_per_server
        The cluster.

    Returns
    -------
    list of dict
        ``policy``; judged: ``gpus_per_token_layer``, ``servers_per_token_layer``,
        ``balance_gpu``; on the training choices, what the policies optimise: ``kept_pairs``,
        ``kept_affinity``, ``communication``, each beside its bound; ``seconds``.
    """
    train, judged = blocks(data)
    lite = model("DeepSeek-V2-Lite")
    profile = ExpertProfile.from_trace(train, keep_choices=True)
    problem = _problem(lite.name, profile, lite.top_k, servers, gpus_per_server)
    judge = _problem(
        lite.name, ExpertProfile.from_trace(judged), lite.top_k, servers, gpus_per_server
    )
    pair, follow = coactivation(train.topk, lite.experts), affinity(train.topk, lite.experts)
    gpus = servers * gpus_per_server
    bounds = {
        "kept_pairs_bound": kept_pairs_bound(pair, gpus),
        "kept_affinity_bound": kept_affinity_bound(follow, gpus),
        "communication_bound": communication_bound(
            follow, servers=servers, gpus_per_server=gpus_per_server
        ),
    }
    rows = []
    policies: tuple[Policy, ...] = (
        Contiguous(),
        CollaborativePairs(),
        InterLayerAffinity(),
        ClusterThenMap(),
    )
    for policy in policies:
        placement = _best_timed(policy, problem)
        gpu = placement.gpu_of_expert
        rows.append(
            {
                "policy": policy.name,
                "gpus_per_token_layer": _distinct(judged.topk, gpu),
                "servers_per_token_layer": _distinct(judged.topk, placement.server_of_expert),
                "balance_gpu": evaluate(placement, judge).balance_gpu,
                "kept_pairs": kept_pairs(pair, gpu),
                "kept_affinity": kept_affinity(follow, gpu),
                "communication": communication(follow, gpu, gpus_per_server=gpus_per_server),
                "seconds": _seconds(placement),
            }
            | bounds
        )
    return rows


def blocks(data: Path) -> tuple[RoutingTrace, RoutingTrace]:
    """Split both V2-Lite tasks, one after the other, into training and judged blocks."""
    lite, folder = model("DeepSeek-V2-Lite"), data / "deepseek-v2-lite-traces"
    topk = np.concatenate([read_trace(folder / f"{n}.npz", lite).topk for n in ("intent", "law")])
    training = np.arange(len(topk)) // BLOCK % 2 == 0
    parts = [
        RoutingTrace(
            topk=part, experts=lite.experts, seq_lens=np.array([len(part)]), source="V2-Lite blocks"
        )
        for part in (topk[training], topk[~training])
    ]
    return parts[0], parts[1]


def _balancers(redundant: int, servers: int) -> tuple[Policy, ...]:
    balanced = (
        Eplb(redundant=redundant, hierarchical=False, name="eplb"),
        Eplb(redundant=redundant, groups=8, name="eplb-auto"),
    )
    hottest = redundant // (servers - 1)
    if not hottest:
        return balanced
    return (*balanced, HottestEverywhere(hottest, name=f"hottest-{hottest}"))


def _problem(
    name: str, profile: ExpertProfile, top_k: int, servers: int, gpus_per_server: int
) -> PlacementProblem:
    """Build a problem without hops: none of these policies looks at them."""
    return PlacementProblem(
        model=name,
        cost=np.zeros((profile.layers, servers)),
        profile=profile,
        top_k=top_k,
        gpus_per_server=gpus_per_server,
        layer_slots=-(-profile.experts // servers),
        server_slots=-(-profile.layers * profile.experts // servers),
    )


def _best_timed(policy: Policy, problem: PlacementProblem) -> Placement:
    return min((policy(problem) for _ in range(REPEATS)), key=_seconds)


def _seconds(placement: Placement) -> float:
    return placement.solve.seconds if placement.solve is not None else 0.0


def _balance(placement: Placement, problem: PlacementProblem) -> dict[str, Any]:
    placed = evaluate(placement, problem)
    return {
        "slots": len(placement.slot_gpu) // placement.layers,
        "balance_gpu": placed.balance_gpu,
        "balance_server": placed.balance_server,
        "doubled_cells": doubled_cells(placement),
        "seconds": _seconds(placement),
    }


def _distinct(topk: NDArray[np.integer], place: NDArray[np.int32]) -> float:
    """Mean distinct places of a token and layer."""
    reached = np.sort(place[np.arange(topk.shape[1])[:, None], topk], axis=2)
    return float(1 + np.count_nonzero(np.diff(reached, axis=2), axis=2).mean())
