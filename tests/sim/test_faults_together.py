"""GPUs and links that fail in the same step, on every network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import simpy
from network_runs import NETWORKS
from test_faults_gpu import by_hand
from test_routing_rules import ROUTERS

from sim import AnalyticNetwork, ConstantCompute, Fault, FaultSchedule, MessageSizes, simulate
from sim.network import Flows

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Router

KEPT: Any = {"sizes": MessageSizes(6000, 10_000), "compute": ConstantCompute(500e-9)}


def schedule(*changes: tuple[int, Any, int, float]) -> FaultSchedule:
    """Return a schedule of (ns, link or gpu, number, speed)."""
    return FaultSchedule(tuple(Fault(at * 1e-9, *rest) for at, *rest in changes))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_card_of_a_dead_gpu_may_die(
    switch: Callable[..., Router], fixed_attention: Any, name: str
) -> None:
    """What was lost with the GPU needs no path: the step goes on as if its card lived."""
    network = NETWORKS[name](switch(3, 1e9, 0.0))
    # GPU 1 dies while it is sent to; by 9000 ns what had left for it is in.
    died = (4000, "gpu", 1, 0.0)
    own = network.router.cluster
    cards = [(9000, "link", int(each[1]), 0.0) for each in (own.nic_up, own.nic_down)]
    parts = by_hand(fixed_attention)
    alone = simulate(*parts, network=network, faults=schedule(died), **KEPT)
    both = simulate(*parts, network=network, faults=schedule(died, *cards), **KEPT)
    assert both.losses is not None
    assert alone.losses is not None
    assert both.losses.lost_bytes == alone.losses.lost_bytes > 0
    np.testing.assert_allclose(both.link_bytes, alone.link_bytes, atol=1e-6)
    assert abs(both.step_ns - alone.step_ns) <= 2  # a changed link cuts analytic's whole bytes


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_later_layer_may_need_a_link_that_is_dead_now(
    switch: Callable[..., Router], fixed_attention: Any, name: str
) -> None:
    """A layer that is planned anew asks for its own paths alone; a link may be back for others."""
    trace, placement, attention = by_hand(fixed_attention, layers=3)
    # Layers 0 and 1 use GPU 1, layer 2 uses GPU 2; GPU 3, whose death asks for a new plan, none.
    one = replace(
        placement, gpus=4, slot_layer=np.arange(3), slot_gpu=np.array([1, 1, 2]),
        slot_expert=np.zeros(3),
    )  # fmt: skip
    network = NETWORKS[name](switch(4, 1e9, 0.0))
    link = int(network.router.cluster.nic_up[2])
    parts = trace, one, attention
    none = simulate(*parts, network=network, **KEPT)
    again, last = (int(each) for each in none.collective_ns[1:, 0, 0])
    faults = schedule(
        (100, "gpu", 3, 0.0), (100, "link", link, 0.0), ((again + last) // 2, "link", link, 1.0)
    )
    run = simulate(*parts, network=network, faults=faults, **KEPT)
    np.testing.assert_allclose(run.link_bytes, none.link_bytes, atol=1e-6)
    assert abs(run.step_ns - none.step_ns) <= 2


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_who_sends_to_a_dead_gpu_alone_starts_nothing(
    switch: Callable[..., Router], name: str
) -> None:
    """A collective that lost all it had does not start after its end."""
    env = simpy.Environment()
    session = NETWORKS[name](switch(2, 1e9, 0.0)).open(env)
    each = session.collective(Flows(np.array([0]), np.array([1]), np.array([1]), 500))
    env.run(until=10)
    ((lost, size),) = session.cut(1)
    assert lost is each
    assert size.tolist() == [500]
    env.run(until=20)
    each.send(0)
    env.run()
    assert each.ended_ns is not None
    assert each.started_ns is None or each.started_ns <= each.ended_ns


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_ways_by_load_stay_while_links_are_slow(inputs: Callable[..., Any], name: str) -> None:
    """A slow link changes no route, so that a step under ``ugal`` puts the same bytes on links."""
    router = ROUTERS["dragonfly-ugal"]()
    parts = inputs(5, gpus=router.cluster.gpus, experts=32, tokens=60)
    none = simulate(*parts, network=NETWORKS[name](router), **KEPT)
    slow = [
        (none.step_ns * part // 20, "link", int(router.cluster.nic_up[3]), 0.5 + part / 50)
        for part in range(1, 20)
    ]
    run = simulate(*parts, network=NETWORKS[name](router), faults=schedule(*slow), **KEPT)
    np.testing.assert_array_equal(run.link_bytes, none.link_bytes)
    assert run.step_ns > none.step_ns


def test_links_slow_down_under_ugal_when_gpus_die(inputs: Callable[..., Any]) -> None:
    """The books of analytic agree when a part of a collective has moved (a law of every run)."""
    router = ROUTERS["dragonfly-ugal"]()
    trace, placement, attention = inputs(5, gpus=router.cluster.gpus, experts=32, tokens=60)
    end = simulate(trace, placement, attention, network=AnalyticNetwork(router), **KEPT).step_ns
    for gpu in range(router.cluster.gpus):
        faults = FaultSchedule((Fault(end * (gpu + 1) / 40 * 1e-9, "gpu", gpu, 0.0),), "drop")
        run = simulate(
            trace, placement, attention, network=AnalyticNetwork(router), faults=faults, **KEPT
        )
        assert run.losses is not None
