"""The fluid network: jobs that other simulators are measured on, and lazy rates against exact ones.

The exact run takes about a minute and a half, so its figures are kept here (`EXACT`); they come
from ``python -c "from experiments.benchmarks.fluid import skewed_rows as rows;
print(rows(exact=True))"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks.clocks import timed
from experiments.benchmarks.common_job import IDEAL_US, all_pairs, common_cluster, common_flows
from experiments.benchmarks.section import Section, Target, column
from sim import FluidNetwork
from sim.network import Flows, run_alone
from topologies import Router, preset

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.benchmarks.section import Rows
    from topologies import Cluster

STEPS = (50, 100, 200)
"""Steps of the lazy rule that are compared."""

OWN_STEPS = 100
"""Those that `FluidNetwork` takes by itself; figures are required of them."""

EXACT = {"makespan_us": 4224.380760043558, "mean_us": 233.6641868750864, "fillings": 65_109}
"""The skewed all-to-all at exact rates (numpy 2.3 draws)."""


def common_rows(rules: tuple[str, ...] = ("shares",), repeats: int = 3) -> list[dict[str, Any]]:
    """Run the job that peers are timed on (`common_job`), with exact rates.

    Returns
    -------
    list of dict
        ``rule``, ``makespan_us``, ``ideal_us`` (127 messages over a host link), ``fillings``,
        ``seconds`` of the wall and ``cpu_s`` of the processor (best of `repeats`, routing and
        set-up included).
    """
    cluster, flows = common_cluster(), common_flows()
    rows = []
    for rule in rules:
        row = _timed((cluster, rule), None, flows, repeats)
        rows.append({"rule": rule, "ideal_us": IDEAL_US} | row)
    return rows


def skewed_rows(
    *, steps: tuple[int, ...] = STEPS, exact: bool = False, repeats: int = 3
) -> list[dict[str, Any]]:
    """Run a skewed 256-rank all-to-all (65,280 messages) under hashed ECMP, lazily and exactly.

    Parameters
    ----------
    steps
        Of the lazy rule.
    exact
        Whether to run exact rates anew instead of quoting `EXACT`.
    repeats
        The best time of so many runs counts.

    Returns
    -------
    list of dict
        ``steps``, ``makespan_us``, ``mean_us``, both over those of exact rates
        (``makespan_error``, ``mean_error``), ``bound_us`` (busiest link), ``fillings``,
        ``seconds`` and ``cpu_s``.
    """
    cluster = preset("facts-fat-tree").spec.build()
    flows = skewed_all_to_all(cluster.gpus)
    kept: dict[str, Any] = dict(EXACT)
    rows = []
    if exact:
        kept = _timed((cluster, "hash"), None, flows, 1)
        rows.append({"steps": None, "makespan_error": 0.0, "mean_error": 0.0} | kept)
    for count in steps:
        row = _timed((cluster, "hash"), count, flows, repeats)
        errors = {
            "makespan_error": row["makespan_us"] / kept["makespan_us"] - 1,
            "mean_error": row["mean_us"] / kept["mean_us"] - 1,
        }
        rows.append({"steps": count} | errors | row)
    return rows


def skewed_all_to_all(gpus: int, seed: int = 0) -> Flows:
    """Messages of 64 KiB on average, receivers lognormal, every message scattered by a half."""
    rng = np.random.default_rng(seed)
    popularity = rng.lognormal(0.0, 1.0, gpus)
    src, dst = all_pairs(gpus)
    mean = 65_536 * popularity[dst] / popularity.mean()
    size = np.ceil(mean * rng.gamma(4.0, 0.25, len(dst)))
    return Flows(src, dst, size, 1)


def _timed(
    routing: tuple[Cluster, str], steps: int | None, flows: Flows, repeats: int
) -> dict[str, Any]:
    """Time a collective on a new router each time, for a router remembers its paths."""

    def run() -> tuple[Any, Any]:
        return run_alone(FluidNetwork(Router(*routing), steps=steps), flows)

    (collective, session), clocks = timed(run, repeats)
    busy = collective.link_bytes / routing[0].bandwidth_Bps
    return {
        "makespan_us": float(collective.delivered_ns.max()) * 1e-3,
        "mean_us": float(collective.delivered_ns.mean()) * 1e-3,
        "bound_us": float(busy.max()) * 1e6,
        "fillings": session.fillings,
    } | clocks._asdict()


def _most(name: str) -> Callable[[Rows], list[float]]:
    """Return what takes the size of an error at the network's own steps."""
    return lambda rows: [abs(each) for each in column(name, steps=OWN_STEPS)(rows)]


_CLOCKS = {"seconds": ("seconds", ".3f"), "cpu_s": ("processor seconds", ".3f")}

FLUID_SECTIONS = (
    Section(
        "Fluid, exact rates: 128 hosts, k = 8 fat-tree, 100 Gb/s, 64 KiB between any two",
        lambda _data, _everything: common_rows(("shares", "dmodk")),
        {
            "rule": ("routing", ""),
            "makespan_us": ("makespan us", ".3f"),
            "ideal_us": ("ideal", ".3f"),
            "fillings": ("rates computed", ""),
        }
        | _CLOCKS,
        (Target("fluid, the peers' job exact: processor seconds", column("cpu_s"), 0.1),),
        needs_data=False,
    ),
    Section(
        "Fluid, lazy rates: a skewed 256-GPU all-to-all over hashed paths, against exact rates",
        lambda _data, _everything: skewed_rows(),
        {
            "steps": ("steps", ""),
            "makespan_us": ("makespan us", ".1f"),
            "makespan_error": ("against exact", "+.3%"),
            "mean_us": ("mean us", ".2f"),
            "mean_error": ("against exact", "+.3%"),
            "fillings": ("rates computed", ""),
        }
        | _CLOCKS,
        (
            Target(
                "fluid, skewed all-to-all: processor seconds",
                column("cpu_s", steps=OWN_STEPS),
                0.3,
            ),
            Target(
                "fluid, skewed all-to-all: makespan", _most("makespan_error"), 0.005, form=".2%"
            ),
            Target("fluid, skewed all-to-all: mean", _most("mean_error"), 0.01, form=".2%"),
        ),
        needs_data=False,
    ),
)
