"""Congestion: least time of the busiest link, with a bound, and which links nothing relieves."""

from placement.congestion.least import (
    CongestionProblem,
    CongestionResult,
    LayerCongestion,
    LeastCongestion,
)
from placement.congestion.link_cost import LinkCost

__all__ = [
    "CongestionProblem",
    "CongestionResult",
    "LayerCongestion",
    "LeastCongestion",
    "LinkCost",
]
