"""What `topomoe place` says in sentences, beside the table."""

from __future__ import annotations

from collections import Counter
from math import isclose
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.costs import ANYWHERE
from placement import InfeasibleError, PlacementError, read_placement
from placement.engines import accepting
from placement.groups import KeepGroups
from placement.memory import memory_report
from placement.moves import Moves, transfers
from placement.search import copies_per_token
from topologies import LinkClass

if TYPE_CHECKING:
    from experiments.run import Placed
    from experiments.spec import RunSpec
    from placement import SolveReport
    from placement.congestion import CongestionResult
    from topologies import Cluster

_SCATTERED = 1.01
"""More distinct servers a token than with whole groups that are worth a word."""

_UNITS = {
    "hops": "hops per token and layer, on the policy's own cost",
    "copies": "copies per token and layer",
    "copy-hops": "hops of copies per token and layer",
    "seconds": "seconds per step and layer",
}
"""What an objective counts; other units speak for themselves."""


def remarks(
    spec: RunSpec, placed: Placed, columns: dict[str, dict[str, Any]], against: str
) -> list[str]:
    """Return what there is to say of a placement, a sentence each."""
    lines = [*_what_it_is(spec, placed), *placed.choice.notes]
    if placed.placement.solve is not None:
        lines.append(_solve(placed.placement.solve, placed.expected.hops_per_token_layer))
    if placed.choice.congestion is not None:
        lines.append(_relief(placed.choice.congestion, placed.setting.router.cluster))
    lines += [*_memory(placed), *_scattering(placed)]
    if symmetric(placed.setting.problem.cost) and _whoever_sends(spec, placed):
        lines.append(
            "Every placement has the same expected hops here: all servers are equally far from "
            "the tokens. Nothing is to gain on hops; what is left to win is balance, copies and "
            "replicas."
        )
    elif against in columns and against != placed.placement.policy:
        lines.append(_gains(columns[placed.placement.policy], columns[against], against))
    if against not in columns:
        lines.append(f"{against} does not fit the caps and is left out")
    return lines


