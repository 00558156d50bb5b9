"""A previous placement given more redundant slots: which experts get them, and where."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError, PlacementError
from placement.search.deal import Table, deal
from placement.search.items import items_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.placement import Placement
    from placement.problem import PlacementProblem
    from placement.search.layer_items import LayerItems


def grown(previous: Placement, problem: PlacementProblem, redundant: int) -> Placement:
    """Give every layer `redundant` slots beyond one per expert, equally many on every GPU.

    Replicas are added one at a time to the expert of greatest load per replica (water-filling);
    none is taken away. They go, hottest first, to the coolest GPU with room and without the
    expert. A GPU that held more than the equal part gives away its coldest slots, inside its
    server where there is room. A placement that has the slots already is returned as it is.

    Raises
    ------
    PlacementError
        If a layer has more redundant slots, or the slots do not divide by the GPUs.
    InfeasibleError
        If experts would need more replicas than there are GPUs.
    """
    slots = problem.experts + redundant
    have = np.bincount(previous.slot_layer, minlength=previous.layers)
    if (have > slots).any():
        at = int(np.argmax(have))
        raise PlacementError(
            f"the previous placement has {have[at] - problem.experts} redundant slots in layer "
            f"{at}, {redundant} were asked for: replicas are added or kept, not taken away"
        )
    if (have == slots).all():
        return previous
    _check(problem.experts, previous.gpus, redundant)
    parts = [
        _layer(items, problem.profile.load[at], slots, previous)
        for at, items in enumerate(items_of(previous))
    ]
    return replace(
        previous,
        slot_layer=np.repeat(np.arange(previous.layers), slots).astype(np.int32),
        slot_gpu=np.concatenate([gpu for gpu, _ in parts]).astype(np.int32),
        slot_expert=np.concatenate([expert for _, expert in parts]).astype(np.int32),
        solve=None,
    )


def _check(experts: int, gpus: int, redundant: int) -> None:
    if (experts + redundant) % gpus:
        raise PlacementError(
            f"{experts} experts and {redundant} redundant slots must divide by {gpus} GPUs; "
            f"redundant={redundant + -(experts + redundant) % gpus} would"
        )
    if redundant > experts * (gpus - 1):
        raise InfeasibleError(
            f"{redundant} redundant slots for {experts} experts need more replicas of an expert "
            f"than the {gpus} GPUs; redundant is at most {experts * (gpus - 1)}"
        )


def _layer(
    items: LayerItems, load: NDArray[np.float64], slots: int, previous: Placement
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """GPU and expert [slots] of one layer."""
    gpus, size = previous.gpus, previous.gpus_per_server
    count = _filled(load, items.replicas, slots, gpus)
    share = load / count
    added = np.repeat(np.arange(len(load)), count - items.replicas)
    # Coldest slots last on every GPU: those beyond the equal part have to go.
    order = np.lexsort((-share[items.expert], items.gpu))
    nth = np.arange(len(order)) - np.searchsorted(items.gpu[order], items.gpu[order])
    stay, go = order[nth < slots // gpus], order[nth >= slots // gpus]
    gpu = items.gpu.copy()
    table = Table.of(
        np.full(gpus, slots // gpus),
        items.expert[stay],
        gpu[stay],
        share[items.expert[stay]],
        len(load),
    )
    away = [item for item in go.tolist() if not _inside(table, items, share, item, gpu, size)]
    expert = np.concatenate((items.expert[away], added))
    dealt = deal(table, expert, share[expert])
    gpu[away] = dealt[: len(away)]
    return np.concatenate((gpu, dealt[len(away) :])), np.concatenate((items.expert, added))


def _inside(
    table: Table,
    items: LayerItems,
    share: NDArray[np.float64],
    item: int,
    gpu: NDArray[np.int64],
    size: int,
) -> bool:
    """Find a slot too many another GPU of its server, if there is one."""
    expert = int(items.expert[item])
    begin = int(gpu[item]) // size * size
    here = np.arange(begin, begin + size)
    open_ = here[(table.room[here] > 0) & (table.held[expert, here] == 0)]
    if open_.size:
        gpu[item] = open_[np.argmin(table.heat[open_])]
        table.put(expert, int(gpu[item]), float(share[expert]))
    return bool(open_.size)


def _filled(
    load: NDArray[np.float64], count: NDArray[np.int64], slots: int, gpus: int
) -> NDArray[np.int64]:
    """Replicas of every expert after adding, one at a time, where load per replica is greatest."""
    count = count.copy()
    for _ in range(slots - int(count.sum())):
        count[np.argmax(np.where(count < gpus, load / count, -1.0))] += 1
    return count
