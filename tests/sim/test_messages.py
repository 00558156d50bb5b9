"""Messages counted from a trace, against loops that anyone can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import MessageSizes, SimulationError, Traffic
from sim.compute import expert_ns
from sim.messages import distinct_destinations, expert_tokens, per_expert
from workloads import model

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = MessageSizes(dispatch_bytes=100, combine_bytes=200)


def as_counter(traffic: Traffic) -> Counter[tuple[int, int, int]]:
    """(layer, src, dst) -> messages."""
    keys = zip(
        traffic.layer_of_row.tolist(), traffic.src.tolist(), traffic.dst.tolist(), strict=True
    )
    return Counter(dict(zip(keys, traffic.count.tolist(), strict=True)))


def slow_messages(trace: Any, placement: Any, attention: Any) -> tuple[Counter[Any], Counter[Any]]:
    """Count message by message."""
    dispatch: Counter[Any] = Counter()
    combine: Counter[Any] = Counter()
    origin, collector = attention.origin_gpu(trace.tokens), attention.collector_gpu(trace.tokens)
    for token in range(trace.tokens):
        for layer in range(trace.layers):
            for expert in trace.topk[token, layer].tolist():
                gpu = int(placement.gpu_of_expert[layer, expert])
                dispatch[layer, int(origin[layer, token]), gpu] += 1
                combine[layer, gpu, int(collector[layer, token])] += 1
    return dispatch, combine


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_messages_equal_the_count_one_by_one(
    inputs: Callable[..., Any], seed: int, tokens: int, layers: int, k: int
) -> None:
    """Every (layer, source, destination) has as many messages as the loop finds."""
    parts = inputs(seed, tokens=tokens, layers=layers, k=k)
    dispatch, combine = per_expert(*parts, SIZES)
    slow_dispatch, slow_combine = slow_messages(*parts)
    assert as_counter(dispatch) == slow_dispatch
    assert as_counter(combine) == slow_combine
    slow_dispatch[0, 0, 0] += 1
    assert as_counter(dispatch) != slow_dispatch


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_rows_ascend_and_name_no_pair_twice(inputs: Callable[..., Any], seed: int) -> None:
    """Rows are strictly ascending by (layer, src, dst)."""
    for traffic in per_expert(*inputs(seed), SIZES):
        key = (traffic.layer_of_row * 10 + traffic.src) * 10 + traffic.dst
        assert (np.diff(key) > 0).all()
        assert traffic.indptr[-1] == len(traffic.src)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_expert_tokens_and_distinct_destinations(inputs: Callable[..., Any], seed: int) -> None:
    """Choices per GPU and distinct destinations per token, against plain loops."""
    trace, placement, _ = inputs(seed)
    load = np.zeros((trace.layers, placement.gpus), dtype=int)
    gpus = servers = 0
    for token in range(trace.tokens):
        for layer in range(trace.layers):
            reached = placement.gpu_of_expert[layer][trace.topk[token, layer]].tolist()
            gpus += len(set(reached))
            servers += len({gpu // 2 for gpu in reached})
            for gpu in reached:
                load[layer, gpu] += 1
    assert expert_tokens(trace, placement).tolist() == load.tolist()
    assert distinct_destinations(trace, placement) == (gpus, servers)


def test_sizes_of_deepep_low_latency() -> None:
    """7408 and 14336 bytes at hidden 7168 (FACTS section 3, DeepEP low-latency kernels)."""
    # 16 + 7168 + 4 * 7168 / 128 = 16 + 7168 + 224; 2 * 7168
    assert MessageSizes.from_model(model("DeepSeek-R1")) == MessageSizes(7408, 14336)


def test_empty_messages_are_refused() -> None:
    """A message has a byte or more."""
    with pytest.raises(SimulationError, match="1 byte or more, got 0"):
        MessageSizes(0, 1)


def test_inputs_that_do_not_fit_are_refused(inputs: Callable[..., Any]) -> None:
    """Layers, experts, tokens and GPUs must agree; the message has both numbers."""
    trace, placement, attention = inputs(0)
    for other, message in (
        (inputs(0, layers=2)[0], "the trace has 2 MoE layers, the placement 3"),
        (inputs(0, experts=8)[0], "the trace has 8 experts, the placement 16"),
    ):
        with pytest.raises(SimulationError, match=message):
            per_expert(other, placement, attention, SIZES)
    with pytest.raises(SimulationError, match=r"origin of \(3, 20\) layers and tokens"):
        per_expert(inputs(0, tokens=21)[0], placement, attention, SIZES)
    far = replace(attention, origin=attention.origin + 10)
    with pytest.raises(SimulationError, match=r"the placement has 0\.\.9"):
        per_expert(trace, placement, far, SIZES)


def test_a_trace_without_tokens_is_refused(inputs: Callable[..., Any]) -> None:
    """There is nothing to send."""

    class Empty:
        tokens, layers, experts = 0, 3, 16

    _, placement, attention = inputs(0)
    with pytest.raises(SimulationError, match="the trace has no tokens"):
        per_expert(Empty(), placement, attention, SIZES)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf"), 1e9])
def test_bad_expert_rates_are_refused(rate: float) -> None:
    """Negative, undefined and absurd expert times do not reach the clock."""
    with pytest.raises(SimulationError, match="expert"):
        expert_ns(np.array([[3]]), rate)


def test_expert_time_is_rounded_up() -> None:
    """3 tokens at 0.5 ns take 2 ns, 4 tokens exactly 2 ns."""
    assert expert_ns(np.array([[0, 3, 4]]), 0.5e-9).tolist() == [[0, 2, 2]]
