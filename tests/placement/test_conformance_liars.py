"""Every check of the contract fails once: a zoo of policies that break it."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from conformance_cases import CASES

from placement import Contiguous, Placement, PlacementProblem, RoundRobin, SolveReport, evaluate
from placement.conformance import ConformanceError, check_policy
from placement.field import HottestEverywhere
from placement.slots import place_on_gpus

PROBLEM = CASES["loose"].problem


def honest(problem: PlacementProblem, **claims: object) -> Placement:
    """Place in turn, and report the hops without a bound unless told otherwise."""
    placement = RoundRobin(name="liar")(problem)
    hops = evaluate(placement, problem).hops_per_token_layer
    truth = {"status": "heuristic", "objective": hops, "bound": None, "seconds": 0.1}
    return replace(placement, solve=SolveReport(**(truth | claims)))


def forced(thing: object, **values: object) -> object:
    """Overwrite fields of a frozen object, past all its checks."""
    for name, value in values.items():
        object.__setattr__(thing, name, value)
    return thing


@dataclass
class Liar:
    """Places as its class says."""

    calls: int = 0
    name: str = "liar"


class Honest(Liar):
    """Keeps the contract."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place in turn."""
        return honest(problem)


class OverServer(Liar):
    """All experts of the first layers on server 0."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Fill GPUs 0 and 1."""
        gpu = honest(problem).gpu_of_expert.copy()
        gpu[0] = np.arange(problem.experts) % 2
        return place_on_gpus(problem, gpu, policy=self.name)


class OverServerInAll(Liar):
    """Half of every layer on server 0: as many as a layer may, more than all layers may."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Fill GPUs 0 and 1 with four experts of each layer."""
        gpu = np.tile([0, 0, 1, 1, 2, 4, 6, 7], (problem.layers, 1))
        return place_on_gpus(problem, gpu, policy=self.name)


class OverGpu(Liar):
    """No server above its caps, but all of server 0 on its first GPU."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Leave GPU 1 empty."""
        gpu = np.tile([0, 0, 0, 2, 4, 5, 6, 7], (problem.layers, 1))
        gpu[1:] = np.arange(8)
        return place_on_gpus(problem, gpu, policy=self.name)


class TooManyReplicas(Liar):
    """Six redundant slots on one server, which should have its share of them."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Give server 0 a replica of six experts."""
        gpu = np.tile([0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 1, 1, 1], (problem.layers, 1))
        expert = np.tile([*range(8), 2, 3, 4, 5, 6, 7], (problem.layers, 1))
        return place_on_gpus(problem, gpu, expert, policy=self.name)


class Twice(Liar):
    """EPLB's way with few experts: two replicas on one GPU."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Add expert 0 to GPU 0 once more."""
        gpu = np.tile([0, 1, 2, 3, 4, 5, 6, 7, 0], (problem.layers, 1))
        expert = np.tile([*range(8), 0], (problem.layers, 1))
        return place_on_gpus(problem, gpu, expert, policy=self.name)


class Counting(Liar):
    """Places otherwise on every other call."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Remember the calls."""
        self.calls += 1
        return (Contiguous if self.calls % 2 else RoundRobin)(name=self.name)(problem)


class Moody(Liar):
    """Places the same, but says otherwise of it."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Remember the calls."""
        self.calls += 1
        return honest(problem, limit="time" if self.calls % 2 else None)


class Mutating(Liar):
    """Changes the loads of the problem."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Make expert 0 hot, past the lock on the array."""
        load = problem.profile.load
        load.setflags(write=True)
        load[0, 0] += 0.5
        return honest(problem)


@dataclass
class Learning(Liar):
    """Keeps notes in an array of its own."""

    seen: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Count in the notes."""
        self.seen += 1
        return honest(problem)


class DrawsFromRandom(Liar):
    """Draws from Python's module-level generator."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Draw once."""
        random.random()
        return honest(problem)


class DrawsFromNumpy(Liar):
    """Draws from numpy's module-level generator."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Draw once."""
        np.random.random()  # noqa: NPY002  what a policy must not do
        return honest(problem)


class Forgetful(Liar):
    """Leaves an expert out."""

    def __call__(self, problem: PlacementProblem) -> object:
        """Drop the last slot, past the checks of a placement."""
        made = honest(problem)
        names = ("slot_layer", "slot_gpu", "slot_expert")
        return forced(replace(made, solve=None), **{n: getattr(made, n)[:-1] for n in names})


class Nowhere(Liar):
    """Names a GPU that the cluster has not."""

    def __call__(self, problem: PlacementProblem) -> object:
        """Push the last slot out."""
        made = honest(problem)
        gpu = made.slot_gpu.copy()
        gpu[-1] = made.gpus
        return forced(made, slot_gpu=gpu)


class NoPlacement(Liar):
    """Returns servers instead of a placement."""

    def __call__(self, problem: PlacementProblem) -> object:
        """Return a list."""
        return [0] * problem.experts


class Forger(Liar):
    """Signs with another policy's name."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Sign as ilp-load."""
        return replace(honest(problem), policy="ilp-load")


