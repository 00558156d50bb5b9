"""Fewest copies: experts that tokens choose together share a GPU or server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from placement.search.local_search import LocalSearch

if TYPE_CHECKING:
    from placement.placement import Placement
    from placement.policy import Policy
    from placement.problem import PlacementProblem
    from placement.search.copies import Scope
    from placement.search.layer import Robust
    from workloads import ExpertProfile


@dataclass(frozen=True, slots=True)
class LeastCopies:
    """Least expected distinct GPUs (or servers) of a token, from training tokens' choices.

    `LocalSearch` with copies alone. The report's objective and bound are in **copies per token
    and layer**; hop-weighted in hops per token and layer, one trip for every copy.

    Attributes
    ----------
    beta, relax, beta_price, scope, hop_weighted, robust, domains, flatten
        Cap on the load of a place, hard or priced in copies, what a place and a copy are, and how
        training tokens count together; see `LocalSearch`.
    base, previous, redundant, max_moves, move_price
        Start placement with its replicas, or the placement to be changed; see `LocalSearch`.
    starts, proposals, seed, time_limit_s
        Effort of the search, see `LocalSearch`.
    """

    beta: float | None = None
    relax: bool = False
    beta_price: float | None = None
    scope: Scope = "gpu"
    hop_weighted: bool = False
    robust: Robust = "mean"
    domains: tuple[ExpertProfile, ...] = ()
    flatten: float = 0.0
    base: Policy | None = None
    previous: Placement | None = None
    redundant: int | None = None
    max_moves: int | None = None
    move_price: float = 0.0
    starts: int = 2
    proposals: int | None = None
    seed: int = 0
    time_limit_s: float | None = None
    name: str = "least-copies"

    def __post_init__(self) -> None:
        """Refuse options that mean nothing."""
        self._search()

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Place the experts of every layer."""
        return self._search()(problem)

    def _search(self) -> LocalSearch:
        return LocalSearch(
            hops=0.0,
            copies=1.0,
            hop_weighted=self.hop_weighted,
            scope=self.scope,
            beta=self.beta,
            relax=self.relax,
            beta_price=self.beta_price,
            robust=self.robust,
            domains=self.domains,
            flatten=self.flatten,
            base=self.base,
            previous=self.previous,
            redundant=self.redundant,
            max_moves=self.max_moves,
            move_price=self.move_price,
            starts=self.starts,
            proposals=self.proposals,
            seed=self.seed,
            time_limit_s=self.time_limit_s,
            name=self.name,
        )
