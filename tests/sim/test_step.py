"""Stages, micro-batches and where GPUs' time goes: by hand, and against slow twins."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from placement import Placement
from sim import (
    AnalyticNetwork,
    ConstantCompute,
    FluidNetwork,
    LawViolation,
    MessageSizes,
    PacketNetwork,
    SimulationError,
    simulate,
)
from sim.batch import Batch, split_batch
from sim.compute import DecodePool, PrefillPool, StepTimes
from sim.free import critical_ns
from sim.laws import check_gpu_time, check_time
from sim.messages import MODES, exchange
from sim.spans import Spans
from sim.tables import gpus_table, layers_table
from workloads import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from topologies import Router

SIZES = MessageSizes(dispatch_bytes=1000, combine_bytes=2000)
NETWORKS = {"analytic": AnalyticNetwork, "fluid": FluidNetwork, "packet": PacketNetwork}


def _twin(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


step_twin, critical_twin = _twin("step_twin"), _twin("critical_twin")


@dataclass(frozen=True)
class Written:
    """Times written down, the same for every micro-batch."""

    attention: Any
    experts: Any
    tail: Any
    pool: Any = None

    def times(self, placement: Any, sent: Any) -> StepTimes:
        """Times of the GPUs that have tokens."""
        used = np.zeros((placement.layers, placement.gpus), dtype=np.int64)
        np.add.at(used, (placement.slot_layer, placement.slot_gpu), sent.slot_tokens)
        here = sent.origin_tokens > 0
        return StepTimes(
            attention=np.where(here, self.attention, 0),
            experts=np.where(used > 0, self.experts, 0),
            tail=np.where(here[-1], self.tail, 0),
        )


def random_times(seed: int, layers: int = 3, gpus: int = 10, most: int = 5) -> Written:
    """Small times, so that many things happen at once."""
    rng = np.random.default_rng(seed)
    shape = (layers, gpus)
    parts = (
        rng.integers(0, most, shape),
        rng.integers(0, most, shape),
        rng.integers(0, most, gpus),
    )
    return Written(*parts)


def batches_of(parts: Any, compute: Any, count: int, mode: str = "per_expert") -> list[Batch]:
    """Return the micro-batches of a step."""
    trace, placement, attention = parts
    found = []
    for part, of_part in split_batch(trace, attention, count):
        sent = exchange(part, placement, of_part, sizes=SIZES, mode=mode)  # type: ignore[arg-type]
        found.append(Batch.of(placement, sent, compute.times(placement, sent)))
    return found


def by_hand(topk: Any, gpu_of_expert: Any, gpus: int, width: int = 1) -> Any:
    """Trace [tokens, layers, k] and placement [layers, experts] written down."""
    gpu = np.asarray(gpu_of_expert)
    layer, expert = np.divmod(np.arange(gpu.size), gpu.shape[1])
    trace = RoutingTrace(
        topk=np.asarray(topk).astype(np.uint8),
        experts=gpu.shape[1],
        seq_lens=np.array([len(topk)], dtype=np.int32),
        source="by hand",
    )
    placement = Placement(
        model="by hand",
        layers=gpu.shape[0],
        experts=gpu.shape[1],
        gpus=gpus,
        gpus_per_server=width,
        slot_layer=layer,
        slot_gpu=gpu.ravel(),
        slot_expert=expert,
        policy="by hand",
    )
    return trace, placement


def test_attention_experts_and_tail_by_hand(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """A token's step is its attention, its way out, the experts, its way back, and the head."""
    trace, placement = by_hand([[[1]]], [[0, 1]], 2)
    home = np.zeros((1, 1), dtype=np.int32)
    result = simulate(
        trace,
        placement,
        fixed_attention(home, home),
        network=AnalyticNetwork(switch(2, 1e9, 100e-9)),
        sizes=SIZES,
        compute=Written(300, 50, 70, DecodePool(requests_per_gpu=1, kv_tokens=0)),
    )
    # Attention 300, dispatch 1000 + 2 * 100, experts 50, combine 2000 + 2 * 100, head 70.
    assert result.step_ns == 3820
    assert result.critical_ns == 300 + 50 + 70
    # GPU 0 idles from 300 to 3750: 2000 ns its results need in any case; its dispatch (1000)
    # is put down to no gap before experts, for it computes none.
    assert result.compute_ns.tolist() == [[370, 50]]
    assert result.idle_ns[0].tolist() == [[0, 1500], [3450, 2270]]
    assert result.transfer_ns[0].tolist() == [[1000, 1000], [2000, 2000]]
    assert result.waiting_ns[0].tolist() == [[0, 500], [1450, 270]]
    assert result.tpot_s == pytest.approx(3820e-9)
    assert result.tokens_per_s_gpu == pytest.approx(1 / 3820e-9 / 2)


