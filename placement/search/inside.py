"""Slots with replicas dealt to the GPUs of their servers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from placement.search.deal import Table, deal
from placement.search.layer import LayerSearch, LoadCap, MoveCap, arrange
from placement.search.layer_items import came_from
from placement.search.start import hottest_first

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.search.layer_items import LayerItems

_PROPOSALS = 100
_STAY = 0.05
"""Price of another GPU of the same server, in units of which a server's mean GPU load costs 1."""


def inside_servers(
    items: LayerItems,
    server: NDArray[np.int64],
    load: NDArray[np.float64],
    shape: tuple[int, int],
    old: LayerItems | None,
) -> NDArray[np.int64]:
    """Deal the slots of every server to its GPUs, each with as many slots as it had.

    Slots that stay on their server keep their GPU and newcomers go, hottest first, to the
    coolest GPU with room; where that would put an expert twice on a GPU, one slot makes way. If
    none can, or nothing is to be kept, the server is dealt anew for light GPUs.

    Parameters
    ----------
    items
        Slots of the layer, with the GPUs whose counts are kept.
    server
        int64 [items].
    load
        float64 [experts].
    shape
        Servers, and GPUs of each.
    old
        Slots of the previous placement, if slots are to stay.

    Returns
    -------
    int64 [items]: GPU of every slot.
    """
    servers, size = shape
    had = np.bincount(items.gpu, minlength=servers * size).reshape(shape)
    share = items.share(load)
    came = np.full(len(server), -1, dtype=np.int64)
    if old is not None:
        came = came_from(replace(items, gpu=server * size), old, size)
    gpu = np.empty_like(server)
    for at, slots in enumerate(had):
        here = np.flatnonzero(server == at)
        home = np.where(came[here] // size == at, came[here] % size, -1)
        layer = LayerSearch(
            expert=items.expert[here],
            slots=slots,
            loads=LoadCap(share[here][None], np.ones(1)),
            moves=None if old is None else MoveCap(home, price=_STAY),
        )
        inside = None if old is None else _kept(layer, home, share[here])
        if inside is None and here.size:
            rng = np.random.Generator(np.random.PCG64(at))
            proposals = _PROPOSALS * here.size
            inside = arrange(layer, [hottest_first(layer)], proposals=proposals, rng=rng).place
        gpu[here] = at * size + (0 if inside is None else inside)
    return gpu


def _kept(
    layer: LayerSearch, home: NDArray[np.int64], load: NDArray[np.float64]
) -> NDArray[np.int64] | None:
    """Leave every slot home that has one, and deal the others; None if an expert would double.

    Of a GPU that takes fewer slots than would stay, the coldest leave.
    """
    order = np.lexsort((-load, home))
    nth = np.arange(len(order)) - np.searchsorted(home[order], home[order])
    fits = (home[order] >= 0) & (nth < layer.slots[home[order]])
    stay, go = order[fits], order[~fits]
    place = home.copy()
    experts = int(layer.expert.max(initial=0)) + 1
    table = Table.of(layer.slots, layer.expert[stay], home[stay], load[stay], experts)
    place[go] = deal(table, layer.expert[go], load[go])
    for item in go.tolist():
        _part(layer.expert, load, place, table, item)
    return None if table.held.max(initial=0) > 1 else place


def _part(
    expert: NDArray[np.integer],
    load: NDArray[np.float64],
    place: NDArray[np.int64],
    table: Table,
    item: int,
) -> None:
    """Swap a newcomer that doubles its expert with the slot whose load is nearest, if one may."""
    own, here = int(expert[item]), int(place[item])
    if table.held[own, here] < 2:
        return
    for other in np.argsort(np.abs(load - load[item]), kind="stable").tolist():
        its, there = int(expert[other]), int(place[other])
        if table.held[own, there] == 0 and table.held[its, here] == 0:
            for of, old, new in ((item, here, there), (other, there, here)):
                table.put(int(expert[of]), old, float(load[of]), -1)
                table.put(int(expert[of]), new, float(load[of]))
                place[of] = new
            return
