"""Small clusters and inputs that the tests of the simulator share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from placement import Placement
from topologies import Router, ServerLinks, from_links
from workloads import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class FixedAttention:
    """Origins and collectors written down."""

    origin: NDArray[np.int32]
    collector: NDArray[np.int32]
    name: str = "fixed"

    def origin_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]."""
        return self.origin[:, :tokens]

    def collector_gpu(self, tokens: int) -> NDArray[np.int32]:
        """int32 [layers, tokens]."""
        return self.collector[:, :tokens]

    def origin_share(self) -> NDArray[np.float64]:
        """Not needed to simulate."""
        raise NotImplementedError

    def collector_share(self) -> NDArray[np.float64]:
        """Not needed to simulate."""
        raise NotImplementedError


def _switch(gpus: int, bandwidth: float, latency: float, rule: str = "hash") -> Router:
    servers = ServerLinks(gpus_per_server=1, host_bandwidth_Bps=bandwidth, host_latency_s=latency)
    return Router(from_links([], leaf_of_gpu=[0] * gpus, servers=servers), rule)


def _ring(rule: str = "hash") -> Router:
    cluster = from_links(
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)],
        leaf_of_gpu=np.repeat(np.arange(5), 2),
        servers=ServerLinks(
            gpus_per_server=2,
            host_bandwidth_Bps=3e9,
            host_latency_s=20e-9,
            nvlink_bandwidth_Bps=7e9,
            nvlink_latency_s=10e-9,
        ),
        bandwidth_Bps=[2e9, 1e9, 3e9, 1e9, 2.5e9, 0.7e9],
        latency_s=30e-9,
    )
    return Router(cluster, rule, seed=1) if rule == "hash" else Router(cluster, rule)


def _inputs(
    seed: int, *, tokens: int = 20, layers: int = 3, experts: int = 16, gpus: int = 10, k: int = 4
) -> tuple[RoutingTrace, Placement, FixedAttention]:
    rng = np.random.default_rng(seed)
    topk = np.argsort(rng.random((tokens, layers, experts)), axis=2)[:, :, :k]
    trace = RoutingTrace(
        topk=topk.astype(np.uint8),
        experts=experts,
        seq_lens=np.array([tokens], dtype=np.int32),
        source="test",
    )
    layer, expert = np.divmod(np.arange(layers * experts), experts)
    placement = Placement(
        model="test",
        layers=layers,
        experts=experts,
        gpus=gpus,
        gpus_per_server=2,
        slot_layer=layer,
        slot_gpu=rng.integers(0, gpus, layers * experts),
        slot_expert=expert,
        policy="random",
    )
    stops = rng.integers(0, gpus, (layers + 1, tokens)).astype(np.int32)
    return trace, placement, FixedAttention(stops[:-1], stops[1:])


@pytest.fixture(scope="session")
def switch() -> Callable[..., Router]:
    """Return the builder of a switch: (gpus, bandwidth in B/s, latency in s, rule)."""
    return _switch


@pytest.fixture(scope="session")
def ring() -> Callable[..., Router]:
    """Return the builder of 5 two-GPU servers on a ring of leaves with a chord."""
    return _ring


@pytest.fixture(scope="session")
def inputs() -> Callable[..., Any]:
    """Return the builder of a random trace, placement and attention on 10 GPUs."""
    return _inputs


@pytest.fixture(scope="session")
def fixed_attention() -> type[FixedAttention]:
    """Return the attention whose origins and collectors are written down."""
    return FixedAttention