def test_two_micro_batches_overlap_by_hand(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """While the messages of one half travel, the other half is computed."""
    # Two tokens of GPU 0 whose expert sits on GPU 1. Analytic: 1000 out, 2000 back, no latency.
    trace, placement = by_hand([[[1]], [[1]]], [[0, 1]], 2)
    home = np.zeros((1, 2), dtype=np.int32)
    router = switch(2, 1e9, 0.0)
    ends = [
        simulate(
            trace,
            placement,
            fixed_attention(home, home),
            network=AnalyticNetwork(router),
            sizes=SIZES,
            compute=Written(100 * (3 - parts), 400 * (3 - parts), 0),
            micro_batches=parts,
        ).step_ns
        for parts in (1, 2)
    ]
    # One batch: attention 200, both tokens 2000, experts 800, back 4000.
    # Two: attention of halves at 0..100 and 100..200; dispatches 100..1100 and, the links being
    # taken, 1100..2100; experts 1100..1500 and 2100..2500; results 1500..3500 and 3500..5500.
    assert ends == [7000, 5500]


def test_two_micro_batches_in_turns_by_hand(
    switch: Callable[..., Router], fixed_attention: Any
) -> None:
    """Nothing is dispatched while the other half's results are under way; a GPU waits its turn."""
    trace, placement = by_hand([[[1]], [[1]]], [[0, 1]], 2)
    home = np.zeros((1, 2), dtype=np.int32)
    turns, here = (
        simulate(
            *parts,
            fixed_attention(home, home),
            network=AnalyticNetwork(switch(2, 1e9, 0.0)),
            sizes=SIZES,
            compute=Written(100, 400, 30),
            micro_batches=2,
            overlap="turns",
        )
        for parts in ((trace, placement), by_hand([[[1]], [[0]]], [[0, 1]], 2))
    )
    # Attention 0..100 and 100..200; dispatch 100..1100, experts 1100..1500, results 1500..3500;
    # then the other's dispatch ..4500, experts ..4900, results ..6900, and its tail ..6930.
    assert turns.step_ns == 6930
    # The second half's expert sits on GPU 0 itself, but its token leaves for it at 3500 only.
    assert here.collective_ns[0, 2].tolist() == [3500, 3500]
    # The tail of the first half comes after the other's experts: results are in at 3900.
    assert here.step_ns == 3500 + 400 + 30 + 30


def test_an_unknown_overlap_is_refused(inputs: Callable[..., Any]) -> None:
    """The message lists the ways there are."""
    with pytest.raises(SimulationError, match="overlap is 'eager'; expected ready or turns"):
        critical_ns(batches_of(inputs(0), random_times(0), 1), "eager")  # type: ignore[arg-type]


def test_a_server_forwards_by_hand(ring: Callable[..., Router], fixed_attention: Any) -> None:
    """per_server: across to the GPU of the same index, then inside, and back the same way."""
    # GPU 0 (server 0) to an expert on GPU 3 (server 1): landing GPU 2.
    trace, placement = by_hand([[[1]]], [[0, 3]], 10, width=2)
    home = np.zeros((1, 1), dtype=np.int32)
    result = simulate(
        trace,
        placement,
        fixed_attention(home, home),
        network=AnalyticNetwork(ring()),
        sizes=SIZES,
        compute=ConstantCompute(0.0),
        mode="per_server",
    )
    assert [leg.name for leg in result.legs] == [
        "dispatch", "dispatch stage 1", "combine", "combine stage 1",
    ]  # fmt: skip
    # Fabric: 1000 B over the slowest link, 0-1 at 2 GB/s, 20 + 30 + 20 ns; NVLink: 1000 B at
    # 7 GB/s rounded up, 2 * 10 ns; the same way back with 2000 B.
    took = (500 + 70, 143 + 20, 286 + 20, 1000 + 70)
    assert np.diff(result.collective_ns[0], axis=1).ravel().tolist() == list(took)
    assert result.step_ns == sum(took)


# No results of the last layer reach GPU 9 in micro-batch 2: were its tail of 2081027 ns computed,
# the step would end as much later.
@example(seed=0, count=3, mode="per_expert", overlap="ready")
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.sampled_from(MODES),
    st.sampled_from(["ready", "turns"]),
)
@settings(max_examples=60, deadline=None)
def test_free_steps_against_the_slow_twin(
    inputs: Callable[..., Any], seed: int, count: int, mode: str, overlap: Any
) -> None:
    """Causality, and GPUs that compute one task at a time, as a plain event loop has them."""
    batches = batches_of(inputs(seed, tokens=60), random_times(seed), count, mode)
    # The order of what becomes ready in one instant may differ: give every task its own time.
    rng = np.random.default_rng(seed + 1)
    odd = [
        replace(
            batch,
            times=StepTimes(
                *(
                    np.where(part > 0, part * 10**6 + rng.integers(0, 10**5, part.shape), 0)
                    for part in (batch.times.attention, batch.times.experts, batch.times.tail)
                )
            ),
        )
        for batch in batches
    ]
    assert critical_ns(odd, overlap) == step_twin.FreeStep(odd, overlap).run()


