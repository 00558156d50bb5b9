"""From a sweep to its runs: resolved, named, and checked before the first one starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.errors import ExperimentError
from experiments.policies import ROUTES
from experiments.sweeping.identity import identify
from experiments.sweeping.keys import said
from placement import POLICIES, PlacementError
from topologies import TopologyError
from workloads import WorkloadError

if TYPE_CHECKING:
    from experiments.spec import RunSpec
    from experiments.sweeping.grid import Sweep
    from experiments.sweeping.keys import Settings

ASKED_ABOVE = 10_000
"""Runs that need a yes."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A run of a sweep.

    Attributes
    ----------
    run_id
        See `experiments.sweeping.identity`.
    spec
        The run.
    label
        What the axes set.
    """

    run_id: str
    spec: RunSpec
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The runs of a sweep.

    Attributes
    ----------
    runs
        Every run once, in the order of the sweep.
    repeats
        Combinations that are a run that another one is already.
    tables
        What to keep of every run.
    """

    runs: list[Planned]
    repeats: int
    tables: tuple[str, ...]


def plan(sweep: Sweep, *, sure: bool = False) -> Plan:
    """Resolve and name every run.

    Parameters
    ----------
    sweep
        What to run.
    sure
        Whether more than `ASKED_ABOVE` runs are meant.

    Raises
    ------
    ExperimentError
        If there are more and nobody is sure, or a combination is no run.
    """
    if sweep.size > ASKED_ABOVE and not sure:
        lengths = " x ".join(
            f"{len(axis.steps)} ({', '.join(axis.keys)})" for axis in sweep.axes if axis.steps
        )
        raise ExperimentError(
            f"{sweep.where}: {sweep.size:,} runs, {lengths}; --yes says that more than "
            f"{ASKED_ABOVE:,} are meant"
        )
    runs: dict[str, Planned] = {}
    for settings in sweep.settings():
        run = _planned(sweep, settings)
        runs.setdefault(run.run_id, run)
    return Plan(list(runs.values()), sweep.size - len(runs), sweep.tables)


def _planned(sweep: Sweep, settings: Settings) -> Planned:
    label = said(settings)
    try:
        spec = sweep.resolve(settings)
        _check_policy(spec.placement.policy)
        return Planned(identify(spec).run_id, spec, label)
    except (PlacementError, TopologyError, WorkloadError, ExperimentError) as error:
        where = f"{sweep.where}: run with {label}" if label else sweep.where
        raise ExperimentError(f"{where}: {error}") from error


def _check_policy(name: str) -> None:
    if name not in POLICIES and name not in ROUTES and ":" not in name:
        allowed = ", ".join(dict.fromkeys((*POLICIES, *ROUTES)))
        raise ExperimentError(
            f"unknown policy '{name}'; allowed: {allowed}, or package.module:Class"
        )
