"""The benchmark's sections on recorded data: rows of each topic as tables for people."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.benchmarks import balance, congestion, copies, field, moves, replication
from experiments.markdown import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Rows = list[dict[str, Any]]

QUICK_BETAS = (1.25,)
"""Caps on the load that are solved where not everything is asked for."""


@dataclass(frozen=True, slots=True)
class Section:
    """A topic of the benchmark.

    Attributes
    ----------
    title
        What is measured, on what.
    rows
        Called with the data folder and whether everything is asked for.
    columns
        Header and format of every column shown, in order; the rows hold more for programs.
    """

    title: str
    rows: Callable[[Path, bool], Rows]
    columns: Mapping[str, tuple[str, str]]

    @property
    def header(self) -> list[str]:
        """Headers of the columns."""
        return [header for header, _ in self.columns.values()]

    def texts(self, rows: Rows) -> list[list[str]]:
        """Return the cells of the table, `None` as a dash."""
        return [
            [_text(row[name], form) for name, (_, form) in self.columns.items()] for row in rows
        ]

    def markdown(self, rows: Rows) -> str:
        """Return title and table."""
        return f"### {self.title}\n\n{markdown_table(self.header, self.texts(rows))}"


def _text(value: object, form: str) -> str:
    return "-" if value is None else format(value, form)


def data_folder() -> Path | None:
    """Return the folder of recorded loads and traces, or None where there is none."""
    folder = Path(os.environ.get("TOPOMOE_DATA", "../shared/data"))
    return folder if folder.is_dir() else None


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


def _balance_rows(data: Path, everything: bool) -> Rows:
    return balance.balance(data, betas=balance.BETAS if everything else QUICK_BETAS)


def _moves_rows(data: Path, everything: bool) -> Rows:
    return moves.solve_rows(data, layer_slots=moves.LAYER_SLOTS if everything else (8,))


def _replica_rows(data: Path, everything: bool) -> Rows:
    loads = None if everything else ("decode_in1000out1000",)
    return replication.replica_rows(data, loads=loads)


def _congestion_rows(data: Path, everything: bool) -> Rows:
    if everything:
        return congestion.congestion_rows(data)
    return congestion.congestion_rows(data, clusters=("fat-tree", "ep32"), ratios=(1, 2))


_SECONDS = {"seconds": ("seconds", ".3f")}

SECTIONS = (
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
        "Hops under a cap on the load: R1 on 32 servers, C_exp 464, layers relaxed",
        _balance_rows,
        {
            "layer_slots": ("C_layer", ""),
            "beta": ("beta", "g"),
            "hops": ("hops", ".4f"),
            "bound": ("bound", ".4f"),
            "gap": ("gap", ".4%"),
            "balance_server": ("max/mean", ".3f"),
            "layers_relaxed": ("relaxed", ""),
        }
        | _SECONDS,
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
            "balance": ("judged max/mean", ".3f"),
            "bound": ("bound", ".3f"),
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
    ),
)
"""Every topic, in the order of the page."""
