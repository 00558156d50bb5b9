"""The packet network: links crossed a second on the job that other simulators are measured on."""

from __future__ import annotations

from typing import Any

from experiments.benchmarks.clocks import timed
from experiments.benchmarks.common_job import IDEAL_US, common_cluster, common_flows
from experiments.benchmarks.section import Section, Target, column
from sim import PacketNetwork
from sim.network import run_alone
from topologies import Router

CHUNK_BYTES = 4096


def packet_rows(
    rules: tuple[str, ...] = ("dmodk", "hash"), repeats: int = 3
) -> list[dict[str, Any]]:
    """Run the job that peers are timed on (`common_job`), in packets of 4 KiB.

    Returns
    -------
    list of dict
        ``rule``, ``makespan_us``, ``ideal_us``, ``crossings`` of links by packets, ``seconds`` of
        the wall and ``cpu_s`` of the processor (best of `repeats`, routing and set-up included,
        compiling not), ``per_s``: crossings a processor second.
    """
    cluster, flows = common_cluster(), common_flows()
    rows = []
    for rule in rules:

        def run(rule: str = rule) -> tuple[Any, Any]:
            return run_alone(PacketNetwork(Router(cluster, rule), CHUNK_BYTES), flows)

        run()
        (collective, session), clocks = timed(run, repeats)
        row = {
            "rule": rule,
            "makespan_us": float(collective.delivered_ns.max()) * 1e-3,
            "ideal_us": IDEAL_US,
            "crossings": session.crossings,
            "per_s": session.crossings / clocks.cpu_s,
        }
        rows.append(row | clocks._asdict())
    return rows


PACKET_SECTION = Section(
    "Packets: 128 hosts, k = 8 fat-tree, 100 Gb/s, 64 KiB between any two, packets of 4 KiB",
    lambda _data, _everything: packet_rows(),
    {
        "rule": ("routing", ""),
        "makespan_us": ("makespan us", ".3f"),
        "ideal_us": ("ideal", ".3f"),
        "crossings": ("links crossed", ",d"),
        "seconds": ("seconds", ".3f"),
        "cpu_s": ("processor seconds", ".3f"),
        "per_s": ("crossings/s", ",.0f"),
    },
    (
        Target(
            "packet, the peers' job: links crossed a processor second",
            column("per_s"),
            3e6,
            ">=",
            ",.0f",
        ),
        Target("packet, the peers' job in 4 KiB packets: processor seconds", column("cpu_s"), 1.0),
    ),
    needs_data=False,
)