def moves_made(spec: RunSpec, placed: Placed) -> Moves | None:
    """Count what moves from the previous placement, replicas included; None without one.

    A slot moves where its GPU does not hold the expert yet, inside if another GPU of its server
    does.
    """
    if spec.placement.previous is None:
        return None
    old = read_placement(spec.placement.previous)
    distance = placed.setting.router.server_distance()
    moved, size = transfers(old, placed.placement, server_distance=distance), old.gpus_per_server
    inside = int((moved.src // size == moved.dst // size).sum())
    return Moves(len(moved) - inside, inside, moved.slots)


def symmetric(cost: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Whether every server costs the same in every layer, to rounding."""
    return bool(np.ptp(cost, axis=1).max() <= 1e-9 * max(1.0, float(np.abs(cost).max())))


def congestion_figures(result: CongestionResult) -> dict[str, Any]:
    """Return a certificate for programs."""
    layers = [
        {
            "layer": number,
            "objective_s": layer.objective_s,
            "bound_s": layer.bound_s,
            "busiest_links": list(layer.busiest_links),
            "pinned_expert": layer.pinned_expert,
        }
        for number, layer in enumerate(result.layers)
    ]
    return {
        "objective_s": result.objective_s,
        "bound_s": result.bound_s,
        "gap": result.gap,
        "layers": layers,
    }


def memory_figures(placed: Placed) -> dict[str, Any] | None:
    """Return what the fullest GPU holds, for programs; None where its memory is not known."""
    memory = placed.setting.memory
    if memory is None:
        return None
    report = memory_report(placed.placement, placed.setting.model, memory)
    return {
        "gpu": report.gpu,
        "slots": report.slots,
        "gigabytes": report.gigabytes(),
        "kv_tokens_fit": report.kv_tokens_fit,
    }


def _memory(placed: Placed) -> list[str]:
    """Say what the fullest GPU holds, and how many tokens' cache fits beside it."""
    figures = memory_figures(placed)
    if figures is None:
        return []
    size = figures["gigabytes"]
    experts = size["experts"] + size["mtp_experts"]
    taken = sum(size.values()) - size["free"]
    text = (
        f"memory: the fullest GPU ({figures['gpu']}) holds {figures['slots']} expert slots, "
        f"{experts:.2f} GB, and {taken - experts:.2f} GB of other weights and KV cache; "
        f"{size['free']:.2f} GB are free, so that the cache of {figures['kv_tokens_fit']:,} tokens "
        "fits in all"
    )
    return [text]


def _whoever_sends(spec: RunSpec, placed: Placed) -> bool:
    """Whether hops depend on servers alone: replicas taken by distance make them differ."""
    return not placed.placement.redundant or spec.placement.replica_rule in ANYWHERE


def _what_it_is(spec: RunSpec, placed: Placed) -> list[str]:
    """Say which engines load the placement, what moves and what is replicated."""
    placement, lines = placed.placement, []
    if spec.placement.engine is None:
        loading = ", ".join(accepting(placement)) or "none"
        lines.append(f"engines that would load this placement: {loading} (--engine adds its rules)")
    if placement.redundant:
        each = placement.redundant / placement.layers
        lines.append(
            f"{each:g} redundant slots a layer, a token takes one of an expert's replicas by the "
            f"rule '{spec.placement.replica_rule}': priced from the profile, for a replay takes "
            "one slot per expert"
        )
    moves = moves_made(spec, placed)
    if moves is not None:
        lines.append(
            f"moves {moves.slots:,} of {moves.experts:,} slots, {moves.inside:,} of them inside "
            f"their server; {100 * moves.kept:.1f} % of the expert-server pairs stay"
        )
    return lines


def _solve(report: SolveReport, hops: float) -> str:
    limit = f", stopped by the {report.limit} limit" if report.limit else ""
    text = f"solve: {report.status}, {report.seconds:.3f} s{limit}"
    if report.unit == "hops" and isclose(report.objective, hops, rel_tol=1e-6, abs_tol=1e-9):
        return text
    # The table has hops as expected from the profile, which this objective is not.
    bound = "none" if report.bound is None else f"{report.bound:.6g} (gap {report.gap:.2%})"
    return (
        f"{text}; minimised {report.objective:.6g} {_UNITS.get(report.unit, report.unit)}, proven "
        f"lower bound {bound}"
    )


def _relief(result: CongestionResult, cluster: Cluster) -> str:
    """Say which links placement cannot relieve."""
    pinned = [at for at, layer in enumerate(result.layers) if layer.pinned_expert is not None]
    classes = Counter(
        LinkClass(cluster.link_class[link]).name.lower()
        for layer in result.layers
        for link in layer.busiest_links
    )
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(classes.items()))
    busiest = f"busiest links of layers and directions: {kinds}"
    if not pinned:
        return f"{busiest}; no layer's is kept busy by a single expert"
    first = result.layers[pinned[0]]
    link = first.busiest_links[0]
    return (
        f"{busiest}; in {len(pinned)} of {len(result.layers)} layers one expert alone keeps its "
        f"GPU's own link this busy (layer {pinned[0]}: expert {first.pinned_expert}, "
        f"{_node(cluster, int(cluster.link_src[link]))} to "
        f"{_node(cluster, int(cluster.link_dst[link]))}): no placement relieves it, only replicas "
        "(--redundant)"
    )


def _node(cluster: Cluster, node: int) -> str:
    if node < cluster.gpus:
        return f"GPU {node}"
    if node < cluster.first_switch:
        return f"NVLink of server {node - cluster.gpus}"
    return f"switch {node - cluster.first_switch}"


def _scattering(placed: Placed) -> list[str]:
    """Say how many servers a token meets more than with whole routing groups, on judged tokens."""
    problem, placement = placed.setting.problem, placed.placement
    groups = problem.n_group
    if groups is None or not 1 < problem.servers <= groups or placement.redundant:
        return []
    try:
        kept = KeepGroups()(problem)
    except (PlacementError, InfeasibleError):
        return []
    tokens = placed.setting.workload.trace.topk
    have, whole = (copies_per_token(each, tokens, scope="server") for each in (placement, kept))
    if have <= whole * _SCATTERED:
        return []
    text = (
        f"a token meets {have:.2f} distinct servers instead of {whole:.2f} with whole routing "
        "groups: where a message goes once per server, --keep-groups sends that much less"
    )
    return [text]


def _gains(figures: dict[str, Any], others: dict[str, Any], against: str) -> str:
    if "step_s" not in figures:
        hops = figures["expected_hops"] / others["expected_hops"] - 1
        return f"against {against}: expected hops {100 * hops:+.1f} %"
    hops = figures["hops_per_token_layer"] / others["hops_per_token_layer"] - 1
    step = figures["step_s"] / others["step_s"] - 1
    return (
        f"against {against} on the same tokens: hops {100 * hops:+.1f} %, step {100 * step:+.1f} %"
    )
