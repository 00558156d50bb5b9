"""What `topomoe place` and `simulate` say in sentences, beside the table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.combine import ENGINE_RULES
from experiments.commands.balance_said import balance_said
from experiments.commands.solved import relief, solved
from experiments.costs import ANYWHERE
from experiments.maps import read_map
from experiments.metrics import COPIES_TOKENS
from experiments.replaying import replay
from experiments.workload import domain_judged
from placement import InfeasibleError, PlacementError, evaluate
from placement.engines import ENGINES, accepting, refusal
from placement.groups import KeepGroups
from placement.memory import memory_report
from placement.moves import Moves, transfers
from placement.search import copies_per_token

if TYPE_CHECKING:
    from experiments.run import Placed
    from experiments.spec import RunSpec
    from placement import Placement
    from topologies import Cluster

SAME_HOPS = (
    "Every placement has the same expected hops here: all servers are equally far from the "
    "tokens. Nothing is to gain on hops; what is left to win is balance, copies and replicas."
)

SAME_BYTES = (
    "With allgather dispatch every token goes to all GPUs, and no placement changes a byte: only "
    "balance can gain."
)

_PER_EXPERT = (
    "expected hops (profile) count a message per expert, which policies minimise; what is replayed "
    "is {mode} dispatch"
)

_MEASURED = (
    "distances of this cluster were measured: expected hops and their bound are in {unit}; "
    "replayed hops count links, of a mesh in which servers share nothing but their cards"
)

_GROUPS_KEPT = (
    "routing groups stay whole, the default with per_server dispatch on up to {groups} servers, as "
    "scattered ones cost messages; --policy, or any other option of a placement, chooses otherwise"
)

_SCATTERED = 1.01
"""More distinct servers a token than with whole groups that are worth a word."""


def remarks(
    spec: RunSpec,
    placed: Placed,
    other: Placed | None,
    columns: dict[str, dict[str, Any]],
    against: str,
) -> list[str]:
    """Return what there is to say of a placement beside another one, a sentence each.

    Parameters
    ----------
    spec, placed
        The run up to its placement.
    other
        What it is compared with; None where the caps leave it no placement.
    columns
        Figures of the placement and, if there is another one, of that.
    against
        How the other one is called.
    """
    own, *others = columns.values()
    lines = [*described(spec, placed), *_domains(spec, placed, other, against)]
    lines += _scattering(spec, placed, own)
    if spec.dispatch.mode == "allgather":
        lines.append(SAME_BYTES)
    elif same_hops(spec, placed.setting.problem.cost, placed.placement):
        lines.append(SAME_HOPS)
    if other is None:
        lines.append(f"{against} does not fit the caps and is left out")
    lines += [_gains(own, figures, against) for figures in others]
    return lines


def described(spec: RunSpec, placed: Placed) -> list[str]:
    """Return what there is to say of a placement alone, a sentence each."""
    lines = [*_what_it_is(spec, placed), *placed.choice.notes, *balance_said(spec, placed)]
    lines += solved(spec.placement, placed)
    if placed.choice.congestion is not None:
        cluster, replicas = placed.setting.router.cluster, bool(placed.placement.redundant)
        lines.append(relief(placed.choice.congestion, cluster, redundant=replicas))
    return [*lines, *_memory(placed)]


def measured_distances(cluster: Cluster) -> list[str]:
    """Say in which unit distances are, where they are no hops."""
    return [] if cluster.measured is None else [_MEASURED.format(unit=cluster.measured.unit)]


def moves_made(spec: RunSpec, placed: Placed) -> Moves | None:
    """Count what moves from the previous placement, replicas included; None without one.

    A slot moves where its GPU does not hold the expert yet, inside if another GPU of its server
    does.
    """
    if spec.placement.previous is None:
        return None
    old = read_map(spec.placement.previous, placed.setting)
    distance = placed.setting.router.server_distance()
    moved, size = transfers(old, placed.placement, server_distance=distance), old.gpus_per_server
    inside = int((moved.src // size == moved.dst // size).sum())
    return Moves(len(moved) - inside, inside, moved.slots)


def symmetric(cost: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    """Whether every server costs the same in every layer, to rounding."""
    return bool(np.ptp(cost, axis=1).max() <= 1e-9 * max(1.0, float(np.abs(cost).max())))


def same_hops(
    spec: RunSpec, cost: np.ndarray[Any, np.dtype[np.float64]], *placements: Placement
) -> bool:
    """Whether these placements cannot differ in hops: replicas taken by distance do."""
    anywhere = spec.placement.replica_rule in ANYWHERE
    return symmetric(cost) and (anywhere or not any(each.redundant for each in placements))


def memory_figures(placed: Placed) -> dict[str, Any] | None:
    """Return what the fullest GPU holds, for programs; None where its memory is not known."""
    memory = placed.setting.memory
    if memory is None:
        return None
    report = memory_report(placed.placement, placed.setting.model, memory)
    # Slots of MoE and of MTP layers are of one size.
    mtp = round(report.slots * report.mtp_experts / report.experts) if report.experts else 0
    return {
        "gpu": report.gpu,
        "slots": report.slots,
        "mtp_slots": mtp,
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
    mtp = f" and {figures['mtp_slots']} of MTP layers" if figures["mtp_slots"] else ""
    text = (
        f"memory: the fullest GPU ({figures['gpu']}) holds {figures['slots']} expert slots{mtp}, "
        f"{experts:.2f} GB, and {taken - experts:.2f} GB of other weights and KV cache; "
        f"{size['free']:.2f} GB are free, so that the cache of {figures['kv_tokens_fit']:,} tokens "
        "fits in all"
    )
    return [text]


def _what_it_is(spec: RunSpec, placed: Placed) -> list[str]:
    """Say which engines load the placement, what moves and what is replicated."""
    placement, lines = placed.placement, []
    groups = placed.setting.problem.n_group
    lines += measured_distances(placed.setting.router.cluster)
    if spec.placement.policy == "keep-groups" and spec.dispatch.mode == "per_server":
        lines.append(_GROUPS_KEPT.format(groups=groups))
    if spec.dispatch.mode in ("per_gpu", "per_server"):
        lines.append(_PER_EXPERT.format(mode=spec.dispatch.mode))
    if spec.placement.engine is None:
        lines.append(_engines(placement))
    if placement.redundant:
        each = placement.redundant / placement.layers
        lines.append(
            f"{each:g} redundant slots a layer, a token takes one of an expert's replicas by the "
            f"rule '{spec.placement.replica_rule}'{_replayed_by(spec)}"
        )
        lines += _rule_of_the_engine(spec)
    moves = moves_made(spec, placed)
    if moves is not None:
        lines.append(_moves(spec, placed, moves))
    return lines


def _replayed_by(spec: RunSpec) -> str:
    """Say which rule a replay takes, where it is another than that of the profile's figures."""
    rule = spec.dispatch.replica_rule
    if rule in (None, spec.placement.replica_rule):
        return ""
    return f" in the figures from the profile, by '{rule}' in the replay"


