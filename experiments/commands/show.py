"""Figures for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from experiments.atomic import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

console = Console(highlight=False, markup=False, emoji=False)
"""Prints what it is given: a policy's or a file's name may look like markup."""

LABELS = {
    "hops_per_token_layer": "hops per token and layer, replayed",
    "expected_hops": "expected hops per token and layer (profile)",
    "bound_hops": "proven lower bound of these hops",
    "gap": "gap of the hops",
    "byte_hops": "byte-hops",
    "profile_balance_server": "busiest server / mean (profile)",
    "balance_server": "busiest server / mean, replayed",
    "profile_balance_gpu": "busiest GPU / mean (profile)",
    "balance_gpu": "busiest GPU / mean, replayed",
    "balance_gpu_bound": "least possible busiest GPU / mean",
    "balance_gpu_gap": "gap of the busiest GPU",
    "balancedness": "balancedness (mean / busiest GPU)",
    "gpus_per_token_layer": "GPUs per token and layer",
    "servers_per_token_layer": "servers per token and layer",
    "busiest_link_s": "busiest link, us a layer, replayed",
    "step_s": "step, ms",
    "exposed_comm_s": "exposed communication, ms",
    "compute_s": "a GPU computes, ms",
    "exposed_transfer_s": "and sends or receives meanwhile idle, ms",
    "waiting_s": "and waits for others, ms",
    "tpot_s": "time per output token, ms",
    "tokens_per_s_gpu": "tokens per second and GPU",
    "queue_wait_mean_s": "mean queue wait, us",
    "queue_wait_max_s": "longest queue wait, us",
    "lost_tokens": "tokens lost with GPUs that died",
    "lost_choices": "choices that no living replica could answer",
    "lost_experts": "experts without a living replica, over layers",
    "lost_bytes": "bytes lost when GPUs died",
    "resent_bytes": "bytes sent again as links died",
}
"""Figures of a run, in the order tables list them."""

_SCALE = {"busiest_link_s": 1e6, "queue_wait_mean_s": 1e6, "queue_wait_max_s": 1e6} | {
    "step_s": 1e3,
    "exposed_comm_s": 1e3,
    "compute_s": 1e3,
    "exposed_transfer_s": 1e3,
    "waiting_s": 1e3,
    "tpot_s": 1e3,
}


def figures_table(
    columns: Mapping[str, Mapping[str, Any]], *, caps: Mapping[str, str] | None = None
) -> Table:
    """Lay out the figures of runs side by side, one column a run; absent ones as a dash.

    Parameters
    ----------
    columns
        Figures by their names in `LABELS`, of every run.
    caps
        What to write behind the label of a figure.
    """
    table = Table(show_edge=False, header_style="bold")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for key, label in LABELS.items():
        values = [figures.get(key) for figures in columns.values()]
        if any(value is not None for value in values):
            said = (caps or {}).get(key)
            table.add_row(
                label if said is None else f"{label}, {said}",
                *(_text(key, value) for value in values),
            )
    return table


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write the figures for programs, if a file was asked for."""
    if path is not None:
        write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _text(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key in ("gap", "balance_gpu_gap"):
        return f"{100 * value:.3g} %"
    if key == "byte_hops":
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value * _SCALE.get(key, 1):,.3f}"
