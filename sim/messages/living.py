"""Which GPUs of a server do without the dead ones, and what that changes of their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.messages.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def dead_mask(gpus: int, dead_gpus: Sequence[int]) -> NDArray[np.bool_]:
    """bool [gpus]: the dead ones."""
    dead = np.zeros(gpus, dtype=np.bool_)
    dead[list(dead_gpus)] = True
    return dead


def stand_ins(dead: NDArray[np.bool_], gpus_per_server: int) -> NDArray[np.int64]:
    """int64 [gpus]: who does a GPU's forwarding: itself, or the next living one of its server.

    Of a server without a living GPU every GPU is its own; nothing is forwarded there.
    """
    width = gpus_per_server
    first = np.arange(0, len(dead), width)[:, None, None]
    place = np.arange(width)
    turn = first + (place[:, None] + place) % width  # [servers, places, turns]
    living = ~dead[turn]
    chosen = np.take_along_axis(turn, living.argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    return np.where(living.any(axis=2), chosen, turn[:, :, 0]).ravel()


def without_dead(
    traffic: Traffic, forwarder: NDArray[np.int64], end: NDArray[np.bool_], *, forwards: str
) -> Traffic:
    """Return messages that dead GPUs neither forward nor receive or send for themselves.

    Parameters
    ----------
    traffic
        As if all GPUs lived.
    forwarder
        int64 [gpus]: as `stand_ins` gives them.
    end
        bool [gpus]: who takes no part at the end that is not forwarded.
    forwards
        ``src`` or ``dst``: the end of the messages at which GPUs forward.
    """
    # numba takes longer to import than the command line may take to print its help.
    from sim.messages._message_kernel import merge_rows  # noqa: PLC0415

    ends = {"src": traffic.src, "dst": traffic.dst}
    other = ends["dst" if forwards == "src" else "src"]
    ends[forwards] = forwarder[ends[forwards]].astype(np.int32)
    kept = ~end[other] & ~end[ends[forwards]]
    rows = []
    for layer in range(traffic.layers):
        part = np.arange(traffic.indptr[layer], traffic.indptr[layer + 1])
        part = part[kept[part]]
        rows.append(merge_rows(ends["src"][part], ends["dst"][part], traffic.count[part], len(end)))
    indptr = np.cumsum([0, *(len(each[0]) for each in rows)], dtype=np.int64)
    src, dst, count = (np.concatenate(each) for each in zip(*rows, strict=True))
    return Traffic(indptr, src, dst, count, traffic.message_bytes)
