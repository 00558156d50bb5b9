"""What a network is asked to carry in one collective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import SimulationError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Messages of equal size, counted by (source, destination).

    Attributes
    ----------
    src, dst
        int32 [flows]: GPUs; no pair twice. A GPU may send to itself, over no link.
    count
        int64 [flows]: messages, 1 or more.
    message_bytes
        Size of every message.
    """

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    count: NDArray[np.int64]
    message_bytes: int

    def __post_init__(self) -> None:
        """Freeze the arrays and refuse what is no set of messages."""
        for name, dtype in (("src", np.int32), ("dst", np.int32), ("count", np.int64)):
            array = np.asarray(getattr(self, name), dtype=dtype).view()
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if not len(self.src) == len(self.dst) == len(self.count):
            raise SimulationError(
                f"flows: {len(self.src)} sources, {len(self.dst)} destinations and "
                f"{len(self.count)} counts; expected as many of each"
            )
        if not len(self.src):
            raise SimulationError("flows: there are none")
        if self.message_bytes < 1 or bool((self.count < 1).any()):
            raise SimulationError("flows: message size and counts must be 1 or more")
        if float(self.count.sum(dtype=np.float64)) * self.message_bytes >= 2.0**53:
            raise SimulationError("flows: more than 2**53 bytes in one collective")

    def __len__(self) -> int:
        return len(self.src)

    @property
    def size_bytes(self) -> NDArray[np.int64]:
        """int64 [flows]: bytes of every flow."""
        return self.count * self.message_bytes

    def part(self, flows: NDArray[np.int64]) -> Flows:
        """Return some of the flows, in that order."""
        return Flows(self.src[flows], self.dst[flows], self.count[flows], self.message_bytes)
