"""Least hops within a number of moves: vertices of the curve, found by pricing a move."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError
from placement.moves.fill import go_towards, spend_rest
from placement.moves.keep_flow import KeepFlow
from placement.moves.keep_network import KeepNetwork
from placement.prefix import Tiers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem

TIE_BREAK = 8
"""Price of a move, in whole units of the flow, that keeps experts home among equal hops: more than
rounding can earn by swapping two experts, too little to buy a hop."""


@dataclass(frozen=True, slots=True, eq=False)
class Vertex:
    """Servers of every expert, int64 [layers, experts], and what they cost.

    `moved` experts left their home; `cost` is in the flow's whole units.
    """

    moved: int
    cost: int
    server: NDArray[np.int64]


class MoveSearch:
    """Re-placements of one problem from one assignment; solves are kept and reused.

    Pricing a move (Lagrangian relaxation) gives the lower convex hull of least hops over moves:
    every solve at a price proves a line below the whole curve. The price for a number of moves
    is found by secants (Eisner and Severance, Journal of the ACM 23, 1976).

    Parameters
    ----------
    problem
        What is to be placed.
    home
        int64 [layers, experts]: the server every expert comes from; it may break the caps.
    deadline
        ``time.perf_counter`` value after which no further price is tried.
    """

    def __init__(
        self, problem: PlacementProblem, home: NDArray[np.int64], *, deadline: float = inf
    ) -> None:
        self._problem, self._home, self._deadline = problem, home, deadline
        self._net = expert_network(problem, home)
        self._flow = KeepFlow(self._net)
        self._scale = problem.top_k / (problem.layers * problem.experts)
        self._proofs: list[tuple[float, float]] = []
        self._known: dict[int, Vertex] = {}
        self._at(0)

    def free(self) -> Vertex:
        """Return the hop optimum that moves least."""
        return self._at(TIE_BREAK)

    def priced(self, price_hops: float) -> Vertex:
        """Return the least hops per token and layer + `price_hops` x moves."""
        whole = max(self._whole(price_hops), TIE_BREAK)
        return self._at(int(min(whole, self._flow.dearest)))

    def within(self, max_moves: int, most: Vertex | None = None) -> Vertex:
        """Return the best assignment found with at most `max_moves` moves.

        Parameters
        ----------
        most
            The end of the curve to search towards; by default the hop optimum.

        Raises
        ------
        InfeasibleError
            If the caps force more moves.
        """
        left, right = self._around(max_moves, most or self.free())
        if right.moved <= max_moves:
            return right
        server = go_towards(left.server, right.server, self._home, max_moves)
        return self._vertex(spend_rest(self._problem, server, self._home, max_moves))

    def prove(self, price_hops: float, max_moves: int | None) -> None:
        """Solve at the prices that `bound` needs for these; without a budget at its own alone.

        Raises
        ------
        InfeasibleError
            If the caps force more moves.
        """
        # Rounded down: a dearer move than the one that is paid would prove nothing.
        priced = self._at(int(min(self._whole(price_hops), self._flow.dearest)))
        if max_moves is not None:
            self._around(max_moves, priced)

    def _around(self, max_moves: int, right: Vertex) -> tuple[Vertex, Vertex]:
        """Return the vertices of the curve on both sides of a number of moves, by secants."""
        if right.moved <= max_moves:
            return right, right
        left = self._fewest(max_moves)
        for vertex in self._known.values():
            if left.moved < vertex.moved <= max_moves:
                left = vertex
            elif max_moves < vertex.moved < right.moved:
                right = vertex
        while left.moved < max_moves and time.perf_counter() < self._deadline:
            price = (left.cost - right.cost) // (right.moved - left.moved)
            between = self._at(price)
            reached = min(end.cost + price * end.moved for end in (left, right))
            if between.cost + price * between.moved >= reached:
                break
            if between.moved <= max_moves:
                left = between
            else:
                right = between
        return left, right

    def bound(self, moves: int | None, price_hops: float = 0.0) -> float:
        """Proven lower bound on hops per token and layer + `price_hops` x moves.

        Parameters
        ----------
        moves
            Most moves; None for any number, which proofs at a greater price say nothing of.
        price_hops
            Hops per token and layer that a move costs.
        """
        paid = price_hops / self._scale
        proven = [
            bound - max(0.0, price - paid) * (moves or 0)
            for price, bound in self._proofs
            if moves is not None or price <= paid
        ]
        return max(proven) * self._scale

    def fewest_moves(self) -> int:
        """Return the least number of moves that the caps allow."""
        return 0 if self._net.kept_within_caps().all() else self.least_moves().moved

    def _fewest(self, max_moves: int) -> Vertex:
        """Return a vertex of at most `max_moves` moves."""
        dearest = self._at(self._flow.dearest)
        if dearest.moved <= max_moves:
            return dearest
        return self.least_moves(max_moves)

    def least_moves(self, max_moves: int | None = None) -> Vertex:
        """Forget hops and keep as many experts home as the caps let.

        Raises
        ------
        InfeasibleError
            If that takes more than `max_moves` moves.
        """
        costless = np.zeros_like(self._net.choice_cost)
        flow = KeepFlow(
            replace(self._net, home_cost=np.zeros_like(self._net.home_cost), choice_cost=costless)
        )
        least = self._vertex(self._servers(flow.solve(int(flow.scale)).cell))
        if max_moves is not None and least.moved > max_moves:
            raise InfeasibleError(
                f"max_moves {max_moves} is too small: the previous placement breaks the caps, and "
                f"keeping them takes at least {least.moved} moves"
            )
        return least

    def _whole(self, price_hops: float) -> float:
        """Return a price in hops per token and layer in whole units of the flow."""
        return price_hops / self._scale * self._flow.scale

    def _at(self, price: int) -> Vertex:
        if price not in self._known:
            result = self._flow.solve(price)
            self._proofs.append((price / self._flow.scale, result.bound))
            self._known[price] = Vertex(result.moved, result.cost, self._servers(result.cell))
        return self._known[price]

    def _vertex(self, server: NDArray[np.int64]) -> Vertex:
        cost = self._flow.cost_of(server.ravel() + self._first_cell())
        return Vertex(int((server != self._home).sum()), cost, server)

    def _servers(self, cell: NDArray[np.int64]) -> NDArray[np.int64]:
        return (cell - self._first_cell()).reshape(self._home.shape)

    def _first_cell(self) -> NDArray[np.int64]:
        layer = np.arange(self._home.size) // self._problem.experts
        return layer * self._problem.servers


def expert_network(problem: PlacementProblem, home: NDArray[np.int64]) -> KeepNetwork:
    """Let experts go through the tiers of their layer to servers, at their load in hops.

    Costs are loads times experts of a layer times hops: near one hop each.
    """
    layers, experts, servers = problem.layers, problem.experts, problem.servers
    tiers = Tiers.of(problem.cost)
    counts = np.array([len(cost) for cost in tiers.tier_cost])
    first_hub = np.cumsum(counts) - counts
    weight = (problem.profile.load * experts).ravel()

    open_hubs = np.repeat(counts, experts)
    item = np.repeat(np.arange(layers * experts), open_hubs)
    nth = np.arange(len(item)) - np.repeat(np.cumsum(open_hubs) - open_hubs, open_hubs)
    hub = first_hub[item // experts] + nth
    hub_of_cell = (first_hub[:, None] + tiers.tier_of_server).ravel()
    cell = np.argsort(hub_of_cell, kind="stable")
    # Costs of a tier agree to 12 digits only; its least keeps the bound below every placement.
    hub_cost = np.full(int(counts.sum()), np.inf)
    np.minimum.at(hub_cost, hub_of_cell, problem.cost.ravel())
    home_cell = (np.arange(layers)[:, None] * servers + home).ravel()
    return KeepNetwork(
        weight=weight,
        home=home_cell,
        home_cost=weight * problem.cost.ravel()[home_cell],
        choice_item=item,
        choice_hub=hub,
        choice_cost=weight[item] * hub_cost[hub],
        route_hub=hub_of_cell[cell],
        route_cell=cell,
        cell_bin=np.tile(np.arange(servers), layers),
        cell_capacity=np.full(layers * servers, problem.layer_slots, dtype=np.int64),
        bin_capacity=np.full(servers, problem.server_slots, dtype=np.int64),
    )
