"""From a placement's specification to the placement: read what it names, place, check, evaluate."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.costs import replica_problem
from experiments.errors import ExperimentError
from experiments.maps import read_map
from experiments.policies import Choice, Order, choose
from placement import evaluate
from placement.balance import spread
from placement.engines import engine, for_engine, refusal
from placement.replicas import evaluate_replicas, make_rule

if TYPE_CHECKING:
    from experiments.run import Setting
    from experiments.spec import PlacementSpec
    from placement import Evaluation, Placement, PlacementProblem


def apply_choice(spec: PlacementSpec, setting: Setting) -> Choice:
    """Place by the policy that `spec` asks for, under the rules of its engine.

    Raises
    ------
    PlacementError, ExperimentError
        If the policy cannot place, or the engine would not load what it placed.
    """
    problem = setting.problem
    # Redundant slots come on top of the caps: only the result shows whether they are even.
    if spec.engine is not None and not spec.redundant:
        problem = for_engine(problem, engine(spec.engine))
    previous = None if spec.previous is None else read_fitting(spec.previous, setting)
    choice = _quietly(Order(spec, setting, problem, previous))
    if spec.spread:
        choice = replace(choice, placement=spread(problem, choice.placement, seed=spec.search_seed))
    check_engine(spec, choice.placement)
    return choice


def check_engine(spec: PlacementSpec, placement: Placement) -> None:
    """Refuse a placement that the engine of `spec` would not load."""
    if spec.engine is None:
        return
    why = refusal(placement, engine(spec.engine))
    if why is not None:
        raise ExperimentError(f"{spec.engine} would not load the placement: {why}")


def read_fitting(path: str, setting: Setting) -> Placement:
    """Read a placement file or an engine's map and see that it is of the run's model and cluster.

    Raises
    ------
    PlacementError, ExperimentError
        If it is none, or of something else; the message names the file.
    """
    placement = read_map(Path(path), setting)
    check_fits(placement, setting.problem, path)
    return placement


def check_fits(placement: Placement, problem: PlacementProblem, where: str) -> None:
    """Refuse a placement of another model or cluster, naming the file it is from."""
    if placement.model != problem.model:
        raise ExperimentError(
            f"{where}: places model '{placement.model}', the run is of '{problem.model}'"
        )
    have = (placement.layers, placement.experts, placement.servers, placement.gpus_per_server)
    want = (problem.layers, problem.experts, problem.servers, problem.gpus_per_server)
    if have != want:
        raise ExperimentError(f"{where}: places {_shape(*have)}, the run is of {_shape(*want)}")


def evaluated(placement: Placement, setting: Setting, rule: str) -> Evaluation:
    """Price a placement as the profile expects it, replicas under the rule that will run."""
    if not placement.redundant:
        return evaluate(placement, setting.problem)
    return evaluate_replicas(placement, replica_problem(setting, setting.problem), make_rule(rule))


def _quietly(order: Order) -> Choice:
    """Place; what a policy of the user's own warns of becomes a note, not a line on stderr."""
    if ":" not in order.spec.policy:
        return choose(order)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        choice = choose(order)
    said = dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
    notes = tuple(f"policy '{order.spec.policy}' warns: {text}" for text in said)
    return replace(choice, notes=choice.notes + notes)


def _shape(layers: int, experts: int, servers: int, gpus_per_server: int) -> str:
    return f"{layers} layers x {experts} experts on {servers} servers of {gpus_per_server} GPUs"
