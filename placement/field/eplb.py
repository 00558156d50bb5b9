"""DeepSeek's expert-parallel load balancer: replicate the hottest experts, pack greedily."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from placement.engines import ENGINES
from placement.errors import InfeasibleError, PlacementError
from placement.slots import measured, place_on_gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem


class EplbMap(NamedTuple):
    """The balancer's three tables.

    Attributes
    ----------
    phy2log
        int64 [layers, slots]: expert of every slot; slot p is on GPU ``p // (slots / gpus)``.
    log2phy
        int64 [layers, experts, most replicas]: slots of every expert ascending, padded with -1.
    logcnt
        int64 [layers, experts]: replicas of every expert.
    """

    phy2log: NDArray[np.int64]
    log2phy: NDArray[np.int64]
    logcnt: NDArray[np.int64]


def eplb(
    load: NDArray[np.floating] | NDArray[np.integer],
    *,
    replicas: int,
    groups: int,
    nodes: int,
    gpus: int,
) -> EplbMap:
    """Choose replicas and slots as DeepSeek's balancer does.

    Hierarchical where the groups divide by the nodes: groups of experts are packed to nodes,
    the experts of a node replicated, the replicas packed to its GPUs. Otherwise global: the
    same with one group and one node. *Packing* takes items by descending weight, each to the
    lightest pack that still has room; *replicating* gives one more replica at a time to the
    expert of greatest load per replica. Equal weights go by lowest index. Source: the
    description in deepseek-ai/EPLB's README.

    Parameters
    ----------
    load
        [layers, experts], any scale.
    replicas
        Slots of a layer, redundant experts included.
    groups
        Runs of consecutive experts that hierarchical balancing keeps on one node.
    nodes, gpus
        Nodes and GPUs of the cluster.

    Raises
    ------
    PlacementError
        If the numbers do not divide as the balancer needs.
    """
    weight = np.asarray(load, dtype=np.float64)
    if weight.ndim != 2 or 0 in weight.shape:
        raise PlacementError(f"EPLB: load must be [layers, experts], got shape {weight.shape}")
    if min(groups, nodes, gpus) < 1:
        raise PlacementError(
            f"EPLB: groups, nodes and GPUs must be at least 1, got {groups}, {nodes}, {gpus}"
        )
    if groups % nodes:
        groups = nodes = 1
    _check_counts(weight.shape[1], replicas, groups, nodes, gpus)
    phy2log = _hierarchical(weight, replicas, groups, nodes, gpus)
    return EplbMap(phy2log, *_slots_by_expert(phy2log, weight.shape[1]))


def _check_counts(experts: int, replicas: int, groups: int, nodes: int, gpus: int) -> None:
    if replicas < experts:
        raise PlacementError(f"EPLB: {replicas} slots cannot hold {experts} experts")
    for what, number, by, parts in (
        ("slots of a layer", replicas, "GPUs", gpus),
        ("GPUs", gpus, "nodes", nodes),
        ("experts", experts, "groups", groups),
    ):
        if number % parts:
            raise PlacementError(
                f"EPLB: {number} {what} do not divide by {parts} {by}; "
                f"{-(-number // parts) * parts} would"
            )


def _hierarchical(
    weight: NDArray[np.float64], replicas: int, groups: int, nodes: int, gpus: int
) -> NDArray[np.int64]:
    """int64 [layers, slots]: groups to nodes, replicas within nodes, replicas to GPUs."""
    layers, experts = weight.shape
    size = experts // groups
    by_group = weight.reshape(layers, groups, size).sum(axis=2)
    # Experts in the order of (node, turn in which the group came to it, id).
    group_at = _packed(by_group, nodes)
    expert_at = (group_at[:, :, None] * size + np.arange(size)).reshape(layers * nodes, -1)
    of_node = np.repeat(np.arange(layers), nodes)[:, None]
    node_weight = weight[of_node, expert_at]
    copy = _replicated(node_weight, replicas // nodes)
    row = np.arange(layers * nodes)[:, None]
    per_copy = (node_weight / _counts(copy, expert_at.shape[1]))[row, copy]
    copy_at = _packed(per_copy, gpus // nodes)
    phy2log: NDArray[np.int64] = expert_at[row, copy[row, copy_at]].reshape(layers, replicas)
    return phy2log


def _packed(weight: NDArray[np.float64], packs: int) -> NDArray[np.int64]:
    """Pack items, heaviest first, each to the lightest pack with room.

    Parameters
    ----------
    weight
        float64 [rows, items]; packs take equally many.

    Returns
    -------
    int64 [rows, items]
        Items in the order of (pack, turn in which they came to it). Packs of one item keep the
        items' order.
    """
    rows, items = weight.shape
    room = items // packs
    if room == 1:
        return np.tile(np.arange(items), (rows, 1))
    order = np.argsort(-weight, axis=1, kind="stable")
    at = np.empty((rows, packs, room), dtype=np.int64)
    heat, filled = np.zeros((rows, packs)), np.zeros((rows, packs), dtype=np.int64)
    row = np.arange(rows)
    for item in order.T:
        pack = np.argmin(heat, axis=1)
        turn = filled[row, pack]
        at[row, pack, turn] = item
        filled[row, pack] = turn + 1
        heat[row, pack] += np.where(turn + 1 == room, np.inf, weight[row, item])
    return at.reshape(rows, items)


def _replicated(weight: NDArray[np.float64], slots: int) -> NDArray[np.int64]:
    """int64 [rows, slots]: every item once, then the item of greatest weight / count, in turn."""
    rows, items = weight.shape
    copy = np.empty((rows, slots), dtype=np.int64)
    copy[:, :items] = np.arange(items)
    count, share = np.ones((rows, items)), weight.copy()
    row = np.arange(rows)
    for slot in range(items, slots):
        hottest = np.argmax(share, axis=1)
        copy[:, slot] = hottest
        count[row, hottest] += 1
        share[row, hottest] = weight[row, hottest] / count[row, hottest]
    return copy


def _counts(copy: NDArray[np.int64], items: int) -> NDArray[np.int64]:
    """int64 [rows, items]: how often each item stands in a row of `copy`."""
    rows = len(copy)
    flat = np.arange(rows)[:, None] * items + copy
    return np.bincount(flat.ravel(), minlength=rows * items).reshape(rows, items)


def _slots_by_expert(
    phy2log: NDArray[np.int64], experts: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `EplbMap.log2phy` and `EplbMap.logcnt`."""
    layers, slots = phy2log.shape
    count = _counts(phy2log, experts)
    slot = np.argsort(phy2log, axis=1, kind="stable")
    row = np.arange(layers)[:, None]
    expert = phy2log[row, slot]
    first = np.cumsum(count, axis=1) - count
    log2phy = np.full((layers, experts, int(count.max())), -1, dtype=np.int64)
    log2phy[row, expert, np.arange(slots) - first[row, expert]] = slot
    return log2phy, count


