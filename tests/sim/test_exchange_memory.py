"""Identical exchanges on an idle network are computed once, and only identical ones."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import AnalyticNetwork, FluidNetwork, PacketNetwork, SimulationError
from sim.network import Exchanged, ExchangeMemory, Flows, _fluid_kernel, _packet_kernel, run_alone
from sim.network.usage import LinkUsage, Phase
from topologies import Router

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS: dict[str, Callable[[Router], Any]] = {
    "analytic": AnalyticNetwork,
    "fluid": FluidNetwork,
    "packet": lambda router: PacketNetwork(router, order="random", seed=5),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, ring: Callable[..., Router]) -> Any:
    """Return a network over the ring."""
    return NETWORKS[request.param](ring())


def some(seed: int = 0) -> Flows:
    """Messages between ten GPUs."""
    rng = np.random.default_rng(seed)
    src, dst = np.divmod(np.sort(rng.permutation(100)[:40]), 10)
    return Flows(src, dst, rng.integers(1, 30, 40), 999)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal to the last bit, arrays and books included."""
    if isinstance(one, Exchanged | LinkUsage | Phase):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return bool(one == other)


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count what advances the kernels, and what finds the links of messages."""
    calls: list[str] = []
    places: tuple[tuple[Any, str], ...] = (
        (_fluid_kernel, "advance"),
        (_packet_kernel, "advance"),
        (Router, "link_bytes"),
        (Router, "paths"),
    )
    for holder, name in places:
        monkeypatch.setattr(holder, name, counted(getattr(holder, name), calls))
    return calls


def counted(held: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """Return what does as `held`, and writes its name down."""

    def call(*given: Any, **options: Any) -> Any:
        calls.append(held.__name__)
        return held(*given, **options)

    return call


def test_what_is_remembered_is_what_is_computed(network: Any) -> None:
    """To the last bit, books and all, with the memory and without; and as the network has it."""
    memory, none = ExchangeMemory(), ExchangeMemory(most=0)
    first, again = memory.run(network, some()), memory.run(network, some())
    assert again is first
    anew = none.run(network, some())
    assert anew is not first
    assert same(anew, first)
    assert (memory.computed, len(memory), none.computed, len(none)) == (1, 1, 1, 0)
    collective, session = run_alone(network, some())
    assert same(first.usage, session.usage())
    assert same(first.link_bytes, collective.link_bytes)
    assert first.ended_ns == collective.ended_ns == first.arrived_ns.max()
    # The comparison notices other messages.
    assert not same(none.run(network, some(1)), first)


def test_a_repeated_exchange_is_not_computed_again(network: Any, kernel_calls: list[str]) -> None:
    """No kernel runs for it, nor for the same exchange on a network that is built anew."""
    memory = ExchangeMemory()
    memory.run(network, some())
    assert kernel_calls
    kernel_calls.clear()
    again = Router(network.router.cluster, network.router.rule, seed=network.router.seed)
    rebuilt = type(network)(
        again, **{f.name: getattr(network, f.name) for f in fields(network) if f.name != "router"}
    )
    for each in (network, rebuilt):
        memory.run(each, some())
    assert not kernel_calls
    ExchangeMemory().run(network, some())
    assert kernel_calls


def test_a_fault_between_two_exchanges_separates_them(network: Any) -> None:
    """A slow or dead link is another state; when it is back, what was known before is right."""
    memory, none = ExchangeMemory(), ExchangeMemory(most=0)
    links = network.router.cluster.links
    whole = memory.run(network, some())
    busiest = int((whole.link_bytes / network.router.cluster.bandwidth_Bps).argmax())
    slow = np.ones(links)
    slow[busiest] = 0.5
    limping = memory.run(network, some(), slow)
    assert memory.computed == 2
    assert limping.ended_ns > whole.ended_ns
    assert same(limping, none.run(network, some(), slow))
    assert memory.run(network, some(), np.ones(links)) is whole
    dead = np.ones(links)
    # A cable between switches: others lead around it.
    cable = int(
        np.flatnonzero((network.router.cluster.link_class >= 2) & (whole.link_bytes > 0))[0]
    )
    dead[cable] = 0.0
    around = memory.run(network, some(), dead)
    assert memory.computed == 3
    assert around.link_bytes[cable] == 0 < whole.link_bytes[cable]
    assert same(around, none.run(network, some(), dead))
    assert memory.run(network, some()) is whole


def test_what_is_not_the_same_is_computed(ring: Callable[..., Router]) -> None:
    """Fidelity, its parameters, rule, seed, dead links, messages: each is part of the question."""
    memory, flows, router = ExchangeMemory(), some(), ring()
    other_seed = Router(router.cluster, "hash", seed=2)
    asked = [
        (AnalyticNetwork(router), flows),
        (AnalyticNetwork(router, bins=32), flows),
        (FluidNetwork(router), flows),
        (FluidNetwork(router, steps=None), flows),
        (PacketNetwork(router), flows),
        (PacketNetwork(router, chunk_bytes=100), flows),
        (PacketNetwork(router, order="shifted"), flows),
        (AnalyticNetwork(other_seed), flows),
        (AnalyticNetwork(ring("minimal")), flows),
        (AnalyticNetwork(router.without([int(router.paths([0], [4]).links[1])])), flows),
        (AnalyticNetwork(router), some(1)),
        (AnalyticNetwork(router), Flows(flows.src, flows.dst, flows.count, 1000)),
        (AnalyticNetwork(router), Flows(flows.src, flows.dst, flows.count[::-1], 999)),
    ]
    for number, question in enumerate(asked, start=1):
        memory.run(*question)
        assert memory.computed == number
    for question in asked:
        memory.run(*question)
    assert memory.computed == len(asked)


def test_the_memory_is_bounded(ring: Callable[..., Router]) -> None:
    """The least recently asked is forgotten first, by number and by bytes."""
    network, memory = AnalyticNetwork(ring()), ExchangeMemory(most=2)
    for seed in (0, 1, 0, 2, 0):  # 2 pushes 1 out: 0 was asked since
        memory.run(network, some(seed))
    assert (memory.computed, len(memory)) == (3, 2)
    memory.run(network, some(1))
    assert memory.computed == 4
    one = ExchangeMemory().run(network, some()).held_bytes
    # Ten receivers, forty flows, 64 bins and three columns of the links: 8 bytes each.
    links = network.router.cluster.links
    assert one == 8 * (2 * 10 + 40 + (64 + 2) * links)
    small = ExchangeMemory(most_bytes=2 * one)
    for seed in range(4):
        small.run(network, some(seed))
    assert len(small) <= 2


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_any_order_of_asking_gives_what_is_computed(
    ring: Callable[..., Router], asked: list[tuple[int, int]]
) -> None:
    """Whatever was asked before, on whatever links: every answer is that of an empty memory."""
    network, memory = FluidNetwork(ring()), ExchangeMemory(most=3)
    links = network.router.cluster.links
    for seed, state in asked:
        speed = np.where(np.arange(links) == 3, (1.0, 0.5, 0.25)[state], 1.0)
        answer = memory.run(network, some(seed), speed)
        assert same(answer, ExchangeMemory().run(network, some(seed), speed))


def test_what_is_shared_cannot_be_changed(network: Any) -> None:
    """Whoever asks gets the same arrays, so they are read-only; and errors are not remembered."""
    memory = ExchangeMemory()
    found = memory.run(network, some())
    with pytest.raises(ValueError, match="read-only"):
        found.link_bytes[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        found.arrived_ns[0] = 1
    for _ in range(2):
        with pytest.raises(SimulationError, match="partition"):
            memory.run(network, some(), np.zeros(network.router.cluster.links))
    assert memory.computed == 1
