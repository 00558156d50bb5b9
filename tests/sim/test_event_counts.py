"""How many events SimPy sees of a step: a formula of layers, GPUs and micro-batches."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy

from placement import Placement
from sim import AnalyticNetwork, ConstantCompute, FluidNetwork, MessageSizes, PacketNetwork
from sim.batch import Batch, split_batch
from sim.messages import exchange
from sim.step import Step
from workloads import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.network import Network
    from topologies import Router

SIZES = MessageSizes(dispatch_bytes=1000, combine_bytes=2000)
NETWORKS: dict[str, Callable[[Router], Network]] = {
    "analytic": AnalyticNetwork,
    "fluid": FluidNetwork,
    "packet": PacketNetwork,
}


def batches(parts: Any, seconds: float, micro_batches: int = 1) -> list[Batch]:
    """Return micro-batches whose experts compute at a constant rate."""
    trace, placement, attention = parts
    made = []
    for part, of_part in split_batch(trace, attention, micro_batches):
        sent = exchange(part, placement, of_part, sizes=SIZES)
        made.append(Batch.of(placement, sent, ConstantCompute(seconds).times(placement, sent)))
    return made


def count_events(network: Network, parts: Any, seconds: float, micro_batches: int = 1) -> int:
    """SimPy events of one step."""
    env = simpy.Environment()
    env._eid = numbers = count()
    Step(env, network.open(env), batches(parts, seconds, micro_batches)).run()
    return next(numbers)


def lockstep(
    gpus: int, layers: int, tokens: int, fixed_attention: Callable[..., Any]
) -> tuple[RoutingTrace, Placement, Any]:
    """Every GPU sends `tokens` tokens to every one, itself included, which has one expert."""
    token = np.arange(gpus * gpus * tokens)
    chosen = (token // gpus % gpus).astype(np.uint8)
    trace = RoutingTrace(
        topk=np.repeat(chosen[:, None, None], layers, axis=1),
        experts=gpus,
        seq_lens=np.array([len(token)], dtype=np.int32),
        source="test",
    )
    layer, expert = np.divmod(np.arange(layers * gpus), gpus)
    placement = Placement(
        model="test",
        layers=layers,
        experts=gpus,
        gpus=gpus,
        gpus_per_server=1,
        slot_layer=layer,
        slot_gpu=expert,
        slot_expert=expert,
        policy="one each",
    )
    home = np.tile((token % gpus).astype(np.int32), (layers, 1))
    return trace, placement, fixed_attention(home, home)


def in_step(name: str, layers: int, gpus: int, micro_batches: int) -> int:
    """Events of a step whose GPUs do all things at the same time.

    - analytic: a collective is a process (its start, its timeout, its end) and the event that
      all GPUs wait for: 4, and there are 2 a layer. GPUs compute as one: a decision, and an end.
    - fluid and packet: a GPU is told that all is in twice a layer. Fluid has an arrival beside
      it (the last byte has left before), and packet a wake-up of the driver. GPUs begin to
      compute one by one, as they are told: an end each, and in packet a decision each. What
      remains is a few wake-ups a layer.
    """
    each = layers * gpus
    both = micro_batches == 2
    return {
        "analytic": 10 * layers * micro_batches,
        "fluid": 10 * each + 8 * layers if both else 5 * each + 3 * layers + 2,
        "packet": 12 * each + 6 * layers + 2 if both else 6 * each + 2 * layers + 2,
    }[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize(("gpus", "layers"), [(4, 3), (8, 3), (8, 5)])
def test_events_of_gpus_in_step(
    name: str,
    micro_batches: int,
    gpus: int,
    layers: int,
    switch: Callable[..., Router],
    fixed_attention: Callable[..., Any],
) -> None:
    """The same number of events for 20 and for 200 tokens between two GPUs, and this number."""
    network = NETWORKS[name](switch(gpus, 1e9, 1e-7))
    for tokens in (20, 200):
        parts = lockstep(gpus, layers, tokens, fixed_attention)
        counted = count_events(network, parts, 1e-9, micro_batches)
        assert counted == in_step(name, layers, gpus, micro_batches)


def arrivals_and_tasks(made: list[Batch]) -> tuple[int, int]:
    """How often a GPU has all of a leg, and tasks of GPUs that take time."""
    received = sum(int(leg.receives.sum()) for batch in made for leg in batch.legs)
    tasks = sum(int(np.count_nonzero(batch.gpu_tokens)) for batch in made)
    return received, tasks


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("tokens", [100, 1000, 4000])
def test_events_of_gpus_out_of_step(
    tokens: int, micro_batches: int, ring: Callable[..., Router], inputs: Callable[..., Any]
) -> None:
    """Three events an arrival and a task; the first and the last are the driver's own.

    An arrival is a timeout, an event for whoever waits, and a wake-up of the network's driver
    after it. A task is a decision, its end, and a wake-up after that. What falls into the same
    ns shares wake-ups; here nothing does on packet, and the network is busy throughout.
    """
    parts = inputs(1, tokens=tokens, layers=3)
    arrivals, tasks = arrivals_and_tasks(batches(parts, 1e-8, micro_batches))
    # Ten GPUs, three layers: each receives and computes at most once a leg and layer.
    assert 100 * micro_batches // 2 < arrivals <= 60 * micro_batches
    assert tasks <= 30 * micro_batches
    most = 2 + 3 * arrivals + 3 * tasks
    events = {
        name: count_events(network(ring()), parts, 1e-8, micro_batches)
        for name, network in NETWORKS.items()
    }
    assert events["packet"] == most
    assert events["fluid"] <= most
    # 4 a collective; all GPUs that receive go on at once, and end one by one.
    legs = 2 * 3 * micro_batches
    assert events["analytic"] <= 4 * legs + 3 * micro_batches + tasks
    # The count notices an event more.
    assert count_events(PacketNetwork(ring()), parts, 0.0, micro_batches) == 2 + 3 * arrivals
