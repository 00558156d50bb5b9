"""Which options of a placement go with which policy, and with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CAP = ("beta", "beta_scope", "beta_relax", "beta_price")
_MOVES = ("previous", "max_moves", "move_price", "move_price_gb")
_EFFORT = ("time_limit", "search_seed")
_SEARCH = (*_CAP, "redundant", *_MOVES, *_EFFORT)

TAKES: dict[str, tuple[str, ...]] = {
    "ilp": ("time_limit", "spread"),
    "ilp-load": (*_SEARCH, "keep_groups", "spread"),
    "keep-groups": ("keep_groups", "spread"),
    "replicated": _SEARCH,
    "least-copies": (*_SEARCH, "hop_weighted", "domains", "robust", "flatten", "spread"),
    "least-congestion": ("links", "beta", "beta_scope", "redundant", *_EFFORT),
    "least-seconds": (
        "step_tokens",
        "slot_seconds",
        "token_seconds",
        "link_byte_seconds",
        *_EFFORT,
    ),
    "eplb": ("redundant",),
    "eplb-auto": ("redundant",),
    "hottest": ("redundant",),
    "contiguous": ("spread",),
    "round-robin": ("spread",),
    "random": ("spread",),
    "greedy": ("spread",),
    "greedy-load": ("spread",),
}
"""Options that a policy takes beyond `ALWAYS`."""

ALWAYS = (
    "layer_slots",
    "server_slots",
    "engine",
    "replica_rule",
    "gpu_memory_gb",
    "kv_tokens",
    "bytes_per_parameter",
)
"""Options that every policy takes, a placement file and a user's own policy too."""

NEEDS = {
    "beta_relax": "beta",
    "beta_price": "beta",
    "beta_scope": "beta",
    "max_moves": "previous",
    "move_price": "previous",
    "move_price_gb": "previous",
    "robust": "domains",
    "kv_tokens": "gpu_memory_gb",
}
"""Options that mean something only with another one."""

FREE = {("beta_scope", "least-copies")}
"""Options that mean something alone to a policy: what a copy goes to."""

APART: tuple[tuple[tuple[str, ...], str], ...] = (
    (("max_moves", "move_price", "move_price_gb"), "each of them limits the moves"),
    (("beta_relax", "beta_price"), "a priced cap refuses nothing that could be relaxed"),
    *(
        (("keep_groups", other), "whole groups leave nothing to cap, to replicate or to move")
        for other in ("beta", "redundant", "previous")
    ),
    (("keep_groups", "time_limit"), "whole groups are placed at once, by an exact flow"),
    *(
        (("spread", other), "it keeps servers and deals GPUs anew, and these are on GPUs")
        for other in ("beta_scope", "redundant", "previous")
    ),
)
"""Options of which at most one is given, and why."""


ENGINE_RULES = {"sglang": ("sglang_static", "sglang_dynamic"), "vllm": ("vllm_modulo",)}
"""Rules by which engines take replicas, the first by default; the others take them equally."""


def engine_rule(engine: object) -> str:
    """Return the replica rule that an engine runs, ``equal`` without one."""
    return (
        ENGINE_RULES[engine][0] if isinstance(engine, str) and engine in ENGINE_RULES else "equal"
    )


def rule_refusal(engine: str | None, rule: str) -> str | None:
    """Say why an engine would never run a replica rule: it is another engine's."""
    if engine is None:
        return None
    owner = next((name for name, rules in ENGINE_RULES.items() if rule in rules), engine)
    if owner == engine:
        return None
    own = " or ".join(f"'{each}'" for each in ENGINE_RULES.get(engine, ("equal",)))
    return f"the replica rule '{rule}' is {owner}'s, and the engine is {engine}, which runs {own}"


def refusal(policy: str, asked: Iterable[str]) -> str | None:
    """Say in one line why these options do not go together; None if they do.

    Parameters
    ----------
    policy
        Name of the policy.
    asked
        Options given, other than by default.
    """
    given = list(asked)
    for option in given:
        if option not in ALWAYS and option not in TAKES.get(policy, ()):
            return _foreign(option, policy)
    for option in given:
        needed = NEEDS.get(option)
        if needed not in (None, *given) and (option, policy) not in FREE:
            return f"'{option}' goes with '{needed}'"
    for group, why in APART:
        both = [option for option in given if option in group]
        if len(both) > 1:
            return f"'{both[0]}' and '{both[1]}' do not combine; give one of them: {why}"
    return None


def taking(option: str) -> list[str]:
    """Names of the policies that take an option."""
    return [policy for policy, options in TAKES.items() if option in options]


def _foreign(option: str, policy: str) -> str:
    own = _quoted(TAKES.get(policy, ())) or "no options of its own"
    return (
        f"'{option}' goes with policy {', '.join(taking(option))}, not '{policy}', which takes "
        f"{own}"
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