def _rule_of_the_engine(spec: RunSpec) -> list[str]:
    """Say where the engine runs another rule than the one that figures are under."""
    engine, rule = spec.placement.engine, spec.placement.replica_rule
    if engine is None or rule in (own := ENGINE_RULES.get(engine, ("equal",))):
        return []
    return [f"{engine} runs the rule '{own[0]}', the figures are under '{rule}'"]


def _engines(placement: Placement) -> str:
    """Say which engines load the placement, and why the others do not."""
    reasons: dict[str, list[str]] = {}
    for name, rules in ENGINES.items():
        why = refusal(placement, rules)
        if why is not None:
            reasons.setdefault(why, []).append(name)
    loading = ", ".join(accepting(placement)) or "none"
    text = f"engines that would load this placement: {loading} (--engine adds its rules)"
    return "; ".join([text, *(f"not {', '.join(e)}: {why}" for why, e in reasons.items())])


def _moves(spec: RunSpec, placed: Placed, moves: Moves) -> str:
    text = f"moves {moves.slots:,} of {moves.experts:,} slots, "
    had = read_map(spec.placement.previous or "", placed.setting).redundant
    fresh = placed.placement.redundant - had
    if fresh > 0:
        text += f"{fresh:,} of them for new replicas, "
    text += (
        f"{moves.inside:,} of them inside their server; {100 * moves.kept:.1f} % of the "
        "expert-server pairs stay"
    )
    if spec.placement.max_moves is not None:
        place = "GPU" if spec.placement.beta_scope == "gpu" else "server"
        counted = f" (--max-moves counts experts that leave their {place}"
        text += f"{counted}; new replicas come on top)" if fresh > 0 else f"{counted})"
    return text


