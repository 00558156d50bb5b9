"""Where tokens start and end: the attention side of every MoE layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Attention(Protocol):
    """Which GPU a token is dispatched from, and collected on, in every MoE layer."""

    @property
    def name(self) -> str:
        """How tables and files call it."""

    def origin_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: GPU each token is dispatched from."""

    def collector_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: GPU each token's expert results are sent to."""

    def origin_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: P(o), share of the tokens that start on each server."""

    def collector_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: P(c), share of the tokens that end on each server."""


@dataclass(frozen=True, slots=True)
class Pipelined:
    """The paper's attention: one origin server per layer, collected at the next layer's.

    Stop i of the L+1 (L MoE layers and the head) sits on server ``floor(i * S / (L + 1))``;
    token t on GPU ``t mod gpus_per_server`` there. Layer l dispatches from stop l and collects
    at stop l + 1.
    """

    layers: int
    servers: int
    gpus_per_server: int
    name: str = "pipelined"

    def stops(self) -> NDArray[np.int32]:
        """int32 [layers + 1]: server of every stop."""
        stop = np.arange(self.layers + 1, dtype=np.int64)
        return (stop * self.servers // (self.layers + 1)).astype(np.int32)

    def origin_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: GPU each token is dispatched from."""
        return self._gpu(self.stops()[:-1], tokens)

    def collector_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: GPU each token's expert results are sent to."""
        return self._gpu(self.stops()[1:], tokens)

    def origin_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: one server per layer."""
        return self._share(self.stops()[:-1])

    def collector_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: the next layer's origin server."""
        return self._share(self.stops()[1:])

    def _gpu(self, stops: NDArray[np.int32], tokens: int) -> NDArray[np.int32]:
        inside = np.arange(tokens, dtype=np.int32) % np.int32(self.gpus_per_server)
        return stops[:, None] * np.int32(self.gpus_per_server) + inside[None, :]

    def _share(self, stops: NDArray[np.int32]) -> NDArray[np.float64]:
        share = np.zeros((self.layers, self.servers))
        share[np.arange(self.layers), stops] = 1.0
        return share


@dataclass(frozen=True, slots=True)
class DataParallel:
    """What engines run: tokens live on all ranks and results return to where they came from.

    `tp` neighbouring GPUs hold the same tokens and take turns in sending them, each 1/tp of
    them.
    """

    layers: int
    servers: int
    gpus_per_server: int
    tp: int = 1
    name: str = "data-parallel"

    def __post_init__(self) -> None:
        """Refuse a tensor-parallel width that does not divide the GPUs."""
        if self.tp < 1 or (self.servers * self.gpus_per_server) % self.tp:
            raise PlacementError(
                f"tp must divide the {self.servers * self.gpus_per_server} GPUs, got {self.tp}"
            )

    def origin_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: GPU each token is dispatched from, the same in every layer."""
        groups = self.servers * self.gpus_per_server // self.tp
        token = np.arange(tokens, dtype=np.int32)
        gpu = token % groups * self.tp + token // groups % self.tp
        return np.broadcast_to(gpu, (self.layers, tokens))

    def collector_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]: the GPU the token came from."""
        return self.origin_gpu(tokens)

    def origin_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: uniform."""
        return np.full((self.layers, self.servers), 1.0 / self.servers)

    def collector_share(self) -> NDArray[np.float64]:
        """float64 [layers, servers]: uniform."""
        return self.origin_share()