def test_the_slow_twin_notices_another_step(inputs: Callable[..., Any]) -> None:
    """A nanosecond more of a task that decides the end is seen."""
    batches = batches_of(inputs(3), random_times(3), 1)
    times = batches[0].times
    longer = replace(batches[0], times=replace(times, tail=times.tail + 1))
    assert critical_ns(batches) != step_twin.FreeStep([longer]).run()


def test_the_slow_twin_notices_another_order(inputs: Callable[..., Any]) -> None:
    """Two micro-batches whose GPUs take what is ready end at another time than in turns."""
    halves = batches_of(inputs(3, tokens=60), random_times(3, most=4000), 2)
    assert critical_ns(halves, "turns") == step_twin.FreeStep(halves, "turns").run()
    assert critical_ns(halves, "turns") != step_twin.FreeStep(halves).run()


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_critical_compute_layer_by_layer(inputs: Callable[..., Any], seed: int) -> None:
    """One batch with experts alone: the recursion over layers gives the same time."""
    batch = batches_of(inputs(seed), ConstantCompute(1e-6), 1)[0]
    sent = batch.exchange
    expected = critical_twin.critical_ns(sent.dispatch[0], sent.combine[0], batch.times.experts)
    assert critical_ns([batch]) == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("count", "overlap"), [(1, "ready"), (2, "ready"), (3, "turns")])
def test_laws_hold_in_all_modes(
    ring: Callable[..., Router],
    inputs: Callable[..., Any],
    mode: Any,
    kind: str,
    count: int,
    overlap: Any,
) -> None:
    """Every network carries every stage of every mode, and GPUs' time adds up to the step."""
    results = [
        simulate(
            *inputs(seed, tokens=40),
            network=NETWORKS[kind](ring()),
            sizes=SIZES,
            compute=random_times(seed, most=4000),
            micro_batches=count,
            overlap=overlap,
            mode=mode,
        )
        for seed in (1, 2)
    ]
    for result in results:
        parts = result.compute_ns.sum(axis=0) + result.idle_ns.sum(axis=(0, 1))
        assert (parts == result.step_ns).all()
        assert result.waiting_ns.min() >= 0
        assert result.step_ns >= result.critical_ns
        figures = result.step_metrics()
        total = sum(figures[each] or 0 for each in ("compute_s", "exposed_transfer_s", "waiting_s"))
        assert total == pytest.approx(result.step_s)
        assert len(gpus_table(result)) == 10
        assert layers_table(result)["waiting_s"].min() >= 0


