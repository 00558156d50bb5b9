"""The public names of the placement package, pinned."""

from __future__ import annotations

import placement

NAMES = [
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


def test_public_names() -> None:
    """What users import changes on purpose only."""
    assert placement.__all__ == NAMES
    assert all(hasattr(placement, name) for name in NAMES)
