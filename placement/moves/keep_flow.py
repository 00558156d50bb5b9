"""Keep or move, at a price per move: a minimum-cost flow by network simplex."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.moves._flow_kernel import Arcs, Tree
    from placement.moves.keep_network import KeepNetwork

DEAREST_MOVE = 64
"""Prices of a move go up to this many times the dearest cost of an item."""


@dataclass(frozen=True, slots=True, eq=False)
class KeepResult:
    """An optimal flow at one price of a move.

    Attributes
    ----------
    cell
        int64 [items].
    moved
        Items with a home that left it.
    cost
        Cost of the choices in the network's whole units, prices not counted.
    bound
        Proven lower bound on cost + price x moves, in the units of the costs.
    """

    cell: NDArray[np.int64]
    moved: int
    cost: int
    bound: float


class KeepFlow:
    """Solves one network at any number of prices; each solve starts from the one before.

    Attributes
    ----------
    scale
        Whole units per unit of cost: as many as int64 allows.
    dearest
        Highest price of a move in whole units.
    """

    def __init__(self, network: KeepNetwork) -> None:
        self._net = network
        cells, bins = len(network.cell_capacity), len(network.bin_capacity)
        span = max(_span(network.home_cost), _span(network.choice_cost)) or 1.0
        # A path without a cycle meets a hub, cell or bin once, and so two items for each of them.
        longest = 2 * (network.hubs + cells + bins + 2)
        dearest_path = longest * (DEAREST_MOVE + 2) * span
        self.scale = 2.0 ** floor(60 - log2(dearest_path))
        self.dearest = int(DEAREST_MOVE * span * self.scale)
        self._unplaced = int(dearest_path * self.scale)
        self._base = self._costs()
        self._arcs, self._tree = self._start()

    def solve(self, price: int) -> KeepResult:
        """Place every item at least cost + price x moves; `price` in whole units.

        Raises
        ------
        InfeasibleError
            If the items do not fit.
        """
        from placement.moves._flow_kernel import pivot_to_optimum, plant  # noqa: PLC0415  loads numba

        net, arcs, tree = self._net, self._arcs, self._tree
        real = len(arcs.tail) - len(tree.parent) + 1
        choices = len(net.choice_item)
        arcs.cost[:] = self._base
        arcs.cost[:choices] += price * (net.home[net.choice_item] >= 0)
        plant(arcs, tree)
        pivot_to_optimum(arcs, tree, real)
        unplaced = int(arcs.flow[real:].sum())
        if unplaced:
            raise InfeasibleError(f"{unplaced} experts do not fit under the caps")
        cell = self._cells()
        cost = int(self._base[:real] @ arcs.flow[:real])
        moved = int(((net.home >= 0) & (cell != net.home)).sum())
        return KeepResult(cell, moved, cost, net.bound(price / self.scale, *self._prices()))

    def cost_of(self, cell: NDArray[np.int64]) -> int:
        """Cost of any assignment of items to cells [items] that the network allows, whole units."""
        net = self._net
        hub_of_cell = np.empty(len(net.cell_bin), dtype=np.int64)
        hub_of_cell[net.route_cell] = net.route_hub
        chosen = net.choice_hub == hub_of_cell[cell[net.choice_item]]
        return int(self._base[: len(chosen)][chosen].sum())

    def _costs(self) -> NDArray[np.int64]:
        net = self._net
        nodes = net.items + net.hubs + len(net.cell_bin) + len(net.bin_capacity)
        fixed = len(net.route_hub) + len(net.cell_bin) + len(net.bin_capacity)
        whole = np.rint(
            np.concatenate((net.choice_cost, net.home_cost[net.home >= 0])) * self.scale
        )
        return np.concatenate(
            (whole.astype(np.int64), np.zeros(fixed, np.int64), np.full(nodes, self._unplaced))
        )

    def _ends(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Tails and heads of choices, stays, routes, cells, bins and spare arcs.

        Nodes are items, hubs, cells, bins and the root; every node has a spare arc to the root.
        """
        net = self._net
        cells, bins = len(net.cell_bin), len(net.bin_capacity)
        hub0, cell0 = net.items, net.items + net.hubs
        bin0, root = cell0 + cells, cell0 + cells + bins
        homed = np.flatnonzero(net.home >= 0)
        return [
            (net.choice_item, hub0 + net.choice_hub),
            (homed, cell0 + net.home[homed]),
            (hub0 + net.route_hub, cell0 + net.route_cell),
            (cell0 + np.arange(cells), bin0 + net.cell_bin),
            (bin0 + np.arange(bins), np.full(bins, root)),
            (np.arange(root), np.full(root, root)),
        ]

    def _start(self) -> tuple[Arcs, Tree]:
        """Begin with every item at home that the caps let stay, the others unplaced."""
        from placement.moves._flow_kernel import UNLIMITED, Arcs  # noqa: PLC0415  loads numba

        net, ends = self._net, self._ends()
        first = np.cumsum([0, *(len(tail) for tail, _ in ends)])
        stay0, cell0, bin0, spare0 = first[[1, 3, 4, 5]]
        capacity = np.full(first[-1], UNLIMITED)
        capacity[cell0:bin0] = net.cell_capacity
        capacity[bin0:spare0] = net.bin_capacity
        kept = net.kept_within_caps()
        stays = stay0 + np.flatnonzero(kept[net.home >= 0])
        flow = np.zeros(first[-1], dtype=np.int64)
        flow[stays] = 1
        flow[spare0 + np.flatnonzero(~kept)] = 1
        flow[cell0:bin0] = np.bincount(net.home[kept], minlength=bin0 - cell0)
        flow[bin0:spare0] = np.bincount(net.cell_bin[net.home[kept]], minlength=spare0 - bin0)

        # A node hangs by its own arc where that can take more, else by its spare one.
        hangs = np.arange(spare0, first[-1])
        hangs[: net.items][kept] = stays
        own = np.arange(cell0, spare0)
        hangs[net.items + net.hubs :] = np.where(flow[own] < capacity[own], own, hangs[-len(own) :])
        state = np.where((flow > 0) & (flow == capacity), -1, 1).astype(np.int8)
        state[hangs] = 0
        tail, head = (np.concatenate(side).astype(np.int32) for side in zip(*ends, strict=True))
        arcs = Arcs(tail, head, self._base.copy(), capacity, flow, state)
        return arcs, _tree(head[hangs], hangs)

    def _cells(self) -> NDArray[np.int64]:
        """int64 [items]: where the flow takes every item; moved ones, heaviest first, go cool."""
        from placement.moves._moves_kernel import deal  # noqa: PLC0415  loads numba

        net, flow = self._net, self._arcs.flow
        choices, keeps = len(net.choice_item), int((net.home >= 0).sum())
        taken = np.flatnonzero(flow[:choices])
        item, hub = net.choice_item[taken], net.choice_hub[taken]
        cell = net.home.copy()
        stays = np.ones(net.items, dtype=np.bool_)
        stays[item] = False
        heat = np.asarray(
            np.bincount(cell[stays], net.weight[stays], len(net.cell_bin)), np.float64
        )
        order = np.argsort(-net.weight[item], kind="stable")
        routes = slice(choices + keeps, choices + keeps + len(net.route_hub))
        start = np.searchsorted(net.route_hub, np.arange(net.hubs + 1))
        cell[item[order]] = deal(
            hub[order], net.weight[item[order]], start, net.route_cell, flow[routes].copy(), heat
        )
        return cell

    def _prices(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Prices of room in cells and bins that the solver ended with."""
        arcs, potential = self._arcs, self._lowered()
        cells, bins = len(self._net.cell_bin), len(self._net.bin_capacity)
        real = len(arcs.tail) - len(potential) + 1
        own = slice(real - cells - bins, real)
        reduced = arcs.cost[own] + potential[arcs.tail[own]] - potential[arcs.head[own]]
        price = np.maximum(-reduced, 0) / self.scale
        return price[:cells], price[cells:]

    def _lowered(self) -> NDArray[np.int64]:
        """int64 [nodes]: potentials, those on spare arcs lowered while the basis stays optimal.

        Nodes that reach the root only by a spare arc carry its cost, which would drown the bound
        in rounding; all of them may come down together until an arc to another node is tight.
        """
        arcs, potential = self._arcs, self._tree.potential
        spare = potential < -(self._unplaced // 2)
        real = len(arcs.tail) - len(potential) + 1
        tail, head = arcs.tail[:real], arcs.head[:real]
        slack = arcs.state[:real] * (arcs.cost[:real] + potential[tail] - potential[head])
        shrinks = arcs.state[:real] * (spare[tail].astype(np.int8) - spare[head]) < 0
        return potential + spare * int(slack[shrinks].min(initial=self._unplaced))


def _span(cost: NDArray[np.float64]) -> float:
    return float(np.abs(cost).max(initial=0.0))


def _tree(parent: NDArray[np.int32], arc: NDArray[np.int64]) -> Tree:
    """Return the tree of these parents and arcs [nodes but the root], to be planted."""
    from placement.moves._flow_kernel import Tree  # noqa: PLC0415  loads numba

    nodes = len(parent) + 1
    depth, child, after, before = np.zeros((4, nodes), dtype=np.int32)
    return Tree(
        parent=np.append(parent, -1).astype(np.int32),
        arc=np.append(arc, -1).astype(np.int32),
        upward=np.ones(nodes, dtype=np.int8),
        depth=depth,
        child=child,
        after=after,
        before=before,
        potential=np.zeros(nodes, dtype=np.int64),
    )
