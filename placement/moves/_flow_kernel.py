"""Compiled minimum-cost flow: the primal network simplex, in whole numbers.

Node `root` (the last) takes what every other node supplies. A basis is a spanning tree; arcs
outside it carry nothing (state 1) or their capacity (state -1). The tree is kept strongly
feasible (every node can push one more unit towards the root along the tree), which excludes
cycling: Cunningham, "A network simplex method", Mathematical Programming 11, 1976. Costs are
int64, so reduced costs are exact and a flow without an arc of negative reduced cost is optimal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNLIMITED = np.int64(2**40)
"""Capacity of an arc without one."""
AT_LOWER, IN_TREE, AT_UPPER = 1, 0, -1
NOBODY = -1


class Arcs(NamedTuple):
    """Arcs and the flow on them, each an array [arcs]."""

    tail: NDArray[np.int32]
    head: NDArray[np.int32]
    cost: NDArray[np.int64]
    capacity: NDArray[np.int64]
    flow: NDArray[np.int64]
    state: NDArray[np.int8]


class Tree(NamedTuple):
    """The spanning tree, each an array [nodes].

    `arc` leads from a node to its parent if `upward` is 1, and from the parent to it if -1.
    Children of a node are a doubly linked list. Reduced cost of an arc: cost + potential[tail]
    - potential[head].
    """

    parent: NDArray[np.int32]
    arc: NDArray[np.int32]
    upward: NDArray[np.int8]
    depth: NDArray[np.int32]
    child: NDArray[np.int32]
    after: NDArray[np.int32]
    before: NDArray[np.int32]
    potential: NDArray[np.int64]


@njit(cache=True)
def plant(arcs: Arcs, tree: Tree) -> None:
    """Link children, depths and potentials of a tree whose `parent` and `arc` are set."""
    root = len(tree.parent) - 1
    tree.child[:] = NOBODY
    tree.before[:] = NOBODY
    tree.after[:] = NOBODY
    for node in range(root):
        tree.upward[node] = 1 if arcs.tail[tree.arc[node]] == node else -1
        _link(tree, node, tree.parent[node])
    tree.depth[root] = 0
    tree.potential[root] = 0
    _refresh(arcs, tree, root)


@njit(cache=True)
def pivot_to_optimum(arcs: Arcs, tree: Tree, priced: int) -> int:
    """Pivot until none of the first `priced` arcs has a negative reduced cost.

    The entering arc is the most negative of the first block of arcs that has one, blocks taken
    in turn.

    Returns
    -------
    Pivots made.
    """
    block = max(20, int(np.sqrt(priced)))
    at, unfruitful, pivots = 0, 0, 0
    while unfruitful < priced:
        best, entering = 0, NOBODY
        for _ in range(min(block, priced)):
            reduced = arcs.state[at] * (
                arcs.cost[at] + tree.potential[arcs.tail[at]] - tree.potential[arcs.head[at]]
            )
            if reduced < best:
                best, entering = reduced, at
            at += 1
            if at == priced:
                at = 0
        if entering == NOBODY:
            unfruitful += block
        else:
            unfruitful = 0
            _pivot(arcs, tree, entering)
            pivots += 1
    return pivots


@njit(cache=True)
def _pivot(arcs: Arcs, tree: Tree, entering: int) -> None:
    """Push flow around the cycle that an arc closes; the arc that stops it leaves the tree."""
    first, second = arcs.tail[entering], arcs.head[entering]
    if arcs.state[entering] == AT_UPPER:
        first, second = second, first
    join = _join(tree, first, second)
    room, leaving, below = arcs.capacity[entering], NOBODY, NOBODY
    node = first
    while node != join:
        here = _room(arcs, tree, node, -1)
        if here < room:
            room, leaving, below = here, node, first
        node = tree.parent[node]
    node = second
    while node != join:
        here = _room(arcs, tree, node, 1)
        if here <= room:
            room, leaving, below = here, node, second
        node = tree.parent[node]
    if room > 0:
        arcs.flow[entering] += arcs.state[entering] * room
        _push(arcs, tree, first, join, -room)
        _push(arcs, tree, second, join, room)
    if leaving == NOBODY:
        arcs.state[entering] = -arcs.state[entering]
        return
    out = tree.arc[leaving]
    arcs.state[out] = AT_LOWER if arcs.flow[out] == 0 else AT_UPPER
    arcs.state[entering] = IN_TREE
    _rehang(arcs, tree, (below, second if below == first else first, leaving), entering)


@njit(cache=True)
def _join(tree: Tree, one: int, other: int) -> int:
    """Return the lowest common ancestor of two nodes."""
    while one != other:
        if tree.depth[one] >= tree.depth[other]:
            one = tree.parent[one]
        else:
            other = tree.parent[other]
    return one


@njit(cache=True)
def _room(arcs: Arcs, tree: Tree, node: int, towards_root: int) -> int:
    """Return how much more flow a node's tree arc carries up (1) or down (-1)."""
    room: int = arcs.flow[tree.arc[node]]
    if tree.upward[node] == towards_root:
        room = arcs.capacity[tree.arc[node]] - room
    return room


@njit(cache=True)
def _push(arcs: Arcs, tree: Tree, node: int, join: int, amount: int) -> None:
    """Send `amount` from a node up to `join`; a negative amount comes down."""
    while node != join:
        arcs.flow[tree.arc[node]] += tree.upward[node] * amount
        node = tree.parent[node]


@njit(cache=True)
def _rehang(arcs: Arcs, tree: Tree, ends: tuple[int, int, int], entering: int) -> None:
    """Hang the subtree of `ends[2]` by its node `ends[0]` under node `ends[1]`."""
    node, parent, last = ends
    arc, top = entering, ends[0]
    while True:
        old_parent, old_arc = tree.parent[node], tree.arc[node]
        _unlink(tree, node)
        tree.parent[node] = parent
        tree.arc[node] = arc
        tree.upward[node] = 1 if arcs.tail[arc] == node else -1
        _link(tree, node, parent)
        if node == last:
            break
        node, parent, arc = old_parent, node, old_arc
    _place(arcs, tree, top)
    _refresh(arcs, tree, top)


@njit(cache=True)
def _link(tree: Tree, node: int, parent: int) -> None:
    elder = tree.child[parent]
    tree.child[parent] = node
    tree.before[node] = NOBODY
    tree.after[node] = elder
    if elder != NOBODY:
        tree.before[elder] = node


@njit(cache=True)
def _unlink(tree: Tree, node: int) -> None:
    before, after = tree.before[node], tree.after[node]
    if before == NOBODY:
        tree.child[tree.parent[node]] = after
    else:
        tree.after[before] = after
    if after != NOBODY:
        tree.before[after] = before


@njit(cache=True)
def _place(arcs: Arcs, tree: Tree, node: int) -> None:
    """Set a node's depth and potential from its parent's: tree arcs have reduced cost zero."""
    parent = tree.parent[node]
    tree.depth[node] = tree.depth[parent] + 1
    tree.potential[node] = tree.potential[parent] - tree.upward[node] * arcs.cost[tree.arc[node]]


@njit(cache=True)
def _refresh(arcs: Arcs, tree: Tree, top: int) -> None:
    """Place all nodes below `top`, parents first."""
    node = top
    while True:
        if tree.child[node] != NOBODY:
            node = tree.child[node]
        else:
            while node != top and tree.after[node] == NOBODY:
                node = tree.parent[node]
            if node == top:
                return
            node = tree.after[node]
        _place(arcs, tree, node)
