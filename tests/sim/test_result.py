"""What a result says, by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import sim
from sim import AnalyticNetwork, ConstantCompute, MessageSizes, PacketNetwork, SimResult, simulate
from sim.tables import layers_table, links_table
from topologies import LinkClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Router

SIZES = MessageSizes(dispatch_bytes=1000, combine_bytes=2000)


def make(inputs: Callable[..., Any], network: Any, seed: int = 2) -> SimResult:
    """Return a step of random traffic."""
    return simulate(*inputs(seed), network=network, sizes=SIZES, compute=ConstantCompute(1e-8))


def test_hops_from_histogram_and_links(
    ring: Callable[..., Router], inputs: Callable[..., Any]
) -> None:
    """Hops, byte-hops and link bytes are three views of one count."""
    result = make(inputs, PacketNetwork(ring()))
    tokens, layers, k = 20, 3, 4
    assert result.hop_histogram.sum(axis=1).tolist() == [tokens * layers * k] * 2
    network = result.cluster.link_class != LinkClass.NVLINK
    assert result.byte_hops == result.link_bytes[:, :, network].sum()
    dispatch, combine = result.message_hops.tolist()
    assert result.byte_hops == dispatch * 1000 + combine * 2000
    assert result.hops_per_token_layer == (dispatch + combine) / (tokens * layers)


def test_balance_by_hand(ring: Callable[..., Router], inputs: Callable[..., Any]) -> None:
    """Means over layers of max/mean, and of mean/max, of choices per GPU and server."""
    result = make(inputs, AnalyticNetwork(ring()))
    gpu, server = [], []
    for layer in result.expert_tokens.tolist():
        gpu.append(max(layer) / (sum(layer) / 10))
        pairs = [layer[2 * at] + layer[2 * at + 1] for at in range(5)]
        server.append(max(pairs) / (sum(pairs) / 5))
    assert result.balance_gpu == pytest.approx(sum(gpu) / 3)
    assert result.balance_server == pytest.approx(sum(server) / 3)
    assert result.balancedness == pytest.approx(sum(1 / each for each in gpu) / 3)
    assert 1 <= result.servers_per_token_layer <= result.gpus_per_token_layer <= 4


def test_busiest_link_by_hand(ring: Callable[..., Router], inputs: Callable[..., Any]) -> None:
    """Mean over layers of the busiest link's seconds, dispatch plus combine."""
    result = make(inputs, AnalyticNetwork(ring("shares")))
    seconds = 0.0
    for layer in range(3):
        for direction in range(2):
            carried = result.link_bytes[layer, direction].tolist()
            rates = result.cluster.bandwidth_Bps.tolist()
            seconds += max(size / rate for size, rate in zip(carried, rates, strict=True))
    assert result.busiest_link_s == pytest.approx(seconds / 3)


def test_tables(ring: Callable[..., Router], inputs: Callable[..., Any]) -> None:
    """A row per link and per layer; waiting only where the network has queues."""
    packet, analytic = (make(inputs, kind(ring())) for kind in (PacketNetwork, AnalyticNetwork))
    links = links_table(packet)
    assert list(links.columns[:4]) == ["link", "src", "dst", "class"]
    assert len(links) == packet.cluster.links
    total = links["dispatch_bytes"].sum() + links["combine_bytes"].sum()
    assert total == packet.link_bytes.sum()
    assert set(links["class"]) == {"host", "nvlink", "local"}
    assert (links["utilisation"] <= 1).all()
    assert {"wait_s", "wait_max_s", "chunks"} == set(links) - set(links_table(analytic))
    layers = layers_table(packet)
    assert layers["layer"].tolist() == [0, 1, 2]
    assert layers["combine_end_s"].tolist() == packet.layer_end_s.tolist()
    assert layers["dispatch_start_s"].tolist() == packet.layer_start_s.tolist()
    assert layers["combine_end_s"].max() == packet.step_s
    assert layers["balance_gpu"].mean() == pytest.approx(packet.balance_gpu)


@pytest.mark.parametrize("kind", [PacketNetwork, AnalyticNetwork])
def test_utilisation_over_time_adds_up(
    ring: Callable[..., Router], inputs: Callable[..., Any], kind: Any
) -> None:
    """Bins never exceed 1 and together hold each link's busy time."""
    result = make(inputs, kind(ring(), bins=16))
    assert result.utilisation.shape == (result.cluster.links, 16)
    assert result.utilisation.max() <= 1 + 1e-9
    busy = result.utilisation.sum(axis=1) * result.usage.bin_ns * 1e-9
    assert busy == pytest.approx(result.link_busy_s)


def test_results_are_frozen(ring: Callable[..., Router], inputs: Callable[..., Any]) -> None:
    """Arrays of a result cannot be written to."""
    result = make(inputs, PacketNetwork(ring()))
    with pytest.raises(ValueError, match="read-only"):
        result.link_bytes[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        result.usage.busy_ns[0] = 1
    assert not np.shares_memory(result.link_bytes, result.usage.busy_ns)


def test_public_names() -> None:
    """What the package promises."""
    assert sim.__all__ == [
        "AnalyticNetwork",
        "ComputeModel",
        "ConstantCompute",
        "Fault",
        "FaultSchedule",
        "FluidNetwork",
        "LawViolation",
        "MessageSizes",
        "PacketNetwork",
        "PoolCompute",
        "SimResult",
        "SimulationError",
        "Traffic",
        "expert_seconds",
        "simulate",
    ]


def test_importing_sim_is_cheap() -> None:
    """Neither numba nor pandas is loaded before something is simulated."""
    code = "import sim, sys; print([m for m in ('numba', 'pandas') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
