"""Sections on what limits a step beside hops: busy GPUs, copies, replicas and busy links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.benchmarks import congestion, copies, eplb, field, replication
from experiments.benchmarks.section import Section, Target, column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from experiments.benchmarks.section import Rows

_SECONDS = {"seconds": ("seconds", ".3f")}


def mean_balance_rows(data: Path, everything: bool) -> Rows:
    """Rows of `field.balance_rows`: every load, or means over all loads."""
    rows = field.balance_rows(data)
    if everything:
        return rows
    return [
        {"load": f"mean of {len(group)}", "deployment": name, "policy": policy}
        | {key: _mean(group, key) for key in ("slots", "balance_gpu", "balance_server", "seconds")}
        for (name, _, policy), group in _grouped(rows)
    ]


def _grouped(rows: Rows) -> Iterator[tuple[tuple[str, int, str], Rows]]:
    """Rows by deployment, redundancy and policy, in the order they come."""
    groups: dict[tuple[str, int, str], Rows] = {}
    for row in rows:
        groups.setdefault((row["deployment"], row["slots"], row["policy"]), []).append(row)
    yield from groups.items()


def _mean(rows: Rows, key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


def _replica_rows(data: Path, everything: bool) -> Rows:
    loads = None if everything else ("decode_in1000out1000",)
    return replication.replica_rows(data, loads=loads)


def _congestion_rows(data: Path, everything: bool) -> Rows:
    if everything:
        return congestion.congestion_rows(data)
    return congestion.congestion_rows(data, clusters=("fat-tree", "ep32"), ratios=(1, 2))


def _robust_rows(data: Path, everything: bool) -> Rows:
    return copies.robust_rows(data) if everything else []


def _drawn_rows(_data: Path, everything: bool) -> Rows:
    return copies.synthetic_rows() if everything else []


def _both_ways(rows: Rows) -> list[float]:
    """Mean of the copies saved over both directions, of every way to count tokens."""
    across = [row for row in rows if row["judged"] != "odd blocks"]
    ways = dict.fromkeys(row["flatten"] for row in across)
    return [_mean([row for row in across if row["flatten"] == way], "fewer") for way in ways]


def _against_eplb(name: str, rule: str) -> Callable[[Rows], list[float]]:
    """Return what compares a column with EPLB's, where a rule runs."""

    def values(rows: Rows) -> list[float]:
        return [row[name] / row[f"eplb_{name}"] - 1 for row in rows if row["rule"] == rule]

    return values


def _different(rows: Rows) -> list[float]:
    return [row["different"] for row in rows if row["different"] is not None]


