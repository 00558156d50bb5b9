"""The contract of a placement policy as checks: ours pass them, and a user's own should.

from placement.conformance import check_policy
check_policy(MyPolicy(), problem)
"""

from __future__ import annotations

import copy
import random
import tempfile
from dataclasses import fields, is_dataclass
from math import ceil, inf, isclose, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.errors import PlacementError
from placement.files import placement_json, read_placement
from placement.objective import evaluate
from placement.placement import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from placement.policy import Policy
    from placement.problem import PlacementProblem
    from placement.solve import SolveReport

ROUNDING = 1e-9
"""Relative difference of two sums of the same terms that is rounding."""


class ConformanceError(PlacementError):
    """A policy that breaks the contract; the message says which part and how."""


def check_policy(
    policy: Policy,
    problem: Any,
    *,
    judge: Callable[[Placement], float] | None = None,
    repeats: bool = False,
) -> Placement:
    """Call a policy and hold it to the whole contract; return its placement.

    Parameters
    ----------
    policy
        What is checked.
    problem
        A `PlacementProblem`, or what the policy takes instead: an object that is one or has one
        as its ``problem``.
    judge
        The objective that the policy's report speaks of; by default `evaluate`'s hops.
    repeats
        Whether two replicas of an expert may share a GPU.

    Raises
    ------
    ConformanceError
        At the first broken part.
    """
    base: PlacementProblem = getattr(problem, "problem", problem)
    placement = check_calls(policy, problem)
    check_valid(placement, base, policy.name)
    check_caps(placement, base)
    if not repeats:
        check_apart(placement)
    check_report(placement, judge or (lambda made: evaluate(made, base).hops_per_token_layer))
    check_file(placement)
    return placement


def check_calls(policy: Policy, problem: Any) -> Placement:
    """Return the placement of a policy that changes nothing and places the same when asked again.

    Neither the arrays of problem and policy nor the module-level random generators may change,
    and an equal problem must get an equal placement and report, seconds apart.
    """
    before = _state(policy, problem)
    first = policy(problem)
    _must(isinstance(first, Placement), policy.name, f"returns no Placement, got {first!r}")
    for what, was, now in zip(
        ("policy", "problem", "random", "numpy.random"),
        before,
        _state(policy, problem),
        strict=True,
    ):
        _must(was == now, policy.name, f"changes {what}: no call may leave a trace there")
    again = policy(copy.deepcopy(problem))
    same = first == again and _claims(first.solve) == _claims(again.solve)
    _must(same, policy.name, "places an equal problem in another way: it must be deterministic")
    return first


def check_valid(placement: Placement, problem: PlacementProblem, name: str) -> None:
    """Refuse a placement of another problem, one signed by another name or missing an expert."""
    _must(placement.policy == name, name, f"signs as '{placement.policy}'")
    want = (problem.model, problem.layers, problem.experts, problem.gpus_per_server)
    have = (placement.model, placement.layers, placement.experts, placement.gpus_per_server)
    _must(have == want, name, f"places {have}, the problem is {want}")
    _must(placement.servers == problem.servers, name, f"places on {placement.servers} servers")
    _must(bool((placement.slot_gpu < placement.gpus).all()), name, "names a GPU there is not")
    at = placement.slot_layer, placement.slot_expert
    held = np.zeros((problem.layers, problem.experts), dtype=bool)
    held[at] = True
    missing = np.argwhere(~held)
    _must(not missing.size, name, f"forgets [layer, expert] {missing[:1].tolist()}")


