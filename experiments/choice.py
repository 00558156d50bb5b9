"""From a placement's specification to the policy it asks for, with its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import ExperimentError
from placement import apply_policy, read_placement
from placement.balance import Balanced
from placement.engines import engine, for_engine, refusal
from placement.field import Eplb, HottestEverywhere
from placement.groups import KeepGroups
from placement.moves import Replace
from placement.replicas import Replicated
from placement.search import LeastCopies

if TYPE_CHECKING:
    from experiments.spec import PlacementSpec
    from placement import Placement, PlacementProblem, Policy


def apply_choice(spec: PlacementSpec, problem: PlacementProblem) -> Placement:
    """Place by the policy that `spec` asks for, under the rules of its engine.

    Raises
    ------
    PlacementError, ExperimentError
        If the policy cannot place, or the engine would not load what it placed.
    """
    # Redundant slots come on top of the caps: only the result shows whether they are even.
    if spec.engine is not None and not spec.redundant:
        problem = for_engine(problem, engine(spec.engine))
    policy = _with_parameters(spec, problem)
    if policy is None:
        placement = apply_policy(spec.policy, problem)
    else:
        placement = policy(problem)
        problem.check(placement)
    check_engine(spec, placement)
    return placement


def check_engine(spec: PlacementSpec, placement: Placement) -> None:
    """Refuse a placement that the engine of `spec` would not load."""
    if spec.engine is None:
        return
    why = refusal(placement, engine(spec.engine))
    if why is not None:
        raise ExperimentError(f"{spec.engine} would not load the placement: {why}")


def _with_parameters(spec: PlacementSpec, problem: PlacementProblem) -> Policy | None:
    """Return the policy where `spec` gives it parameters, else None."""
    if spec.policy == "least-copies":
        return LeastCopies(beta=spec.beta, relax=spec.beta_relax, scope=spec.beta_scope)
    if spec.beta is not None:
        return Balanced(spec.beta, relax=spec.beta_relax, scope=spec.beta_scope)
    if spec.previous is not None:
        previous = read_placement(Path(spec.previous))
        return Replace(previous, max_moves=spec.max_moves, price_hops=spec.move_price)
    if spec.keep_groups:
        return KeepGroups()
    return _replicating(spec, problem) if spec.redundant else None


def _replicating(spec: PlacementSpec, problem: PlacementProblem) -> Policy:
    """Return the policy that fills the redundant slots."""
    if spec.policy == "replicated":
        return Replicated(spec.redundant)
    if spec.policy == "hottest":
        return _hottest(spec.redundant, problem.servers)
    return Eplb(redundant=spec.redundant, hierarchical=spec.policy == "eplb-auto", name=spec.policy)


def _hottest(redundant: int, servers: int) -> HottestEverywhere:
    """Return the policy that puts as many experts on every server as the redundant slots allow."""
    if servers < 2 or redundant < servers - 1:
        raise ExperimentError(
            f"placement: hottest needs {max(1, servers - 1)} redundant slots for an expert on "
            f"each of {servers} servers, got {redundant}"
        )
    return HottestEverywhere(redundant // (servers - 1))