def _domains(spec: RunSpec, placed: Placed, other: Placed | None, against: str) -> list[str]:
    """Say how many copies a token of every training domain sends, on sequences not trained on."""
    table = spec.placement
    texts = []
    for path in table.domains:
        tokens = domain_judged(placed.setting.model, Path(path)).topk
        sample = tokens[:: -(-len(tokens) // COPIES_TOKENS)]
        have, *had = (
            copies_per_token(each.placement, sample, scope=table.beta_scope)
            for each in (placed, other)
            if each is not None
        )
        beside = f" ({against} {had[0]:.3f})" if had else ""
        texts.append(f"{Path(path).name} {have:.3f}{beside}")
    place = "GPU" if table.beta_scope == "gpu" else "server"
    head = f"copies ({place}s per token and layer) on the odd sequences of each domain"
    return [f"{head}: {', '.join(texts)}"] if texts else []


def _scattering(spec: RunSpec, placed: Placed, figures: dict[str, Any]) -> list[str]:
    """Say how many servers a token meets more than with whole routing groups, and what these cost.

    Servers are counted on judged tokens.
    """
    setting, placement = placed.setting, placed.placement
    problem, groups = setting.problem, setting.problem.n_group
    if groups is None or not 1 < problem.servers <= groups or placement.redundant:
        return []
    try:
        kept = KeepGroups()(problem)
    except (PlacementError, InfeasibleError):
        return []
    tokens = setting.workload.trace.topk
    have, whole = (copies_per_token(each, tokens, scope="server") for each in (placement, kept))
    if have <= whole * _SCATTERED:
        return []
    priced, expected = evaluate(kept, problem), placed.expected
    step = _change(replay(spec, setting, kept).step_s, figures["step_s"])
    text = (
        f"a token meets {have:.2f} distinct servers instead of {whole:.2f} with whole routing "
        "groups: where a message goes once per server, --keep-groups sends that much less. Its "
        f"price: busiest server {priced.balance_server:.2f} x the mean instead of "
        f"{expected.balance_server:.2f}, busiest GPU {priced.balance_gpu:.2f} instead of "
        f"{expected.balance_gpu:.2f}, hops "
        f"{_change(priced.hops_per_token_layer, expected.hops_per_token_layer)}, step {step} "
        f"with {spec.dispatch.mode} dispatch"
    )
    return [text]


def _gains(figures: dict[str, Any], others: dict[str, Any], against: str) -> str:
    hops, step, gpu = (
        _change(figures[key], others[key])
        for key in ("hops_per_token_layer", "step_s", "profile_balance_gpu")
    )
    return (
        f"against {against} on the same tokens: hops {hops}, step {step}, busiest GPU {gpu} "
        "(profile)"
    )


def _change(new: float, old: float) -> str:
    """Return the relative change; of nothing there is none."""
    return f"{100 * (new / old - 1):+.1f} %" if old > 0 else f"{new - old:+.3g}"
