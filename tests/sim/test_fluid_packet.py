"""Fluid makespans against those of 4 KiB chunks through FIFO links, on the study's clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from experiments.benchmarks.fluid import common_rows
from experiments.clusters import study_clusters
from sim import FluidNetwork, PacketNetwork
from sim.network import Flows, run_alone
from topologies import Router

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANKS = 64
TOKENS = 128
CHOICES = 8
MESSAGE = 7408  # DeepSeek-R1's dispatch (FACTS section 3)


def traffic(kind: str) -> Flows:
    """R1 dispatch between every 4th of 256 GPUs, 128 tokens a rank, 8 choices a token."""
    rng = np.random.default_rng(7)
    share: NDArray[np.float64] = np.ones(RANKS)
    if kind == "skewed":
        share = rng.lognormal(0.0, 0.7, RANKS)
    count = rng.multinomial(TOKENS * CHOICES, share / share.sum(), RANKS)
    src, dst = np.nonzero(count)
    return Flows(4 * src, 4 * dst, count[src, dst], MESSAGE)


@pytest.mark.parametrize("kind", ["uniform", "skewed"])
@pytest.mark.parametrize("cluster", sorted(study_clusters()))
def test_makespans_agree(cluster: str, kind: str) -> None:
    """Within 1 % where fluid meets the busiest-link bound, 10 % elsewhere; never below it."""
    router = Router(study_clusters()[cluster].build(), "hash")
    flows = traffic(kind)
    fluid, _ = run_alone(FluidNetwork(router, steps=None), flows)
    packet, _ = run_alone(PacketNetwork(router, chunk_bytes=4096), flows)
    assert fluid.link_bytes.tolist() == packet.link_bytes.tolist()
    bound = float((fluid.link_bytes / router.cluster.bandwidth_Bps).max()) * 1e9
    sent = fluid.delivered_ns - router.path_latency(flows.src, flows.dst) * 1e9
    assert bound <= sent.max() * (1 + 1e-9)
    assert bound <= packet.ended_ns
    meets_bound = sent.max() <= bound * (1 + 1e-9)
    tolerance = 0.01 if meets_bound else 0.1
    assert fluid.delivered_ns.max() == pytest.approx(packet.ended_ns, rel=tolerance)


def test_the_common_job_is_exact() -> None:
    """The benchmark's first row: 127 messages over a host link, from one filling."""
    (row,) = common_rows(repeats=1)
    assert row["makespan_us"] == pytest.approx(665.846, rel=1e-6)  # FACTS section 2
    assert row["makespan_us"] == pytest.approx(row["ideal_us"], rel=1e-9)
    assert row["fillings"] == 1
