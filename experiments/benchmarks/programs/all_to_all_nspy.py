"""Packets over given paths in ns.py: prints makespan, processor seconds and version.

Usage: ``python all_to_all_nspy.py JOB CHUNK``, by a Python that has ns.py. JOB is as for
``all_to_all.cpp``; CHUNK is the size of a packet in bytes. A port is a link, a demultiplexer a
switch; a source hands its packets to its port at time 0, chunk by chunk in turn.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import simpy
from ns.demux.fib_demux import FIBDemux
from ns.packet.packet import Packet
from ns.packet.sink import PacketSink
from ns.port.port import Port


class Flow(NamedTuple):
    """What one host sends to another, and the links it crosses."""

    src: int
    dst: int
    links: list[int]


class Job(NamedTuple):
    """All that is sent: links at one rate (bytes/s), flows of one size (bytes)."""

    links: int
    rate: float
    size: int
    flows: list[Flow]


def read(file: Path) -> Job:
    """Read a job."""
    words = iter(file.read_text().split())
    _, links, flows = (int(next(words)) for _ in range(3))
    rate, size = float(next(words)), int(next(words))
    found = []
    for _ in range(flows):
        src, dst, length = (int(next(words)) for _ in range(3))
        found.append(Flow(src, dst, [int(next(words)) for _ in range(length)]))
    return Job(links, rate, size, found)


def run(job: Job, chunk: int) -> float:
    """Return the seconds until the last packet is in."""
    env = simpy.Environment()
    ports = [Port(env, rate=job.rate * 8) for _ in range(job.links)]
    sinks: dict[int, PacketSink] = {}
    for port in ports:
        port.out = FIBDemux(fib={}, outs=ports, ends={})
    for number, flow in enumerate(job.flows):
        for here, following in zip(flow.links, flow.links[1:], strict=False):
            ports[here].out.fib[number] = following
        sink = sinks.setdefault(flow.dst, PacketSink(env, rec_waits=False, rec_flow_ids=False))
        ports[flow.links[-1]].out.ends[number] = sink
    packets = -(-job.size // chunk)
    for at in range(packets):
        size = min(chunk, job.size - at * chunk)
        for number, flow in enumerate(job.flows):
            packet = Packet(env.now, size, at, src=flow.src, dst=flow.dst, flow_id=number)
            ports[flow.links[0]].put(packet)
    env.run()
    received = sum(sum(sink.packets_received.values()) for sink in sinks.values())
    if received != packets * len(job.flows):
        sys.exit(f"{received} packets arrived; expected {packets * len(job.flows)}")
    return float(max(max(sink.last_arrival.values()) for sink in sinks.values()))


if __name__ == "__main__":
    given = read(Path(sys.argv[1]))
    begun = time.process_time()
    makespan = run(given, int(sys.argv[2]))
    sys.stdout.write(f"{makespan!r} {time.process_time() - begun!r} {version('ns.py')}\n")
