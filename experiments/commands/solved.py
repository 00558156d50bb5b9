"""What `topomoe place` says of the solve: how good the placement is, and what limited it."""

from __future__ import annotations

from collections import Counter
from math import isclose
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.solve import relative_gap
from topologies import LinkClass

if TYPE_CHECKING:
    from experiments.run import Placed
    from experiments.spec import PlacementSpec
    from placement import SolveReport
    from placement.congestion import CongestionResult
    from topologies import Cluster

_UNITS = {
    "hops": "hops per token and layer, on the policy's own cost",
    "copies": "copies ({place}s a token meets) per token and layer",
    "copy-hops": "hops of copies to {place}s per token and layer",
    "seconds": "us per step and layer, as the profile expects it",
}
"""What an objective counts; other units speak for themselves."""


def solved(spec: PlacementSpec, placed: Placed) -> list[str]:
    """Say how good the policy's answer is on what it minimised; nothing without a report."""
    report = placed.placement.solve
    if report is None:
        return []
    took = f"{report.seconds:.3f} s{_limit(report, spec)}"
    hops = placed.expected.hops_per_token_layer
    own = report.unit != "hops" or not isclose(report.objective, hops, rel_tol=1e-6, abs_tol=1e-9)
    if placed.choice.least_busiest is not None:
        return [f"solve: {_two_stages(spec, placed, report)}; {took}"]
    when = " when the file was made" if spec.file is not None else ""
    text = f"solve{when}: {report.status}, {took}"
    # The table has hops as expected from the profile, which this objective is not.
    return [f"{text}; {_objective(report, spec)}" if own else text]


def _two_stages(spec: PlacementSpec, placed: Placed, report: SolveReport) -> str:
    """Say of replicas, which are chosen for the busiest GPU before hops, how good both are."""
    least, busiest = placed.choice.least_busiest, placed.expected.balance_gpu
    assert least is not None  # noqa: S101  the caller's
    bound = min(float(np.mean(least)), busiest)
    gap = "" if report.gap is None else f" (gap {report.gap:.2%})"
    hops = f"then hops at that load, {report.status}{gap}"
    if spec.beta is not None:
        return (
            f"first the busiest GPU within the cap {spec.beta:g}, {busiest:.4f} x the mean "
            f"({bound:.4f} is proven least); {hops}"
        )
    return (
        f"first the busiest GPU, {busiest:.4f} x the mean where {bound:.4f} is proven least (gap "
        f"{relative_gap(busiest, bound):.2%}); {hops}"
    )


def _limit(report: SolveReport, spec: PlacementSpec) -> str:
    if report.limit is None:
        return ""
    if report.limit in ("time", "budget") and spec.time_limit is None:
        return ", stopped by the search's own budget (--time-limit sets another)"
    if report.limit == "budget":
        return ", stopped by the policy's own search budget (--time-limit raises it)"
    return f", stopped by the {report.limit} limit"


def _objective(report: SolveReport, spec: PlacementSpec) -> str:
    scale = 1e6 if report.unit == "seconds" else 1.0
    unit = _UNITS.get(report.unit, report.unit)
    place = "GPU" if spec.beta_scope == "gpu" else "server"
    bound = "none"
    if report.bound is not None:
        bound = f"{report.bound * scale:.6g} (gap {report.gap:.2%})"
    return (
        f"minimised {report.objective * scale:.6g} {unit.format(place=place)}, proven lower bound "
        f"{bound}"
    )


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


def relief(result: CongestionResult, cluster: Cluster, *, redundant: bool) -> str:
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
        f"{_node(cluster, int(cluster.link_dst[link]))}): no placement relieves it, only "
        f"{'more ' if redundant else ''}replicas (--redundant)"
    )


def _node(cluster: Cluster, node: int) -> str:
    if node < cluster.gpus:
        return f"GPU {node}"
    if node < cluster.first_switch:
        return f"NVLink of server {node - cluster.gpus}"
    return f"switch {node - cluster.first_switch}"
