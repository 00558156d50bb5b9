"""Figures, drawn from tables alone: nothing is simulated here.

Importing this package loads matplotlib.
"""

from experiments.figures import (
    balance_against_hops,
    hops_by_policy,
    link_load,
    recorded,
    solve_time,
)
from experiments.figures.captions import FIGURES, caption
from experiments.figures.save import save
from experiments.figures.style import PolicyStyle, paper_style, policy_styles

__all__ = [
    "FIGURES",
    "PolicyStyle",
    "balance_against_hops",
    "caption",
    "hops_by_policy",
    "link_load",
    "paper_style",
    "policy_styles",
    "recorded",
    "save",
    "solve_time",
]
