"""Perfetto traces: the format, the times, and the cap on their size."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from survivors_twin import doubled

from sim import (
    AnalyticNetwork,
    ConstantCompute,
    Fault,
    FaultSchedule,
    MessageSizes,
    SimulationError,
    simulate,
)
from sim.link_names import link_number
from sim.perfetto import perfetto_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim import SimResult
    from topologies import Router

KEYS = {
    "X": {"ph", "name", "cat", "pid", "tid", "ts", "dur", "args"},
    "C": {"ph", "name", "pid", "tid", "ts", "args"},
    "M": {"ph", "name", "pid", "tid", "args"},
    "i": {"ph", "s", "name", "cat", "pid", "tid", "ts"},
}


@pytest.fixture
def result(ring: Callable[..., Router], inputs: Callable[..., Any]) -> SimResult:
    """Return a step of two micro-batches."""
    return simulate(
        *inputs(1, tokens=60),
        network=AnalyticNetwork(ring()),
        sizes=MessageSizes(dispatch_bytes=1000, combine_bytes=2000),
        compute=ConstantCompute(3e-7),
        micro_batches=2,
    )


def check_format(document: Any) -> None:
    """What the Trace Event format asks of an object: its keys, and numbers where times stand."""
    assert set(document) >= {"traceEvents"}
    assert document["displayTimeUnit"] in ("ms", "ns")
    for event in document["traceEvents"]:
        assert set(event) == KEYS[event["ph"]]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] in "XCi":
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(each, float | int) for each in event["args"].values())
        if event["ph"] == "i":
            assert event["s"] in "gpt"
        if event["ph"] == "M":
            assert isinstance(event["args"]["name"], str)


def opened(content: bytes) -> Any:
    """The document in a file."""
    return json.loads(gzip.decompress(content))


def test_a_trace_holds_every_span(result: SimResult) -> None:
    """One track per GPU; durations add up to what every GPU computed."""
    trace = perfetto_trace(result)
    document = opened(trace.content)
    check_format(document)
    assert trace.cut is None
    assert document["otherData"]["cut"] == "nothing"
    spans = [each for each in document["traceEvents"] if each["ph"] == "X"]
    for gpu, compute_ns in enumerate(result.compute_ns.sum(axis=0).tolist()):
        own = sum(each["dur"] for each in spans if each["tid"] == gpu)
        assert own * 1e3 == pytest.approx(compute_ns)
    assert {each["args"]["micro_batch"] for each in spans} == {0, 1}
    values = [each for each in document["traceEvents"] if each["ph"] == "C"]
    assert len(spans) + len(values) == trace.events
    assert all(0 <= each["args"]["percent"] <= 100 for each in values)
    for name in {each["name"] for each in values}:  # "link 3 (host) gpu3->switch0"
        _, number, _, ends = name.split()
        assert link_number(result.cluster, ends) == int(number)
    assert perfetto_trace(result).content == trace.content


def test_a_cut_trace_says_so(result: SimResult) -> None:
    """The end of the step is left out, and the file and the caller are told."""
    whole = opened(perfetto_trace(result).content)["traceEvents"]
    spans = sorted(each["ts"] for each in whole if each["ph"] == "X")
    trace = perfetto_trace(result, max_events=10, max_links=2)
    document = opened(trace.content)
    check_format(document)
    assert trace.events == 10
    assert trace.cut is not None
    assert trace.cut.startswith(f"10 of {len(spans)} spans, up to ")
    assert document["otherData"]["cut"] == trace.cut
    kept = [each["ts"] for each in document["traceEvents"] if each["ph"] == "X"]
    assert sorted(kept) == spans[:10]


def test_format_check_notices_a_wrong_event(result: SimResult) -> None:
    """A span without duration is none."""
    document = opened(perfetto_trace(result).content)
    span = next(each for each in document["traceEvents"] if each["ph"] == "X")
    del span["dur"]
    with pytest.raises(AssertionError):
        check_format(document)


def test_faults_are_instants(ring: Callable[..., Router], inputs: Callable[..., Any]) -> None:
    """What died and came back when, on the GPU's track, and the bytes lost so far."""
    trace, one, attention = inputs(4, tokens=60)
    faults = (
        Fault(1e-6, "gpu", 3, 0.0), Fault(2e-6, "link", 40, 0.5), Fault(50e-6, "gpu", 3, 1.0),
        Fault(1.0, "gpu", 4, 0.0),
    )  # fmt: skip
    result = simulate(
        trace, doubled(one), attention, network=AnalyticNetwork(ring()),
        sizes=MessageSizes(7000, 9000), compute=ConstantCompute(1e-7),
        faults=FaultSchedule(faults),
    )  # fmt: skip
    document = opened(perfetto_trace(result).content)
    check_format(document)
    instants = [each for each in document["traceEvents"] if each["ph"] == "i"]
    # The last one comes after the end: it did not happen.
    assert [(each["ts"], each["tid"], each["name"]) for each in instants] == [
        (1.0, 3, "GPU 3 dies"),
        (2.0, 0, "link 40 (local) switch0->switch1 slows down to 0.5"),
        (50.0, 3, "GPU 3 is back"),
    ]
    assert result.losses is not None
    lost = [each for each in document["traceEvents"] if each["name"] == "bytes lost with GPUs"]
    assert [(each["ts"], each["args"]["bytes"]) for each in lost] == [
        (0.0, 0),
        (1.0, result.losses.lost_bytes),
    ]
    assert result.losses.lost_bytes > 0


def test_no_room_for_a_trace(result: SimResult) -> None:
    """A cap of no event is refused."""
    with pytest.raises(SimulationError, match="max_events and max_links are 0 and 64"):
        perfetto_trace(result, max_events=0)
