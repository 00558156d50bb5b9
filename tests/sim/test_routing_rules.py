"""Whole runs under every routing and rail rule: the laws hold, and networks agree on bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sim import (
    AnalyticNetwork,
    ConstantCompute,
    FluidNetwork,
    MessageSizes,
    PacketNetwork,
    simulate,
)
from sim.errors import LawViolation
from sim.laws import check_delivery
from sim.messages import per_expert
from sim.pairs import survey
from topologies import Cluster, LinkClass, Router, dragonfly, fat_tree, rail

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim import SimResult

SIZES = MessageSizes(dispatch_bytes=3000, combine_bytes=5000)


def tree() -> Cluster:
    """Return 8 servers of 2 GPUs on a two-level tree."""
    return fat_tree(leaves_per_pod=4, servers_per_leaf=2, aggregations_per_pod=2, gpus_per_server=2)


def groups() -> Cluster:
    """Return 10 servers of 2 GPUs on a dragonfly of 5 groups."""
    return dragonfly(a=2, p=1, h=2, groups=5, gpus_per_server=2)


def rails(rail_rule: str) -> Cluster:
    """Return 6 servers of 2 GPUs on two rails."""
    return rail(groups=2, servers_per_group=3, spines=2, gpus_per_server=2, rail_rule=rail_rule)


ROUTERS: dict[str, Callable[[], Router]] = {
    "tree-shares": lambda: Router(tree()),
    "tree-dmodk": lambda: Router(tree(), "dmodk"),
    "tree-minimal": lambda: Router(tree(), "minimal", seed=2),
    "dragonfly-minimal": lambda: Router(groups(), "minimal"),
    "dragonfly-valiant": lambda: Router(groups(), "valiant", seed=3),
    "dragonfly-ugal": lambda: Router(groups(), "ugal", seed=3),
    **{
        f"rail-{rule}-{routing}": lambda rule=rule, routing=routing: Router(rails(rule), routing)
        for rule in ("direct", "sender", "receiver")
        for routing in ("shares", "hash", "dmodk")
    },
}


def run(router: Router, network: Any, inputs: Callable[..., Any]) -> SimResult:
    """Replay a random trace on the cluster; `simulate` itself checks the laws."""
    trace, placement, attention = inputs(5, gpus=router.cluster.gpus, experts=32)
    return simulate(
        trace,
        placement,
        attention,
        network=network(router),
        sizes=SIZES,
        compute=ConstantCompute(1e-7),
    )


@pytest.mark.parametrize("name", ROUTERS)
def test_laws_hold_under_every_rule(name: str, inputs: Callable[..., Any]) -> None:
    """Analytic and packet carry the same bytes, and the hops counted are the links crossed."""
    router = ROUTERS[name]()
    analytic = run(router, AnalyticNetwork, inputs)
    fluid = run(router, FluidNetwork, inputs)
    assert fluid.link_bytes.dtype == analytic.link_bytes.dtype
    assert fluid.link_bytes == pytest.approx(analytic.link_bytes, rel=1e-9)
    if router.rule != "shares":
        packet = run(router, PacketNetwork, inputs)
        np.testing.assert_array_equal(analytic.link_bytes, packet.link_bytes)
    network = router.cluster.link_class != LinkClass.NVLINK
    crossed = analytic.link_bytes[:, :, network].sum(axis=(0, 2))
    sizes = np.array([SIZES.dispatch_bytes, SIZES.combine_bytes])
    np.testing.assert_allclose(crossed, analytic.message_hops * sizes, rtol=1e-9)


def test_valiant_crosses_more_links(inputs: Callable[..., Any]) -> None:
    """Detours cost byte-hops against minimal routing of the same tokens."""
    hops = {
        rule: run(Router(groups(), rule), AnalyticNetwork, inputs).byte_hops
        for rule in ("minimal", "valiant", "ugal")
    }
    assert hops["minimal"] < hops["valiant"]
    assert hops["minimal"] <= hops["ugal"] < hops["valiant"]


def test_forwarding_moves_bytes_to_nvlink(inputs: Callable[..., Any]) -> None:
    """Rail rules that forward trade spine links for NVLink, never the hosts' links."""
    found = {}
    for rule in ("direct", "sender", "receiver"):
        router = Router(rails(rule), "hash")
        carried = run(router, AnalyticNetwork, inputs).link_bytes.sum(axis=(0, 1))
        found[rule] = [
            int(carried[router.cluster.link_class == kind].sum())
            for kind in (LinkClass.NVLINK, LinkClass.HOST, LinkClass.GLOBAL)
        ]
    assert found["sender"] == found["receiver"]
    assert found["sender"][0] > found["direct"][0]
    assert found["sender"][1] == found["direct"][1]
    assert found["sender"][2] < found["direct"][2]


def test_a_relay_that_loses_bytes_is_noticed(inputs: Callable[..., Any]) -> None:
    """The delivery law fails when it is told of another rail rule than the run's."""
    router = Router(rails("sender"), "hash")
    result = run(router, AnalyticNetwork, inputs)
    trace, placement, attention = inputs(5, gpus=router.cluster.gpus, experts=32)
    legs = per_expert(trace, placement, attention, SIZES)
    traffic = [survey(each, placement.gpus) for each in legs]
    check_delivery(result, traffic, router)
    with pytest.raises(LawViolation, match="sent by GPU"):
        check_delivery(result, traffic, Router(router.cluster, "hash", rail_rule="direct"))