class OtherModel(Liar):
    """Places another model."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Change the name of the model."""
        return replace(honest(problem), model="another")


class SmallerCluster(Liar):
    """Places on fewer servers than there are."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Leave the last server out of the cluster."""
        gpu = np.tile(np.arange(8) % 6, (problem.layers, 1))
        return replace(place_on_gpus(problem, gpu, policy=self.name), gpus=6)


class Flatterer(Liar):
    """Reports fewer hops than it needs."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Report a millionth less."""
        hops = honest(problem).solve.objective
        return honest(problem, objective=hops * (1 - 1e-6))


class Boaster(Liar):
    """Claims a bound above what it found, and with it the optimum."""

    def __call__(self, problem: PlacementProblem) -> object:
        """Bound by more than the objective."""
        return forced_report(problem, status="optimal", bound=1e3)


class Optimist(Liar):
    """Calls itself optimal a tenth above its bound."""

    def __call__(self, problem: PlacementProblem) -> object:
        """Claim it past the checks of a report."""
        hops = honest(problem).solve.objective
        return forced_report(problem, status="optimal", bound=0.9 * hops)


class Modest(Liar):
    """Has proven its optimum and does not say so."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Call it feasible."""
        return honest(problem, status="feasible", bound=honest(problem).solve.objective)


class Unproven(Liar):
    """Calls itself feasible, which has a bound, without one."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Give no bound."""
        return honest(problem, status="feasible")


class GapOf(SolveReport):
    """A report with a gap of its own."""

    __slots__ = ()

    @property
    def gap(self) -> float:
        """Relative to the bound instead of the objective."""
        return (self.objective - self.bound) / self.bound


class OtherGap(Liar):
    """Counts its gap by another formula."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Report a bound of half the objective: a gap of 0.5, not 1."""
        hops = honest(problem).solve.objective
        return replace(honest(problem), solve=GapOf("feasible", hops, hops / 2, 0.1))


class TimeTraveller(Liar):
    """Was done before it began."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Report negative seconds."""
        return honest(problem, seconds=-1.0)


class Unkept(Liar):
    """Reports what its file rounds away."""

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Take a whole number of seconds that no float64 holds."""
        made = honest(problem)
        return replace(made, solve=forced(made.solve, seconds=2**60 + 1))


def forced_report(problem: PlacementProblem, **claims: object) -> object:
    """Return an honest placement with a report that its own checks would refuse."""
    made = honest(problem)
    return forced(made, solve=forced(replace(made.solve), **claims))


LIARS = {
    OverServer: "puts 8 slots of a layer on a server, which takes 4",
    OverServerInAll: "puts 12 slots in all on a server, which takes 8",
    OverGpu: "puts 3 slots of a layer on a GPU, which takes 2",
    # 2 + 6 slots less its share of 2.
    TooManyReplicas: "puts 6 slots of a layer on a server, which takes 4",
    Twice: "puts an expert twice on one GPU",
    Counting: "places an equal problem in another way",
    Moody: "places an equal problem in another way",
    Mutating: "changes problem: no call may leave a trace",
    Learning: "changes policy: no call may leave a trace",
    DrawsFromRandom: "changes random: no call",
    DrawsFromNumpy: r"changes numpy\.random: no call",
    Forgetful: r"forgets \[layer, expert\] \[\[2, 7\]\]",
    Nowhere: "names a GPU there is not",
    NoPlacement: "returns no Placement",
    Forger: "signs as 'ilp-load'",
    OtherModel: "places .'another', 3, 8, 2., the problem is",
    SmallerCluster: "places on 3 servers",
    Flatterer: "reports objective",
    Boaster: r"bounds .* from below by 1000\.0",
    Optimist: "claims a gap of|is 'optimal' with a gap of",
    Modest: r"is 'feasible' with a gap of 0\.0",
    Unproven: "is 'feasible' without a bound",
    OtherGap: r"claims a gap of 1\.0, which is 0\.5",
    Unkept: "is not the same when read back from its file",
    TimeTraveller: r"took -1\.0 s",
}


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
def test_liars_are_found_out(liar: type[Liar]) -> None:
    """The check that a liar was made for refuses it, by name."""
    with pytest.raises(ConformanceError, match=rf"policy 'liar' .*{LIARS[liar]}"):
        check_policy(liar(), deepcopy(PROBLEM))


def test_the_honest_pass() -> None:
    """What the liars are made from keeps the contract."""
    assert check_policy(Honest(), PROBLEM).policy == "liar"


def test_the_judge_decides() -> None:
    """A report of hops is no report of something else."""
    with pytest.raises(ConformanceError, match="reports objective"):
        check_policy(Honest(), PROBLEM, judge=lambda _: 1.0)


def test_replicas_may_share_a_gpu_where_nobody_promises_otherwise() -> None:
    """Two replicas on one GPU pass only where a policy makes no promise of them."""
    with pytest.raises(ConformanceError, match="twice on one GPU"):
        check_policy(Twice(), PROBLEM)
    check_policy(Twice(), PROBLEM, repeats=True)
    check_policy(HottestEverywhere(), PROBLEM)