LOAD_SECTIONS = (
    Section(
        "EPLB as written here: slots that differ from the published ones, and seconds",
        lambda _data, _all: eplb.eplb_rows(),
        {
            "case": ("case", ""),
            "slots": ("slots", ""),
            "gpus": ("GPUs", ""),
            "different": ("different", ""),
            "seconds": ("seconds", ".4f"),
        },
        (
            Target("EPLB, README example: slots that differ", _different, 0, form="g"),
            Target("EPLB, 256 GPUs, 512 slots: seconds", column("seconds", slots=512), 0.15),
        ),
        needs_data=False,
    ),
    Section(
        "Policies that look at tokens' choices: V2-Lite on 8 GPUs, judged on other blocks",
        lambda data, _: field.choice_rows(data),
        {
            "policy": ("policy", ""),
            "gpus_per_token_layer": ("GPUs/token", ".3f"),
            "balance_gpu": ("max/mean", ".3f"),
            "kept_pairs": ("pairs kept", ".3f"),
            "kept_pairs_bound": ("bound", ".3f"),
            "kept_affinity": ("affinity kept", ".3f"),
            "kept_affinity_bound": ("bound", ".3f"),
        }
        | _SECONDS,
    ),
    Section(
        "Fewest copies, load <= 1.3 x mean: V2-Lite on 8 GPUs of 8 experts",
        lambda data, _: copies.copies_rows(data),
        {
            "fitted": ("fitted on", ""),
            "judged": ("judged on", ""),
            "flatten": ("flatten", "g"),
            "contiguous": ("contiguous", ".3f"),
            "copies": ("GPUs/token", ".3f"),
            "fewer": ("fewer", ".1%"),
            "balance_contiguous": ("contiguous max/mean", ".3f"),
            "balance": ("judged max/mean", ".3f"),
            "bound": ("bound", ".3f"),
        }
        | _SECONDS,
        (
            Target(
                "fewest copies, judged on other blocks: fewer than contiguous",
                column("fewer", judged="odd blocks"),
                0.30,
                ">=",
                ".1%",
            ),
            Target(
                "fewest copies, judged on the other task, mean of both: fewer",
                _both_ways,
                0.20,
                ">=",
                ".1%",
            ),
        ),
    ),
    Section(
        "Fewest copies over two tasks together: V2-Lite on 8 GPUs, fitted on even blocks",
        _robust_rows,
        {
            "form": ("counts", ""),
            "copies_intent": ("intent: GPUs/token", ".3f"),
            "fewer_intent": ("fewer", ".1%"),
            "balance_intent": ("judged max/mean", ".3f"),
            "copies_law": ("law: GPUs/token", ".3f"),
            "fewer_law": ("fewer", ".1%"),
            "balance_law": ("judged max/mean", ".3f"),
            "objective": ("objective", ".3f"),
            "bound": ("bound", ".3f"),
        }
        | _SECONDS,
    ),
    Section(
        "Fewest copies on tokens drawn with R1's skew: 6 layers, 8 GPUs a server",
        _drawn_rows,
        {
            "servers": ("servers", ""),
            "scope": ("places", ""),
            "contiguous": ("contiguous", ".3f"),
            "copies": ("places/token", ".3f"),
            "fewer": ("fewer", ".1%"),
            "balance_contiguous": ("contiguous max/mean", ".3f"),
            "balance": ("judged max/mean", ".3f"),
            "bound": ("bound", ".3f"),
        }
        | _SECONDS,
        needs_data=False,
    ),
    Section(
        "Balance from loads alone: recorded R1 loads, replicas sharing equally",
        mean_balance_rows,
        {
            "deployment": ("deployment", ""),
            "slots": ("slots", "g"),
            "policy": ("policy", ""),
            "load": ("load", ""),
            "balance_gpu": ("GPU max/mean", ".4f"),
            "balance_server": ("server", ".4f"),
        }
        | _SECONDS,
    ),
    Section(
        "Replicas at EPLB's balance or better: recorded R1 loads",
        _replica_rows,
        {
            "load": ("load", ""),
            "deployment": ("deployment", ""),
            "rule": ("rule", ""),
            "eplb_balance": ("EPLB max/mean", ".4f"),
            "balance": ("ours", ".4f"),
            "least_balance": ("least", ".4f"),
            "eplb_hops": ("EPLB hops", ".2f"),
            "hops": ("ours", ".2f"),
            "hops_bound": ("bound", ".2f"),
            "weight_gb_per_gpu": ("GB/GPU", ".2f"),
            "kv_tokens_per_gpu": ("KV tokens/GPU", ",.0f"),
        }
        | _SECONDS,
        tuple(
            Target(
                f"replicas, rule {rule}: {what} against EPLB's",
                _against_eplb(name, rule),
                0,
                sense,
                "+.2%",
            )
            for _, rule in replication.SETTINGS
            for name, what, sense in (("balance", "busiest GPU", "<="), ("hops", "hops", "<"))
        ),
    ),
    Section(
        "Least busiest-link time a layer, one token a GPU, data-parallel: R1 decode loads",
        _congestion_rows,
        {
            "cluster": ("cluster", ""),
            "oversubscription": ("oversubscribed", "g"),
            "links": ("links", ""),
            "redundant": ("replicas", "g"),
            "busiest_us": ("us", ".3f"),
            "bound_us": ("bound", ".3f"),
            "gap": ("gap", ".2%"),
            "pinned_layers": ("layers pinned by an expert", "g"),
        }
        | _SECONDS,
        (Target("busiest links: gap to the bound", column("gap"), 0.03, form=".2%"),),
    ),
)
"""In the order of the page."""
