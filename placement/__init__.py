"""Where the experts go: problems, policies, solvers and an independent evaluation."""

from placement.attention import Attention, DataParallel, Pipelined
from placement.baselines import Contiguous, Random, RoundRobin
from placement.errors import InfeasibleError, PlacementError
from placement.files import placement_json, read_placement
from placement.greedy import Greedy, GreedyLoad
from placement.hops import Ilp, IlpLoad, hops_over_optima
from placement.naive import NaiveIlpLoad
from placement.objective import Evaluation, evaluate
from placement.placement import Placement
from placement.policies import POLICIES, apply_policy, make_policy
from placement.policy import Policy
from placement.problem import PlacementProblem
from placement.solve import SolveReport

__all__ = [
    "POLICIES",
    "Attention",
    "Contiguous",
    "DataParallel",
    "Evaluation",
    "Greedy",
    "GreedyLoad",
    "Ilp",
    "IlpLoad",
    "InfeasibleError",
    "NaiveIlpLoad",
    "Pipelined",
    "Placement",
    "PlacementError",
    "PlacementProblem",
    "Policy",
    "Random",
    "RoundRobin",
    "SolveReport",
    "apply_policy",
    "evaluate",
    "hops_over_optima",
    "make_policy",
    "placement_json",
    "read_placement",
]
