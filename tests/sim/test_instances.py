"""Instances side by side: against the analytic network with all their messages at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sim import AnalyticNetwork, MessageSizes, SimulationError, Traffic
from sim.instances import Instance, SharedLinks, side_by_side
from sim.messages import Exchange, exchange
from sim.network import Flows, run_alone
from topologies import Rail, Router

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = MessageSizes(1000, 2000)
RANKS = 10


def planes(rule: str = "hash") -> Router:
    """20 servers of 2 GPUs in 10 groups, on two planes of 10 leaves and 2 spines."""
    fabric = Rail(
        gpus_per_server=2,
        groups=10,
        servers_per_group=2,
        spines=2,
        planes=True,
        rail_rule="receiver",
        oversubscription=2.0,
    )
    return Router(fabric.build(), rule)


def scattered(inputs: Callable[..., Any], *, mode: str = "per_expert") -> list[Instance]:
    """Four instances of 5 servers each, every fourth server of the fabric, with tokens of own."""
    made = []
    for number in range(4):
        sent = exchange(*inputs(number), sizes=SIZES, mode=mode)
        servers = np.arange(5) * 4 + number
        made.append(Instance((servers[:, None] * 2 + np.arange(2)).ravel(), sent))
    return made


def union(instances: Sequence[Instance], layer: int, leg: int) -> Flows:
    """All instances' messages of a leg, on the fabric's GPUs; of the first one's size."""
    parts = []
    for gpus, sent in instances:
        flows = (*sent.dispatch, *sent.combine)[leg].layer(layer)
        parts.append((gpus[flows.src], gpus[flows.dst], flows.count, flows.message_bytes))
    ends = [np.concatenate([part[column] for part in parts]) for column in range(3)]
    return Flows(*ends, parts[0][3])


def differs(found: SharedLinks, router: Router, instances: Sequence[Instance]) -> bool:
    """Whether the analytic network has other bytes, or other durations by more than its ns."""
    for layer, leg in np.ndindex(found.transfer_s.shape):
        collective, _ = run_alone(AnalyticNetwork(router), union(instances, layer, leg))
        if not np.allclose(found.link_bytes[layer, leg], collective.link_bytes, rtol=1e-9):
            return True
        seconds = found.transfer_s[layer, leg] + found.latency_s[layer, leg]
        if not 0 <= collective.ended_ns - seconds * 1e9 + 1e-5 < 2.1:  # two roundings up
            return True
    return False


@pytest.mark.parametrize("rule", ["hash", "dmodk", "minimal", "shares"])
def test_instances_are_one_collective(rule: str, inputs: Callable[..., Any]) -> None:
    """Bytes and durations are those of a collective of all instances' messages."""
    router, instances = planes(rule), scattered(inputs)
    found = side_by_side(router, instances)
    assert not differs(found, router, instances)
    assert found.link_bytes.dtype == (np.float64 if rule == "shares" else np.int64)
    # The comparison notices an instance that is left out, and a latency that is not counted.
    assert differs(side_by_side(router, instances[:3]), router, instances)
    assert differs(replace(found, latency_s=found.latency_s * 0), router, instances)


def test_stages_are_legs(inputs: Callable[..., Any]) -> None:
    """Per server there are two stages out and two back."""
    router, instances = planes(), scattered(inputs, mode="per_server")
    found = side_by_side(router, instances)
    assert found.transfer_s.shape == (3, 4)
    assert not differs(found, router, instances)


def test_alone_is_without_the_others(inputs: Callable[..., Any]) -> None:
    """What an instance takes alone is what it takes when nobody else is there; never more."""
    router, instances = planes(), scattered(inputs)
    found = side_by_side(router, instances)
    for number, instance in enumerate(instances):
        single = side_by_side(router, iter([instance]))
        assert np.array_equal(single.transfer_s, found.alone_s[number])
        assert np.array_equal(single.alone_s[0], single.transfer_s)
    assert (found.transfer_s >= found.alone_s.max(axis=0)).all()
    assert (found.transfer_s > found.alone_s.max(axis=0)).any()
    assert found.pairs == sum(side_by_side(router, [each]).pairs for each in instances)


def by_hand(rows: Sequence[tuple[int, int, int]]) -> Exchange:
    """Messages (source, destination, count) of one layer out, and the same back."""
    src, dst, count = np.array(rows).T
    out = Traffic(np.array([0, len(rows)]), src.astype(np.int32), dst.astype(np.int32), count, 1000)
    back = Traffic(out.indptr, out.dst, out.src, out.count, 2000)
    none = np.zeros((1, RANKS), dtype=np.int64)
    distinct = np.zeros((1, 2), dtype=np.int64)
    return Exchange((out,), (back,), none[0], none, distinct, none)


def test_by_hand() -> None:
    """Two instances meet on the one cable that D-mod-k gives both, and on nothing else."""
    router = planes("dmodk")
    cluster = router.cluster
    # Ranks 0 and 2 sit on the first GPUs of servers 0 and 2 (groups 0 and 1), or 1 and 3.
    one = Instance(np.array([0, 1, 4, 5]), by_hand([(0, 2, 30)]))
    other = Instance(np.array([2, 3, 6, 7]), by_hand([(0, 2, 50), (1, 1, 7)]))
    found = side_by_side(router, [one, other])
    assert found.pairs == 4  # one each way and instance; a GPU to itself is none
    used = np.flatnonzero(found.link_bytes[0, 0])
    carried = dict(zip(used.tolist(), found.link_bytes[0, 0, used].tolist(), strict=True))
    # Out of GPUs 0 and 2, into GPUs 4 and 6: 30 and 50 messages of 1000 bytes.
    assert [carried[cluster.nic_up[gpu]] for gpu in (0, 2)] == [30_000, 50_000]
    assert [carried[cluster.nic_down[gpu]] for gpu in (4, 6)] == [30_000, 50_000]
    # Places 2 and 3 under the leaves of their rail go different ways up: nothing is shared.
    assert sorted(carried.values()) == [30_000] * 4 + [50_000] * 4
    # The host link carries 50 GB/s, a cable up 2 * 50 / (2 * 2) = 25: 50,000 bytes take 2 us.
    assert found.transfer_s[0] == pytest.approx([2e-6, 4e-6], rel=1e-12)
    assert found.alone_s[:, 0, 0] == pytest.approx([1.2e-6, 2e-6], rel=1e-12)


def test_refusals(inputs: Callable[..., Any]) -> None:
    """Nobody there, a GPU twice, a GPU that is not there, and layers that do not match."""
    router, instances = planes(), scattered(inputs)
    with pytest.raises(SimulationError, match="no instance to replay; expected one or more"):
        side_by_side(router, [])
    with pytest.raises(SimulationError, match="GPU 0 serves two ranks; expected one rank a GPU"):
        side_by_side(router, [instances[0], instances[0]])
    twice = instances[0]._replace(gpus=np.zeros(RANKS, dtype=np.int64))
    with pytest.raises(SimulationError, match="GPU 0 serves two ranks"):
        side_by_side(router, [twice])
    outside = instances[0]._replace(gpus=np.arange(RANKS) + 35)
    with pytest.raises(SimulationError, match="GPU 40 of an instance; expected 0 to 39"):
        side_by_side(router, [outside])
    short = exchange(*inputs(1, layers=2), sizes=SIZES)
    with pytest.raises(SimulationError, match="instance 1 has 2 layers of 2 legs; expected 3 of 2"):
        side_by_side(router, [instances[0], instances[1]._replace(exchange=short)])
