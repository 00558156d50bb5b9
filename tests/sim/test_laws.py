"""Every law of `sim.laws` notices a result that breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sim import (
    AnalyticNetwork,
    ConstantCompute,
    FluidNetwork,
    LawViolation,
    MessageSizes,
    PacketNetwork,
    SimResult,
    laws,
    simulate,
)
from sim.laws import (
    check_capacity,
    check_delivery,
    check_durations,
    check_hops,
    check_laws,
    check_routes,
    check_time,
)
from sim.messages import per_expert
from sim.pairs import survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Router

SIZES = MessageSizes(dispatch_bytes=1000, combine_bytes=2000)


class Run(NamedTuple):
    """A good run and all that the laws compare it with."""

    result: SimResult
    traffic: Any
    router: Router
    inputs: Any


@pytest.fixture(params=["packet", "hash", "shares", "fluid-hash", "fluid-shares"])
def run(
    request: pytest.FixtureRequest, ring: Callable[..., Router], inputs: Callable[..., Any]
) -> Run:
    """Return a run of every network and kind of rule."""
    router = ring("shares" if request.param.endswith("shares") else "hash")
    network: Any = AnalyticNetwork
    if request.param == "packet":
        network = PacketNetwork
    elif request.param.startswith("fluid"):
        network = FluidNetwork
    parts = inputs(11)
    result = simulate(*parts, network=network(router), sizes=SIZES, compute=ConstantCompute(1e-8))
    legs = [survey(each, 10) for each in per_expert(*parts, SIZES)]
    return Run(result, legs, router, parts)


def with_bytes(run: Run, changes: list[tuple[tuple[int, int, int], float]]) -> SimResult:
    """Add bytes at some (layer, direction, link)."""
    link_bytes = run.result.link_bytes.copy()
    for at, change in changes:
        link_bytes[at] += change
    return replace(run.result, link_bytes=link_bytes)


def test_a_good_run_obeys_all_laws(run: Run) -> None:
    """Nothing is reported of a run that was not tampered with."""
    check_laws(*run)


def test_delivery_notices_a_byte(run: Run) -> None:
    """One byte more on a GPU's own link was not injected."""
    own_links = run.result.cluster
    for link, what in ((own_links.nic_up[3], "sent by GPU 3"), (own_links.nvlink_down[4], "GPU 4")):
        with pytest.raises(LawViolation, match=f"dispatch bytes .*{what}"):
            check_delivery(with_bytes(run, [((1, 0, link), 1)]), run.traffic, run.router)


def test_routes_notice_a_detour(run: Run) -> None:
    """Bytes that vanish from a cable are missed even if both ends are right."""
    first_cable = run.result.cluster.links - 12
    doctored = with_bytes(run, [((0, 1, first_cable), 7)])
    check_delivery(doctored, run.traffic, run.router)
    with pytest.raises(LawViolation, match="combine bytes of"):
        check_routes(doctored, run.traffic, run.router)


def test_hops_notice_a_wrong_count(run: Run) -> None:
    """Hops counted from the trace are neither more nor fewer than those on the links."""
    histogram = run.result.hop_histogram.copy()
    histogram[0, 1] += 1
    with pytest.raises(LawViolation, match="hops of direction 0"):
        check_hops(replace(run.result, hop_histogram=histogram), run.router, run.inputs)
    first_cable = run.result.cluster.links - 12
    doctored = with_bytes(run, [((2, 1, first_cable), 2000)])
    with pytest.raises(LawViolation, match="combine byte-hops of layer 2"):
        check_hops(doctored, run.router, run.inputs)


def test_hops_notice_another_placement(run: Run, inputs: Callable[..., Any]) -> None:
    """The hops of one placement are not those of another."""
    trace, _, attention = run.inputs
    with pytest.raises(LawViolation, match="dispatch byte-hops of layer"):
        check_hops(run.result, run.router, (trace, inputs(12)[1], attention))


def test_capacity_notices_a_link_that_is_too_fast(run: Run) -> None:
    """Bytes need their time on the link, and the link its time in the run and in every bin."""
    usage, step = run.result.usage, run.result.step_ns
    link = int(usage.busy_ns.argmax())
    for change, message in (
        ({"busy_ns": usage.busy_ns // 2}, "service of link"),
        ({"busy_ns": usage.busy_ns + step}, "busy ns of link .* exceeds the step"),
        ({"busy_bins_ns": usage.busy_bins_ns * 0.999}, "busy ns over all time bins of link"),
        ({"busy_bins_ns": usage.busy_bins_ns + usage.bin_ns}, "in one time bin of link"),
    ):
        with pytest.raises(LawViolation, match=message):
            check_capacity(replace(run.result, usage=replace(usage, **change)))
    busy_bytes = run.result.link_bytes[:, :, link].sum() * 0.01
    with pytest.raises(LawViolation, match=f"service of link {link}"):
        check_capacity(with_bytes(run, [((0, 0, link), busy_bytes)]))


def test_durations_notice_a_collective_that_is_too_fast(run: Run) -> None:
    """A collective cannot end before its busiest link is done."""
    times = run.result.collective_ns.copy()
    times[1, 0, 1] = times[1, 0, 0] + int(run.result.busiest_s[1, 0] * 1e9) - 1
    with pytest.raises(LawViolation, match="busiest link's ns in dispatch of layer 1"):
        check_durations(replace(run.result, collective_ns=times))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ((1, 0, 1), "start of collective 2"),
        ((2, 0, 0), "start of layer 1"),
        ((2, 1, 1), "start of collective 5"),
        ((1, 1, 0), "start of the dispatch of layer 1"),
    ],
)
def test_time_notices_a_step_back(run: Run, at: tuple[int, int, int], message: str) -> None:
    """No start or end lies before what it follows."""
    times = run.result.collective_ns.copy()
    times[at] = 0
    if at == (2, 0, 0):
        times[1, 0, 0] = max(times[1, 0, 0], 1)
    with pytest.raises(LawViolation, match=message):
        check_time(replace(run.result, collective_ns=times))


def test_every_law_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check_laws` asks each of the laws once."""
    asked = []
    names = ("capacity", "delivery", "durations", "gpu_time", "hops", "routes", "time")
    for name in names:
        monkeypatch.setattr(laws, f"check_{name}", lambda *_, name=name: asked.append(name))
    check_laws(*run)
    assert set(asked) >= (set(names) if run.result.rule != "shares" else set(names) - {"routes"})