def check_caps(placement: Placement, problem: PlacementProblem) -> None:
    """Refuse more slots than the caps allow, on servers and on GPUs, in a layer and in all.

    A GPU takes its server's part of a cap, rounded up. Redundant slots come on top, shared out
    evenly: each place may hold so many more, rounded up.
    """
    extra = np.bincount(placement.slot_layer, minlength=placement.layers) - placement.experts
    for what, inside in (("server", problem.gpus_per_server), ("GPU", 1)):
        places = placement.gpus // inside
        share = problem.gpus_per_server // inside
        cell = placement.slot_layer.astype(np.int64) * places + placement.slot_gpu // inside
        held = np.bincount(cell, minlength=placement.layers * places).reshape(-1, places)
        top = -(-extra // places)
        for scope, most, cap in (
            ("of a layer", held - top[:, None], ceil(problem.layer_slots / share)),
            ("in all", held.sum(axis=0) - top.sum(), ceil(problem.server_slots / share)),
        ):
            over = int(most.max())
            _must(
                over <= cap,
                placement.policy,
                f"puts {over} slots {scope} on a {what}, which takes {cap}",
            )


def check_apart(placement: Placement) -> None:
    """Refuse two replicas of an expert on one GPU."""
    cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    slot = cell * placement.experts + placement.slot_expert
    _must(len(np.unique(slot)) == len(slot), placement.policy, "puts an expert twice on one GPU")


def check_report(placement: Placement, judge: Callable[[Placement], float]) -> None:
    """Refuse a report whose objective is not the judge's, or that claims more than it proves."""
    report, name = placement.solve, placement.policy
    if report is None:
        return
    own, objective = report.objective, judge(placement)
    _must(_near(own, objective), name, f"reports objective {own}, which is {objective}")
    _must(isfinite(report.seconds) and report.seconds >= 0, name, f"took {report.seconds} s")
    if report.bound is None:
        _must(report.status == "heuristic", name, f"is '{report.status}' without a bound")
        _must(report.gap is None, name, "has a gap without a bound")
        return
    distance = objective - report.bound
    # Rounding is relative to one hop or copy; layers take microseconds, with no such scale.
    room = ROUNDING * max(0.0 if report.unit == "seconds" else 1.0, abs(objective))
    _must(distance >= -room, name, f"bounds {objective} from below by {report.bound}")
    gap = distance / abs(objective) if distance > room else 0.0
    claimed = inf if report.gap is None else report.gap
    _must(_near(claimed, gap), name, f"claims a gap of {claimed}, which is {gap}")
    _must(
        report.status == ("feasible" if gap else "optimal"),
        name,
        f"is '{report.status}' with a gap of {gap}",
    )


def check_file(placement: Placement) -> None:
    """Refuse a placement that its file does not keep; of the report, `limit` has no place there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "placement.json"
        path.write_text(placement_json(placement))
        kept = read_placement(path)
    report, back = placement.solve, kept.solve
    same = kept == placement and kept.policy == placement.policy
    same &= _claims(report)[:-1] == _claims(back)[:-1]
    same &= report is None or (back is not None and report.seconds == back.seconds)
    _must(same, placement.policy, "is not the same when read back from its file")


def _claims(report: SolveReport | None) -> tuple[Any, ...]:
    """All of a report but the seconds."""
    if report is None:
        return (None,)
    return report.status, report.unit, report.objective, report.bound, report.gap, report.limit


def _state(policy: object, problem: object) -> tuple[Any, ...]:
    """What a call must not change."""
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002  the generator that must rest
    position = numpys["state"]["key"].tobytes(), numpys["state"]["pos"]
    seen = [[(a.tobytes(), a.shape, a.dtype.str) for a in _arrays(x)] for x in (policy, problem)]
    return *seen, random.getstate(), position


def _arrays(thing: object) -> Iterator[NDArray[Any]]:
    """Yield the arrays of an array, a dataclass, or a tuple or list of them."""
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, tuple | list):
        for part in thing:
            yield from _arrays(part)
    elif is_dataclass(thing):
        for part in fields(thing):
            yield from _arrays(getattr(thing, part.name))


def _near(left: float, right: float) -> bool:
    return isclose(left, right, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _must(good: bool, name: str, text: str) -> None:
    if not good:
        raise ConformanceError(f"policy '{name}' {text}")
