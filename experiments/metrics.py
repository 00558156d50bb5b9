"""From run results to tidy rows."""

from __future__ import annotations

from math import isclose
from typing import TYPE_CHECKING, Any

from placement import hops_over_optima
from placement.solve import relative_gap
from sim.tables import links_table

if TYPE_CHECKING:
    import pandas as pd

    from experiments.run import Placed, RunResult
    from experiments.spec import RunSpec
    from sim.network.usage import LinkUsage

KEYS = ("model", "cluster", "attention", "policy", "network")
"""Columns that name a run of the study."""

COPIES_TOKENS = 512
"""Tokens of a training domain, evenly spaced, on which copies are counted."""


def metrics(result: RunResult) -> dict[str, Any]:
    """Return the figures of a run by name, as ``--json`` gives them."""
    return {
        **_expected(result),
        **result.replay.metrics(),
        **_queue_wait(result.replay.usage),
    }


def profile_metrics(placed: Placed, *, capped: bool = False) -> dict[str, float | None]:
    """Return the balance that the profile expects, beside what a replay shows.

    Where a cap was put on the load, no gap to the least busiest GPU: none was looked for.
    """
    return {
        "profile_balance_server": placed.expected.balance_server,
        "profile_balance_gpu": placed.expected.balance_gpu,
        **_least_busiest(placed, capped=capped),
    }


def _least_busiest(placed: Placed, *, capped: bool) -> dict[str, float | None]:
    """Proven least load of the busiest GPU, where replicas were chosen for it, and its gap."""
    least, busiest = placed.choice.least_busiest, placed.expected.balance_gpu
    bound = None if least is None else min(float(least.mean()), busiest)
    gap = None if bound is None or capped else relative_gap(busiest, bound)
    return {"balance_gpu_bound": bound, "balance_gpu_gap": gap}


def _expected(placed: Placed) -> dict[str, Any]:
    return {
        "workload": placed.setting.workload.source,
        "expected_hops": placed.expected.hops_per_token_layer,
        **_proof(placed),
    }


def _proof(result: Placed) -> dict[str, Any]:
    """Status, objective, bound and gap; no bound where it is of another cost than these hops.

    The unweighted ilp proves its own cost; a placement file brings the proof of the problem it
    was made for.
    """
    report, hops = result.placement.solve, result.expected.hops_per_token_layer
    if report is None or report.unit != "hops":
        status = "heuristic" if report is None else f"{report.status} in {report.unit}"
        return {"status": status, "objective_hops": None, "bound_hops": None, "gap": None}
    same = isclose(report.objective_hops, hops, rel_tol=1e-6, abs_tol=1e-9)
    return {
        "status": report.status if same else f"{report.status} on its own cost",
        "objective_hops": report.objective_hops,
        "bound_hops": report.bound_hops if same else None,
        "gap": report.gap if same else None,
    }


def _queue_wait(usage: LinkUsage) -> dict[str, float | None]:
    """Mean and longest wait of a chunk for a link; None where the network has no queues."""
    if usage.wait_ns is None or usage.wait_max_ns is None or usage.chunks is None:
        return {"queue_wait_mean_s": None, "queue_wait_max_s": None}
    served = max(int(usage.chunks.sum()), 1)
    return {
        "queue_wait_mean_s": int(usage.wait_ns.sum()) / served * 1e-9,
        "queue_wait_max_s": int(usage.wait_max_ns.max()) * 1e-9,
    }


def study_row(spec: RunSpec, result: RunResult) -> dict[str, Any]:
    """Return the row of ``hops.csv``: what names the run, and its figures.

    The unweighted ILP's range of hops over its degenerate optima stands beside its own.
    """
    name = result.placement.policy
    low, high = hops_over_optima(result.setting.problem) if name == "ilp" else (None, None)
    return {
        **run_key(spec, name),
        "tokens": result.replay.tokens,
        **metrics(result),
        "optima_low_hops": low,
        "optima_high_hops": high,
    }


def solve_row(spec: RunSpec, result: RunResult) -> dict[str, Any]:
    """Return what the manifest says of the solve."""
    report = result.placement.solve
    hops = report if report and report.unit == "hops" else None
    return {
        **run_key(spec, result.placement.policy),
        "status": report.status if report else "heuristic",
        "objective_hops": hops.objective if hops else None,
        "bound_hops": hops.bound if hops else None,
        "gap": report.gap if report else None,
        "seconds": result.place_s,
    }


def links_frame(spec: RunSpec, result: RunResult) -> pd.DataFrame:
    """Return the run's link table with the columns that name the run in front."""
    frame = links_table(result.replay).rename(columns={"class": "link_class"})
    for at, (column, value) in enumerate(run_key(spec, result.placement.policy).items()):
        frame.insert(at, column, value)
    return frame


def run_key(spec: RunSpec, policy: str) -> dict[str, str]:
    """Return the values of `KEYS` for a run."""
    return {
        "model": spec.model,
        "cluster": spec.cluster,
        "attention": spec.attention.kind,
        "policy": policy,
        "network": spec.network.kind,
    }