def test_bytes_of_micro_batches_add_up(
    ring: Callable[..., Router], inputs: Callable[..., Any]
) -> None:
    """Two halves send what the whole sends; all networks carry the same."""
    whole, *halves = (
        simulate(
            *inputs(4, tokens=41),
            network=network(ring()),
            sizes=SIZES,
            compute=ConstantCompute(1e-8),
            micro_batches=count,
        )
        for count, network in ((1, AnalyticNetwork), *((2, each) for each in NETWORKS.values()))
    )
    for each in halves:
        for direction in range(2):
            assert np.array_equal(whole.direction_bytes(direction), each.direction_bytes(direction))
        assert each.byte_hops == whole.byte_hops
        assert np.array_equal(each.expert_tokens, whole.expert_tokens)


def test_halves_of_every_gpu(inputs: Callable[..., Any]) -> None:
    """Micro-batches cut every GPU's tokens into parts that differ by one at most."""
    trace, _, attention = inputs(5, tokens=101)
    found = [of.origin_gpu(part.tokens)[0] for part, of in split_batch(trace, attention, 3)]
    counts = np.array([np.bincount(each, minlength=10) for each in found])
    assert counts.sum() == 101
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
    for count, message in ((0, "1 or more, got 0"), (102, "102 micro-batches of at most")):
        with pytest.raises(SimulationError, match=message):
            list(split_batch(trace, attention, count))


def test_idle_time_and_stragglers_by_hand() -> None:
    """Gaps are put down to what the task behind them waited for."""
    # GPU 0: attention 0..2, gap of 3, experts 5..9, gap of 1, tail 10..11, 1 to the end.
    # GPU 1: experts 3..4 after a gap of 3, then 8 to the end.
    start = np.array([[[0, 0], [5, 3], [10, 0]]])
    end = np.array([[[2, 0], [9, 4], [11, 0]]])
    active = np.array([[[True, False], [True, True], [True, False]]])
    spans = Spans(start, end, active)
    assert spans.idle_ns(12).tolist() == [[[3, 3], [2, 8]]]
    assert spans.busy_ns().tolist() == [[2, 0], [4, 1], [1, 0]]
    gpu, late = spans.stragglers()
    assert gpu.tolist() == [0]
    assert late.tolist() == [2]  # 9 behind the median of 9 and 4, 6.5


def test_laws_notice_overlapping_tasks(
    ring: Callable[..., Router], inputs: Callable[..., Any]
) -> None:
    """A GPU that computes two tasks at once, or a step that ends early, is seen."""
    result = simulate(
        *inputs(6), network=AnalyticNetwork(ring()), sizes=SIZES, compute=random_times(6, most=900)
    )
    start = result.spans.start_ns.copy()
    start[0, 3] -= 10**6
    doctored = replace(result, spans=replace(result.spans, start_ns=start))
    check_gpu_time(result)
    with pytest.raises(LawViolation, match="ns accounted for of GPU"):
        check_gpu_time(replace(doctored, step_ns=result.step_ns))
    with pytest.raises(LawViolation, match="end of a collective"):
        check_time(replace(result, step_ns=int(result.collective_ns.max()) - 1))
    # A tail that takes longer than the step: its time and what is left add up all the same.
    end = result.spans.end_ns.copy()
    end[0, -1] = result.step_ns + 1
    with pytest.raises(LawViolation, match="end of a task of GPU"):
        check_gpu_time(replace(result, spans=replace(result.spans, end_ns=end)))


def test_prefill_counts_tokens_read(
    ring: Callable[..., Router], inputs: Callable[..., Any]
) -> None:
    """A prefill pool has a throughput, and no time per output token; without pool neither."""
    pool = PrefillPool(requests_per_gpu=1, prompt_tokens=2)
    results = [
        simulate(
            *inputs(7),
            network=AnalyticNetwork(ring()),
            sizes=SIZES,
            compute=Written(10, 10, 10, each),
        )
        for each in (pool, None)
    ]
    assert [each.tpot_s for each in results] == [None, None]
    assert results[0].tokens_per_s_gpu == pytest.approx(20 / results[0].step_s / 10)
    assert results[1].tokens_per_s_gpu is None
