"""Using up the moves that are left between two vertices of the curve of moves against hops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.problem import PlacementProblem


def go_towards(
    left: NDArray[np.int64], right: NDArray[np.int64], home: NDArray[np.int64], max_moves: int
) -> NDArray[np.int64]:
    """Take the way from one assignment to another as far as `max_moves` allows.

    The difference of two assignments splits into cycles of experts that take each other's slots
    or free ones; whichever cycles are applied, every server's number of experts stays between
    what the two give it, so both caps hold. Where both assignments are optimal at one price of
    a move, each cycle saves that price a move. Small cycles come first.

    Parameters
    ----------
    left, right, home
        int64 [layers, experts]: servers from which to which, and those that count as unmoved.

    Returns
    -------
    int64 [layers, experts]
    """
    layer, expert = np.nonzero(left != right)
    goes, comes = right[layer, expert], left[layer, expert]
    own = home[layer, expert]
    more = (goes != own).astype(np.int64) - (comes != own)
    cycle = _cycles(layer, comes, goes, (len(left), 1 + int(max(left.max(), right.max()))))
    size = np.bincount(cycle, more).astype(np.int64)
    order = np.argsort(size, kind="stable")
    order = order[size[order] > 0]
    spent = int((left != home).sum())
    taken = order[spent + np.cumsum(size[order]) <= max_moves]
    chosen = np.isin(cycle, taken)
    result = left.copy()
    result[layer[chosen], expert[chosen]] = goes[chosen]
    return result


def _cycles(
    layer: NDArray[np.int64],
    comes: NDArray[np.int64],
    goes: NDArray[np.int64],
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """int64 [movers]: the cycle of every mover, closed over servers whose counts change."""
    from placement.moves._moves_kernel import peel  # noqa: PLC0415  loads numba

    layers, servers = shape
    cells, root = layers * servers, layers * servers + servers
    tail, head = layer * servers + comes, layer * servers + goes
    gain = np.bincount(head, minlength=cells) - np.bincount(tail, minlength=cells)
    ups, downs = np.maximum(gain, 0), np.maximum(-gain, 0)
    total = gain.reshape(layers, servers).sum(axis=0)
    over, under = np.maximum(total, 0), np.maximum(-total, 0)
    cell, server = np.arange(cells), cells + np.arange(servers)
    of_cell = cells + cell % servers
    tails = (tail, np.repeat(cell, ups), np.repeat(of_cell, downs), np.repeat(server, over))
    heads = (head, np.repeat(of_cell, ups), np.repeat(cell, downs), np.full(over.sum(), root))
    all_tails = np.concatenate((*tails, np.full(under.sum(), root)))
    all_heads = np.concatenate((*heads, np.repeat(server, under)))
    order = np.argsort(all_tails, kind="stable")
    start = np.searchsorted(all_tails[order], np.arange(root + 2))
    cycles: NDArray[np.int64] = peel(start, all_heads[order], order)
    return cycles[: len(layer)]


def spend_rest(
    problem: PlacementProblem, server: NDArray[np.int64], home: NDArray[np.int64], max_moves: int
) -> NDArray[np.int64]:
    """Greedily apply the relocation or swap within a layer that saves most, while moves are left.

    Parameters
    ----------
    server, home
        int64 [layers, experts].

    Returns
    -------
    int64 [layers, experts]
    """
    from placement.moves._moves_kernel import best_exchange  # noqa: PLC0415  loads numba

    server, load = server.copy(), problem.profile.load
    least = 1e-12 * float(np.ptp(problem.cost))
    while (left := max_moves - int((server != home).sum())) > 0:
        cell = np.arange(problem.layers)[:, None] * problem.servers + server
        count = np.bincount(cell.ravel(), minlength=problem.cost.size).reshape(problem.cost.shape)
        room = problem.layer_slots - count, problem.server_slots - count.sum(axis=0)
        saving, layer, expert, other, there = best_exchange(
            (server, home), load, problem.cost, room, left
        )
        if saving <= least:
            break
        if other >= 0:
            server[layer, other] = server[layer, expert]
        server[layer, expert] = there
    return server
