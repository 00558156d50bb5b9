"""Sections on where experts sit: hops, balance, routing groups, and changes of the load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.benchmarks import balance, groups, hop_speed, moves, overview
from experiments.benchmarks.section import Section, Target, column

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from experiments.benchmarks.section import Rows

_SECONDS = {"seconds": ("seconds", ".3f")}
_BINARY = "as written, binary"


def _speed_rows(_data: Path, everything: bool) -> Rows:
    naive = {"fat-tree": ("as written, relaxed", _BINARY)}
    return hop_speed.hop_rows(naive=naive | ({"64 servers": (_BINARY,)} if everything else {}))


def _moves_rows(data: Path, everything: bool) -> Rows:
    return moves.solve_rows(data, layer_slots=moves.LAYER_SLOTS if everything else (8,))


def _limited(name: str) -> Callable[[Rows], list[float]]:
    """Return what takes a column of the solves of the slow drift with a limit on moves."""

    def values(rows: Rows) -> list[float]:
        return [
            row[name]
            for row in rows
            if (row["case"], row["layer_slots"]) == (moves.CASES[0][0], 8)
            and row["policy"].startswith("replace,")
        ]

    return values


def _extra_servers(rows: Rows) -> list[float]:
    kept = [row for row in rows if row["policy"] == "keep-groups"]
    return [row["distinct"] - row["distinct_whole"] for row in kept]


HOP_SECTIONS = (
    Section(
        "Every policy: hops against the proven least, balance, servers that a token meets",
        lambda data, _: overview.overview_rows(data),
        {
            "model": ("model", ""),
            "policy": ("policy", ""),
            "hops": ("hops", ".3f"),
            "bound": ("bound", ".3f"),
            "gap": ("gap", ".1%"),
            "balance_server": ("server max/mean", ".2f"),
            "balance_gpu": ("GPU", ".2f"),
            "servers_met": ("servers/token", ".2f"),
        }
        | _SECONDS,
    ),
    Section(
        "The hop program: as a flow, and as the paper writes it, each in its own process",
        _speed_rows,
        {
            "model": ("model", ""),
            "cluster": ("cluster", ""),
            "solver": ("solver", ""),
            "seconds": ("seconds", ".3f"),
            "needed_s": ("needed", "g"),
            "cpu_s": ("CPU seconds", ".3f"),
            "slower": ("against the flow", ",.0f"),
            "peak_gib": ("peak GiB", ".2f"),
            "hops": ("hops", ".6f"),
            "status": ("status", ""),
        },
        (
            *(
                Target(
                    f"hop program, {case.model} on {case.cluster}: seconds",
                    column("seconds", model=case.model, cluster=case.cluster, solver="flow"),
                    case.needed_s,
                )
                for case in hop_speed.CASES
            ),
            Target("hop program: peak memory, GiB", column("peak_gib", solver="flow"), 4),
            Target(
                "hop program, 64 servers: times faster than as written",
                column("slower", cluster="64 servers", solver=_BINARY),
                500,
                ">=",
                ",.0f",
            ),
        ),
        needs_data=False,
    ),
    Section(
        "Hops under a cap on the load: R1 on 32 servers, C_exp 464, layers relaxed",
        lambda data, _: balance.balance(data),
        {
            "layer_slots": ("C_layer", ""),
            "beta": ("beta", "g"),
            "hops": ("hops", ".4f"),
            "bound": ("bound", ".4f"),
            "gap": ("gap", ".4%"),
            "balance_server": ("max/mean", ".3f"),
            "layers_relaxed": ("relaxed", ""),
        }
        | _SECONDS
        | {"cpu_s": ("CPU seconds", ".3f"), "limit": ("limit", "")},
        (
            Target("hops under beta: gap to the bound", column("gap"), 0.005, form=".3%"),
            Target("hops under beta: seconds", column("seconds"), 20),
        ),
    ),
    Section(
        "GPUs inside hop-optimal servers: busiest GPU over the mean, R1 on 32 servers",
        lambda data, _: balance.inside(data),
        {
            "layer_slots": ("C_layer", ""),
            "balance_gpu_in_turn": ("in turn", ".4f"),
            "balance_gpu": ("spread", ".4f"),
            "bound": ("bound", ".4f"),
            "layers_proven": ("layers proven", ""),
        }
        | _SECONDS,
    ),
    Section(
        "Routing groups whole or scattered: R1, even shares, pipelined, recorded loads",
        lambda data, _: groups.group_rows(data),
        {
            "servers": ("servers", ""),
            "policy": ("policy", ""),
            "distinct": ("servers/token", ".2f"),
            "distinct_whole": ("whole", ".2f"),
            "distinct_scattered": ("scattered", ".2f"),
            "distinct_loaded": ("under the loads", ".2f"),
            "hops": ("hops", ".3f"),
            "balance_server": ("server max/mean", ".3f"),
            "balance_gpu": ("GPU", ".3f"),
        },
        (
            Target(
                "keep-groups: servers of a token above the value of whole groups",
                _extra_servers,
                groups.ROUNDING,
                form="+.3f",
            ),
        ),
    ),
    Section(
        "Re-placement when the load changes: R1 on 32 servers, C_exp 464",
        _moves_rows,
        {
            "case": ("case", ""),
            "layer_slots": ("C_layer", ""),
            "policy": ("policy", ""),
            "kept": ("kept", ".1%"),
            "hops": ("hops", ".4f"),
            "recovered": ("recovered", ".1%"),
        }
        | _SECONDS,
        (
            Target("re-placement, limited moves: pairs kept", _limited("kept"), 0.93, ">=", ".1%"),
            Target(
                "re-placement, limited moves: gain recovered",
                _limited("recovered"),
                0.98,
                ">=",
                ".1%",
            ),
        ),
    ),
)
"""In the order of the page."""
