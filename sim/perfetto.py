"""A step as a trace for Perfetto (ui.perfetto.dev): one track per GPU, counters of busy links.

Faults are instants, of GPUs on their tracks; the bytes that GPUs' deaths lost are a counter.

Source of the format: "Trace Event Format", Google, 2016: JSON objects with ``ph`` ``X`` (complete
events: begin and duration), ``C`` (counters), ``i`` (instants) and ``M`` (names); times in
microseconds.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.errors import SimulationError
from sim.link_names import node_name
from topologies import LinkClass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.result import SimResult

    Event = dict[str, Any]

GPUS, LINKS = 1, 2
"""Process numbers of the tracks of GPUs, and of the counters of links."""
MAX_EVENTS = 1_000_000
"""Some 10 MB compressed, which the viewer opens in seconds."""
MAX_LINKS = 64
"""Links that get a counter, the busiest first."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A file for the viewer.

    Attributes
    ----------
    content
        JSON, compressed with gzip; the same bytes for the same result.
    events
        Spans, faults and counter values it holds.
    cut
        What was left out, in one line; None if nothing was.
    """

    content: bytes
    events: int
    cut: str | None


def perfetto_trace(
    result: SimResult, *, max_events: int = MAX_EVENTS, max_links: int = MAX_LINKS
) -> Trace:
    """Return what GPUs computed when, and how busy the busiest links were.

    Spans come first, in order of time; where there are more than `max_events`, the end of the
    step is left out, and so are the counters after the last span kept.

    Raises
    ------
    SimulationError
        If there is no room for an event.
    """
    if max_events < 1 or max_links < 0:
        raise SimulationError(
            f"max_events and max_links are {max_events} and {max_links}; expected 1 or more, and "
            "0 or more"
        )
    spans, until_ns, total = _spans(result, max_events)
    others = (*_faults(result), *_lost_bytes(result), *_counters(result, max_links))
    counters = [each for each in others if each["ts"] * 1e3 <= until_ns]
    events = [*spans, *counters[: max_events - len(spans)]]
    cut = None
    if len(events) < total + len(counters) or until_ns < result.step_ns:
        cut = (
            f"{len(spans)} of {total} spans, up to {until_ns * 1e-6:.3f} ms of "
            f"{result.step_ns * 1e-6:.3f}: at most {max_events} events"
        )
    document = {
        "displayTimeUnit": "ns",
        "otherData": {
            "network": result.network,
            "rule": result.rule,
            "mode": result.mode,
            "cut": cut or "nothing",
        },
        "traceEvents": [*_names(result), *events],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    return Trace(gzip.compress(text, compresslevel=6, mtime=0), len(events), cut)


def _spans(result: SimResult, most: int) -> tuple[list[Event], float, int]:
    """Complete events by time, the end of the part they cover in ns, and how many there are."""
    spans = result.spans
    took = spans.active & (spans.end_ns > spans.start_ns)
    batch, task, gpu = np.nonzero(took)
    start, end = spans.start_ns[took], spans.end_ns[took]
    order = np.lexsort((batch, task, gpu, start))
    total = len(order)
    until = float(result.step_ns) if total <= most else float(start[order[most]])
    chosen = order[:most]
    columns = (each[chosen].tolist() for each in (batch, task, gpu, start, end))
    return [_span(spans.layers, *row) for row in zip(*columns, strict=True)], until, total


def _span(layers: int, batch: int, task: int, gpu: int, start: int, end: int) -> Event:
    layer, experts = divmod(task, 2)
    name = "head" if layer == layers else ("attention", "experts")[experts]
    return {
        "ph": "X",
        "name": name,
        "cat": name,
        "pid": GPUS,
        "tid": gpu,
        "ts": start / 1e3,
        "dur": (end - start) / 1e3,
        "args": {"layer": layer, "micro_batch": batch},
    }


def _faults(result: SimResult) -> Iterator[Event]:
    """Instants: what died, slowed down or came back, by time."""
    for fault in () if result.losses is None else result.losses.faults:
        name = {0.0: "dies", 1.0: "is back"}.get(fault.speed, f"slows down to {fault.speed:g}")
        what = f"GPU {fault.number}"
        if fault.what == "link":
            what = _link_name(result, fault.number)
        yield {
            "ph": "i",
            "s": "g" if fault.what == "link" else "t",
            "name": f"{what} {name}",
            "cat": "fault",
            "pid": LINKS if fault.what == "link" else GPUS,
            "tid": 0 if fault.what == "link" else fault.number,
            "ts": fault.at_ns / 1e3,
        }


def _lost_bytes(result: SimResult) -> Iterator[Event]:
    """Counter: bytes lost so far, where GPUs died; by time."""
    if result.losses is None or not len(result.losses.flows.at_ns):
        return
    at, place = np.unique(result.losses.flows.at_ns, return_inverse=True)
    so_far = np.cumsum(np.bincount(place, result.losses.flows.lost_bytes)).astype(np.int64)
    for time_ns, lost in zip([0, *at.tolist()], [0, *so_far.tolist()], strict=True):
        yield {
            "ph": "C",
            "name": "bytes lost with GPUs",
            "pid": GPUS,
            "tid": 0,
            "ts": time_ns / 1e3,
            "args": {"bytes": lost},
        }


def _counters(result: SimResult, most: int) -> Iterator[Event]:
    """Utilisation of the busiest links, in percent, where it changes; by time."""
    total = np.asarray(result.usage.busy_ns, dtype=np.float64)
    busiest = np.argsort(-total, kind="stable")[:most]
    busiest = busiest[total[busiest] > 0]
    percent = np.round(100 * result.utilisation[busiest], 1)
    changes = np.ones(percent.shape, dtype=np.bool_)
    changes[:, 1:] = percent[:, 1:] != percent[:, :-1]
    names = [_link_name(result, link) for link in busiest.tolist()]
    for at in range(percent.shape[1]):
        time_us = at * result.usage.bin_ns / 1e3
        for row in np.flatnonzero(changes[:, at]).tolist():
            yield {
                "ph": "C",
                "name": names[row],
                "pid": LINKS,
                "tid": 0,
                "ts": time_us,
                "args": {"percent": float(percent[row, at])},
            }


def _link_name(result: SimResult, link: int) -> str:
    cluster = result.cluster
    kind = LinkClass(cluster.link_class[link]).name.lower()
    ends = (node_name(cluster, int(each[link])) for each in (cluster.link_src, cluster.link_dst))
    return f"link {link} ({kind}) {'->'.join(ends)}"


def _names(result: SimResult) -> Iterator[Event]:
    for pid, name in ((GPUS, "GPUs"), (LINKS, "links, percent busy")):
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
    for gpu in range(result.cluster.gpus):
        args = {"name": f"GPU {gpu}"}
        yield {"ph": "M", "name": "thread_name", "pid": GPUS, "tid": gpu, "args": args}
