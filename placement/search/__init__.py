"""The one local search in which hops, copies, balance, replicas and moves combine."""

from placement.search.copies import copies_per_token, judged_loads
from placement.search.least_copies import LeastCopies
from placement.search.local_search import LocalSearch

__all__ = ["LeastCopies", "LocalSearch", "copies_per_token", "judged_loads"]
