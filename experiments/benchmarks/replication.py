"""Redundant slots on the recorded R1 loads: EPLB against ours, and what a slot costs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from placement import DataParallel, Pipelined, PlacementProblem
from placement.field.eplb import Eplb, doubled_cells
from placement.memory import slot_bytes
from placement.replicas.problem import ReplicaProblem
from placement.replicas.replicated import Replicated
from placement.replicas.rules import evaluate_replicas, gpu_load, make_rule, replica_flows
from placement.replicas.slot_price import kv_tokens
from topologies import Router, preset
from workloads import model, read_logical_count

if TYPE_CHECKING:
    from pathlib import Path

    from placement import Placement
    from placement.replicas.rules import ReplicaRule
    from workloads import ExpertProfile

DEPLOYMENTS = (
    ("EP32/288", "ep32", 288),
    ("EP64/320", "ep64", 320),
    ("EP144/288", "ep144", 288),
    ("256 GPUs/512", "facts-fat-tree", 512),
)
"""Name, cluster, and slots of a layer."""

SETTINGS = (("pipelined", "equal"), ("data-parallel", "nearest"))
"""Attention, and the rule that runs."""


def replica_rows(data: Path, *, loads: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
    """EPLB (global) and `Replicated` at EPLB's balance, layer by layer, under the same rule.

    Parameters
    ----------
    data
        Folder of the recorded loads.
    loads
        Names of the loads; None takes all.

    Returns
    -------
    list of dict
        ``load``, ``deployment``, ``attention``, ``rule``; balance of the GPUs: ``eplb_balance``,
        ``balance`` (of the placement), ``least_balance`` (the lightest found) and its
        ``balance_bound``; hops per token and layer: ``eplb_hops``, ``hops``, ``hops_bound``
        (holds under the caps asked for); ``eplb_doubled`` layer-GPU cells with an expert
        twice; ``seconds``; the price of the redundant slots of a GPU, a mean over GPUs:
        ``redundant_per_gpu``, ``weight_gb_per_gpu`` and ``kv_tokens_per_gpu``.
    """
    r1 = model("DeepSeek-R1")
    rows = []
    for file in sorted((data / "deepseek-r1-loads").glob("*.json")):
        if loads is not None and file.stem not in loads:
            continue
        profile = read_logical_count(file, r1)
        for name, cluster, slots in DEPLOYMENTS:
            for attention, rule in SETTINGS:
                problem = replica_problem(profile, cluster, attention)
                case = {"load": file.stem, "deployment": name, "attention": attention}
                rows.append(case | _compared(problem, slots, rule) | _price(problem, slots))
    return rows


def replica_problem(profile: ExpertProfile, cluster: str, attention: str) -> ReplicaProblem:
    """Build the problem of R1 on a preset cluster of 8 GPUs a server."""
    r1 = model("DeepSeek-R1")
    distance = Router(preset(cluster).spec.build()).server_distance().astype(np.int64)
    modes = {"pipelined": Pipelined, "data-parallel": DataParallel}
    mode = modes[attention](r1.layers, len(distance), 8)
    problem = PlacementProblem.build(r1, distance, mode, profile, gpus_per_server=8)
    return ReplicaProblem.of(problem, distance, mode)


def busiest(placement: Placement, problem: ReplicaProblem, rule: ReplicaRule) -> tuple[float, ...]:
    """Busiest GPU over the mean of every layer under a rule: what `Replicated` takes as caps."""
    heat = gpu_load(placement, replica_flows(placement, problem, rule))
    return tuple((heat.max(axis=1) / heat.mean(axis=1)).tolist())


def _compared(problem: ReplicaProblem, slots: int, rule: str) -> dict[str, Any]:
    redundant, runs = slots - problem.problem.experts, make_rule(rule)
    theirs = Eplb(redundant=redundant, hierarchical=False)(problem.problem)
    cap = busiest(theirs, problem, runs)
    begun = time.perf_counter()
    ours = Replicated(redundant, rule=rule, cap=cap, relax=True).replicate(problem)  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    before = evaluate_replicas(theirs, problem, runs)
    after = evaluate_replicas(ours.placement, problem, runs)
    report = ours.placement.solve
    return {
        "rule": rule,
        "eplb_balance": before.balance_gpu,
        "balance": after.balance_gpu,
        "least_balance": evaluate_replicas(ours.lightest, problem, runs).balance_gpu,
        "balance_bound": float(ours.bound.mean()),
        "eplb_hops": before.hops_per_token_layer,
        "hops": after.hops_per_token_layer,
        "hops_bound": None if report is None else report.bound_hops,
        "eplb_doubled": doubled_cells(theirs),
        "seconds": seconds,
    }


def _price(problem: ReplicaProblem, slots: int) -> dict[str, float]:
    r1, base = model("DeepSeek-R1"), problem.problem
    each = (slots - base.experts) / (base.servers * base.gpus_per_server)
    return {
        "redundant_per_gpu": each,
        "weight_gb_per_gpu": base.layers * each * slot_bytes(r1) / 1e9,
        "kv_tokens_per_gpu": kv_tokens(r1, slots_per_gpu=each),
    }