@dataclass(frozen=True, slots=True)
class Eplb:
    """EPLB as a policy; nodes are the problem's servers.

    Faithful: every GPU holds equally many slots of every layer, replicas are chosen by load
    alone, hops are not looked at, and two replicas of an expert may land on one GPU (counted by
    `doubled_cells`). Adapted: an expert with more replicas than there are GPUs is refused, for
    some GPU would hold it twice whatever the packing. Equal slots keep both caps: each server
    holds its even share of the experts, and redundant slots come on top of the caps.

    Attributes
    ----------
    redundant
        Slots of a layer beyond one per expert; experts and redundant slots together must
        divide by the GPUs.
    groups
        Groups of consecutive experts; None takes the problem's `n_group`.
    hierarchical
        Whether to keep groups on a server where the groups divide by the servers ("auto");
        False balances globally whatever the groups.
    """

    redundant: int = 0
    groups: int | None = None
    hierarchical: bool = True
    name: str = "eplb"

    def __call__(self, problem: PlacementProblem) -> Placement:
        """Replicate and pack the experts of every layer."""
        begun = time.perf_counter()
        if self.redundant < 0:
            raise PlacementError(f"policy '{self.name}': redundant is {self.redundant}, below 0")
        slots, gpus = problem.experts + self.redundant, problem.servers * problem.gpus_per_server
        if slots % gpus:
            raise PlacementError(
                f"policy '{self.name}': {problem.experts} experts and {self.redundant} redundant "
                f"slots do not divide by {gpus} GPUs; redundant={self.redundant + -slots % gpus} "
                "would"
            )
        groups = problem.n_group if self.groups is None else self.groups
        if groups is None or not self.hierarchical:
            groups = 1
        if self.redundant > problem.experts * (gpus - 1):
            raise InfeasibleError(
                f"policy '{self.name}': {slots} slots for {problem.experts} experts need more "
                f"replicas of an expert than the {gpus} GPUs; redundant is at most "
                f"{problem.experts * (gpus - 1)}"
            )
        balanced = eplb(
            problem.profile.load, replicas=slots, groups=groups, nodes=problem.servers, gpus=gpus
        )
        self._check_replicas(balanced, gpus)
        gpu = np.broadcast_to(np.arange(slots) // (slots // gpus), balanced.phy2log.shape)
        placement = place_on_gpus(problem, gpu, balanced.phy2log, policy=self.name)
        return measured(placement, problem, begun)

    def _check_replicas(self, balanced: EplbMap, gpus: int) -> None:
        if balanced.logcnt.max() > gpus:
            layer, expert = np.unravel_index(balanced.logcnt.argmax(), balanced.logcnt.shape)
            raise InfeasibleError(
                f"policy '{self.name}': layer {layer}: expert {expert} gets "
                f"{balanced.logcnt.max()} replicas on {gpus} GPUs, expected at most one a GPU; "
                "give fewer redundant slots, or take policy 'replicated', which keeps to that"
            )


def doubled_warning(placement: Placement) -> str | None:
    """Say how many (layer, GPU) cells hold an expert twice, and which engines refuse that.

    None where none does.
    """
    doubled = doubled_cells(placement)
    if not doubled:
        return None
    refusing = [name for name, rules in ENGINES.items() if not rules.duplicates]
    return (
        f"policy '{placement.policy}': {doubled} of {placement.layers * placement.gpus} (layer, "
        f"GPU) cells hold an expert twice, a slot wasted in each; {' and '.join(refusing)} would "
        "not load it, policy 'replicated' avoids it"
    )


def doubled_cells(placement: Placement) -> int:
    """Count the (layer, GPU) cells that hold an expert twice, a slot wasted in each."""
    cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    slot = cell * placement.experts + placement.slot_expert
    held, times = np.unique(slot, return_counts=True)
    return len(np.unique(held[times > 1] // placement.experts))
