"""Batches counted one after the other, in memory for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exchange_twin import of
from test_messages_modes import with_replicas

from placement import DataParallel
from sim import MessageSizes, SimulationError
from sim.messages import MODES, exchange, stream_exchange
from workloads import RoutingTrace

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = MessageSizes(dispatch_bytes=100, combine_bytes=200)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", ["equal", "nearest", "sglang_static", "sglang_dynamic"])
def test_chunks_equal_the_whole(inputs: Callable[..., Any], mode: Any, rule: str) -> None:
    """Batches of whole rounds over the ranks count as one batch; turns and draws go on."""
    trace, placement, _ = inputs(3, tokens=60)
    placement = with_replicas(placement, 3)
    attention = DataParallel(3, 5, 2)
    options: Any = {"mode": mode, "replica_rule": rule, "server_distance": np.eye(5, dtype=int)}
    chunks = (trace.topk[first : first + 20] for first in range(0, 60, 20))
    streamed = stream_exchange(chunks, placement, attention, sizes=SIZES, **options)
    whole = exchange(trace, placement, attention, sizes=SIZES, **options)
    assert of(streamed) == of(whole)
    short = stream_exchange([trace.topk[:20]], placement, attention, sizes=SIZES, **options)
    assert of(short) != of(whole)


def test_places_in_a_batch_start_again(inputs: Callable[..., Any]) -> None:
    """Under ``vllm_modulo`` chunks are answered as batches of their own, not as a long one."""
    trace, placement, attention = inputs(3, tokens=42)
    placement = with_replicas(placement, 3)

    def answered(chunks: list[Any]) -> Any:
        return stream_exchange(
            chunks, placement, attention, sizes=SIZES, replica_rule="vllm_modulo"
        ).slot_tokens

    first, second = trace.topk[:21], trace.topk[21:]
    apart = answered([first]) + answered([second])
    assert np.array_equal(answered([first, second]), apart)
    assert not np.array_equal(answered([trace.topk]), apart)


def test_results_that_stop_returning_home_are_counted_apart(
    inputs: Callable[..., Any], fixed_attention: Any
) -> None:
    """A second batch collected elsewhere does not change how the first one was counted."""
    trace, placement, attention = inputs(4, tokens=21)

    class Leaves:
        name = "leaves"
        origin_share = collector_share = None

        def origin_gpu(self, tokens: int) -> Any:
            return attention.origin_gpu(tokens)

        def collector_gpu(self, tokens: int) -> Any:
            return attention.origin_gpu(tokens) if tokens == 10 else attention.collector_gpu(tokens)

    for mode in MODES:
        both = stream_exchange(
            [trace.topk[:10], trace.topk[10:]],
            placement,
            Leaves(),  # type: ignore[arg-type]
            sizes=SIZES,
            mode=mode,
        )
        total = [as_dense(both.dispatch, both.combine)]
        for topk, collector in (
            (trace.topk[:10], attention.origin),
            (trace.topk[10:], attention.collector),
        ):
            part = RoutingTrace(topk, 16, np.array([len(topk)]), "test")
            there = fixed_attention(attention.origin, collector)
            one = exchange(part, placement, there, sizes=SIZES, mode=mode)
            total.append(as_dense(one.dispatch, one.combine))
        assert np.array_equal(total[0], total[1] + total[2])
        assert not np.array_equal(total[0], total[1])


def as_dense(*directions: Any) -> np.ndarray:
    """int64 [stages, layers, gpus, gpus] of the 10-GPU inputs."""
    stages = [each for direction in directions for each in direction]
    table = np.zeros((len(stages), 3, 10, 10), int)
    for row, each in zip(table, stages, strict=True):
        row[each.layer_of_row, each.src, each.dst] = each.count
    return table


def test_bad_chunks_are_refused(inputs: Callable[..., Any]) -> None:
    """Ids outside the experts or twice in a token, other shapes, and nothing at all."""
    trace, placement, attention = inputs(0)
    good = trace.topk[:10]
    twice, outside, negative = good.copy(), good.copy(), good.astype(np.int16)
    twice[4, 1, 2] = twice[4, 1, 0]
    outside[7, 2, 3] = 16
    negative[0, 0, 0] = -1
    for chunks, message in (
        ([good, twice], r"token 14: expected distinct experts of 0\.\.15"),
        ([good, outside], "token 17: expected distinct"),
        ([negative], "token 0: expected distinct"),
        ([good[:, :2]], r"chunk at token 0: uint8 \(10, 2, 4\), expected integer ids"),
        ([good.astype(float)], "chunk at token 0: float64"),
        ([], "the trace has no tokens"),
    ):
        with pytest.raises(SimulationError, match=message):
            stream_exchange(chunks, placement, attention, sizes=SIZES)
