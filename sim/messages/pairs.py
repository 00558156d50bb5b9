"""Counters of messages by layer and pair of GPUs: a table, or lists where a table is too large."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sim.messages.traffic import Traffic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.messages._message_kernel import Reached

    Rows = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]

MAX_TABLE_BYTES = 1 << 28
"""Largest table of pairs; DeepSeek-R1 on 256 GPUs has 30 MB."""


class Leg(NamedTuple):
    """Which messages a stage has.

    Attributes
    ----------
    way
        ``DIRECT``, ``OUT`` or ``ON`` of the kernels.
    least
        Only choices with so much news send one.
    first_gpu
        int32 [gpus]: the first GPU of every GPU's server.
    """

    way: int
    least: int
    first_gpu: NDArray[np.int32]


class PairCounts(Protocol):
    """Counts messages between the GPUs near the tokens and those near the experts."""

    def add(self, layer: int, reached: Reached, end: NDArray[np.int32], leg: Leg) -> None:
        """Count the messages of tokens.

        Parameters
        ----------
        layer
            Whose table or list.
        reached
            What the tokens reach in it.
        end
            int32 [tokens]: origins or collectors.
        leg
            Which messages.
        """

    def traffic(self, message_bytes: int, *, outward: bool) -> Traffic:
        """Return what was counted, away from the tokens or back to them."""

    def copy(self) -> PairCounts:
        """Return a counter that has counted the same."""


def count_pairs(layers: int, gpus: int) -> PairCounts:
    """Return an empty counter."""
    if layers * gpus * gpus * 8 <= MAX_TABLE_BYTES:
        return PairTable(np.zeros((layers, gpus, gpus), np.int64))
    return PairLists(gpus, [_no_rows() for _ in range(layers)])


class PairTable:
    """Counts in int64 [layers, near, far]."""

    def __init__(self, table: NDArray[np.int64]) -> None:
        self._table = table

    def add(self, layer: int, reached: Reached, end: NDArray[np.int32], leg: Leg) -> None:
        """Count the messages of tokens."""
        from sim.messages._message_kernel import add_messages  # noqa: PLC0415  loads numba

        add_messages(self._table[layer], reached, end, *leg)

    def traffic(self, message_bytes: int, *, outward: bool) -> Traffic:
        """Return what was counted, away from the tokens or back to them."""
        from sim.messages._message_kernel import rows_of_table  # noqa: PLC0415  loads numba

        table = self._table if outward else self._table.transpose(0, 2, 1)
        return Traffic(*rows_of_table(table), message_bytes)

    def copy(self) -> PairTable:
        """Return a counter that has counted the same."""
        return PairTable(self._table.copy())


class PairLists:
    """Counts in a list of pairs per layer: memory for pairs that talk, whatever the cluster."""

    def __init__(self, gpus: int, rows: list[Rows]) -> None:
        self._gpus = gpus
        self._rows = rows

    def add(self, layer: int, reached: Reached, end: NDArray[np.int32], leg: Leg) -> None:
        """Count the messages of tokens."""
        from sim.messages._message_kernel import list_messages  # noqa: PLC0415  loads numba

        near, far = np.empty((2, reached.gpu.size), np.int32)
        messages = list_messages(reached, end, *leg, near, far)
        before, ones = self._rows[layer], np.ones(messages, np.int64)
        more = self._merged(near[:messages], far[:messages], ones)
        self._rows[layer] = self._merged(
            np.concatenate((before[0], more[0])),
            np.concatenate((before[1], more[1])),
            np.concatenate((before[2], more[2])),
        )

    def traffic(self, message_bytes: int, *, outward: bool) -> Traffic:
        """Return what was counted, away from the tokens or back to them."""
        rows = self._rows
        if not outward:
            rows = [self._merged(far, near, count) for near, far, count in rows]
        indptr = np.cumsum([0, *(len(each[0]) for each in rows)], dtype=np.int64)
        src, dst, count = (np.concatenate(each) for each in zip(*rows, strict=True))
        return Traffic(indptr, src, dst, count, message_bytes)

    def copy(self) -> PairLists:
        """Return a counter that has counted the same."""
        return PairLists(self._gpus, self._rows.copy())

    def _merged(
        self, src: NDArray[np.int32], dst: NDArray[np.int32], count: NDArray[np.int64]
    ) -> Rows:
        from sim.messages._message_kernel import merge_rows  # noqa: PLC0415  loads numba

        merged: Rows = merge_rows(src, dst, count, self._gpus)
        return merged


def _no_rows() -> Rows:
    return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64)
