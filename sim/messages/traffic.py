"""Messages between GPUs, counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.network.flows import Flows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """All messages of one stage of a direction, counted by (layer, source, destination).

    Attributes
    ----------
    indptr
        int64 [layers + 1]: the rows of layer l are ``indptr[l]:indptr[l + 1]``.
    src, dst
        int32 [rows]: GPUs, ascending by (src, dst) within a layer; equal where a token stays on
        its GPU, and then the message crosses no link.
    count
        int64 [rows]: messages.
    message_bytes
        Size of every message.
    """

    indptr: NDArray[np.int64]
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    count: NDArray[np.int64]
    message_bytes: int

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for array in (self.indptr, self.src, self.dst, self.count):
            array.setflags(write=False)

    @property
    def layers(self) -> int:
        """MoE layers."""
        return len(self.indptr) - 1

    @property
    def layer_of_row(self) -> NDArray[np.int64]:
        """int64 [rows]."""
        return np.repeat(np.arange(self.layers), np.diff(self.indptr))

    @property
    def size_bytes(self) -> NDArray[np.int64]:
        """int64 [rows]: bytes of every row."""
        return self.count * self.message_bytes

    def layer_rows(
        self, layer: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        """Return src, dst and count of one layer."""
        rows = slice(self.indptr[layer], self.indptr[layer + 1])
        return self.src[rows], self.dst[rows], self.count[rows]

    def layer(self, layer: int) -> Flows:
        """Return the flows of one layer."""
        return Flows(*self.layer_rows(layer), self.message_bytes)
