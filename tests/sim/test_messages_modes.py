"""Dispatch modes and replica rules against loops, laws and published figures."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exchange_twin import of, slow_exchange
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import DataParallel, Pipelined, Placement
from sim import MessageSizes, SimulationError
from sim.messages import MODES, REPLICA_RULES, exchange, pairs, replay
from workloads import MoEModel, draw_trace, model

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = MessageSizes(dispatch_bytes=100, combine_bytes=200)


def with_replicas(placement: Placement, seed: int, more: int = 20) -> Placement:
    """Put random experts into slots that are added on random GPUs."""
    rng = np.random.default_rng(seed)
    extra = [rng.integers(0, size, more) for size in (placement.layers, placement.gpus)]
    return replace(
        placement,
        slot_layer=np.append(placement.slot_layer, extra[0]),
        slot_gpu=np.append(placement.slot_gpu, extra[1]),
        slot_expert=np.append(placement.slot_expert, rng.integers(0, placement.experts, more)),
    )


def random_options(placement: Placement, seed: int) -> dict[str, Any]:
    """Distances with ties, parts of which some are 0, and a seed."""
    rng = np.random.default_rng(seed)
    servers = placement.servers
    weight = rng.integers(0, 4, (servers, len(placement.slot_layer))).astype(float)
    flat = placement.slot_layer * placement.experts + placement.slot_expert
    # The first slot of an expert takes at least something.
    weight[:, np.unique(flat, return_index=True)[1]] += 1
    parts = np.array([row / np.bincount(flat, row)[flat] for row in weight])
    return {"server_distance": rng.integers(0, 3, (servers, servers)), "parts": parts, "seed": seed}


@given(
    st.integers(0, 10**6),
    st.sampled_from(MODES),
    st.sampled_from(REPLICA_RULES),
    st.sampled_from([None, (), (1, 4, 9)]),
)
@settings(max_examples=60, deadline=None)
def test_everything_equals_the_count_one_by_one(
    inputs: Callable[..., Any], seed: int, mode: Any, rule: str, copies: tuple[int, ...] | None
) -> None:
    """Every mode and rule, without shared experts, with two of them per server or where told."""
    trace, placement, attention = inputs(seed)
    placement = with_replicas(placement, seed)
    options = random_options(placement, seed) | {"mode": mode, "replica_rule": rule}
    if copies is not None:
        options |= {"shared": "routed", "shared_experts": 2, "shared_gpus": copies or None}
    found = of(exchange(trace, placement, attention, sizes=SIZES, **options))
    assert found == slow_exchange(trace, placement, attention, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rule", REPLICA_RULES)
def test_the_twin_tells_wrong_from_right(inputs: Callable[..., Any], mode: Any, rule: str) -> None:
    """A twin of another mode, of another rule or of another token disagrees."""
    trace, placement, attention = inputs(1, tokens=40)
    placement = with_replicas(placement, 1)
    options = random_options(placement, 1)
    found = of(
        exchange(trace, placement, attention, sizes=SIZES, mode=mode, replica_rule=rule, **options)
    )
    for other_mode, other_rule in product(MODES, REPLICA_RULES):
        if (other_mode, other_rule) != (mode, rule):
            wrong = slow_exchange(
                trace, placement, attention, mode=other_mode, replica_rule=other_rule, **options
            )
            assert found != wrong
    less = slow_exchange(
        trace.head(39), placement, attention, mode=mode, replica_rule=rule, **options
    )
    assert found != less


@given(st.integers(0, 10**6), st.sampled_from(MODES), st.sampled_from(["dp", "tp", "pipelined"]))
@settings(max_examples=40, deadline=None)
def test_laws_of_the_counts(
    inputs: Callable[..., Any], seed: int, mode: Any, attention_kind: str
) -> None:
    """Totals of every stage, in and out of a GPU, and the way back mirrors the way out."""
    trace, placement, _ = inputs(seed)
    attention = {
        "dp": DataParallel(3, 5, 2),
        "tp": DataParallel(3, 5, 2, tp=5),
        "pipelined": Pipelined(3, 5, 2),
    }[attention_kind]
    both = exchange(trace, with_replicas(placement, seed), attention, sizes=SIZES, mode=mode)
    totals = {
        "per_expert": [20 * 3 * 4],
        "per_gpu": [both.distinct_gpus],
        "per_server": [both.distinct_servers, both.distinct_gpus],
        "allgather": [20 * 3 * 5, 20 * 3 * 10],
    }[mode]
    assert [int(each.count.sum()) for each in both.dispatch] == totals
    assert [int(each.count.sum()) for each in both.combine] == totals[::-1]
    assert both.slot_tokens.sum() == 20 * 3 * 4
    assert both.origin_tokens.sum(axis=1).tolist() == [20] * 3
    assert not both.shared_tokens.any()
    for each in (*both.dispatch, *both.combine):
        key = (each.layer_of_row * 10 + each.src) * 10 + each.dst
        assert (np.diff(key) > 0).all()
        assert (each.count > 0).all()
    if len(totals) == 2:  # across servers on one rail, then inside a server
        out, inside = both.dispatch
        assert (out.src % 2 == out.dst % 2).all()
        assert (inside.src // 2 == inside.dst // 2).all()
    if attention_kind != "pipelined":
        for out, back in zip(both.dispatch, reversed(both.combine), strict=True):
            mirrored = np.lexsort((back.src, back.dst, back.layer_of_row))
            assert np.array_equal(back.src[mirrored], out.dst)
            assert np.array_equal(back.dst[mirrored], out.src)
            assert np.array_equal(back.count[mirrored], out.count)


@pytest.mark.parametrize("mode", MODES)
def test_lists_of_pairs_equal_the_table(
    inputs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """Clusters too large for a table of pairs, and blocks of few tokens, count the same."""
    trace, placement, attention = inputs(5, tokens=50)
    arguments = (trace, with_replicas(placement, 5), attention)
    table = of(exchange(*arguments, sizes=SIZES, mode=mode))
    monkeypatch.setattr(pairs, "MAX_TABLE_BYTES", 0)
    monkeypatch.setattr(replay, "BLOCK", 7)
    lists = exchange(*arguments, sizes=SIZES, mode=mode)
    assert of(lists) == table
    for each in (*lists.dispatch, *lists.combine):
        assert (np.diff((each.layer_of_row * 10 + each.src) * 10 + each.dst) > 0).all()


def test_sizes_of_deepep_normal_kernels() -> None:
    """7472 and 14384 bytes at hidden 7168 and k 8 (FACTS section 3, DeepEP normal kernels)."""
    # align16(7168 + 8 + 4 * 56 + 64) = align16(7464); align16(14336 + 8 + 32) = align16(14376)
    for mode in ("per_gpu", "per_server", "allgather"):
        assert MessageSizes.from_model(model("DeepSeek-R1"), mode) == MessageSizes(7472, 14384)


def gpus_in_a_row(layers: int, experts: int, gpus: int, width: int) -> Placement:
    """Place equal runs of experts on the GPUs."""
    layer, expert = np.divmod(np.arange(layers * experts), experts)
    return Placement(
        "test", layers, experts, gpus, width, layer, expert * gpus // experts, expert, "contiguous"
    )


@pytest.mark.parametrize(
    ("experts", "k", "gpus", "published"),
    [
        (64, 8, 4, 3.659),
        (64, 6, 4, 3.345),
        (256, 8, 8, 5.295),
        (256, 8, 32, 7.267),
        (256, 8, 64, 7.676),
    ],
)
def test_distinct_destinations_of_uniform_routing(
    experts: int, k: int, gpus: int, published: float
) -> None:
    """G (1 - C(E-E/G, k) / C(E, k)) copies a token (FACTS section 2), counted as messages."""
    shape = MoEModel("test", 8, tuple(range(8)), experts, k, 0, 8, 8)
    exact = gpus * (1 - comb(experts - experts // gpus, k) / comb(experts, k))
    assert exact == pytest.approx(published, abs=5e-4)
    load = np.full((8, experts), 1 / experts)
    trace = draw_trace(load, shape, 8192, np.random.default_rng(0))
    both = exchange(
        trace,
        gpus_in_a_row(8, experts, gpus, 4),
        DataParallel(8, gpus // 4, 4),
        sizes=SIZES,
        mode="per_gpu",
    )
    # 65,536 draws whose standard deviation is below 1: 5 / 256 is five of the mean's.
    assert both.dispatch[0].count.sum() / 65536 == pytest.approx(exact, abs=5 / 256)


def test_group_limited_routing_reaches_fewer_gpus() -> None:
    """R1, a group a GPU: 3.629 of 8 GPUs, 3.175 of them not the token's own (FACTS section 2)."""
    shape, layers = model("DeepSeek-R1"), 58
    load = np.full((layers, 256), 1 / 256)
    trace = draw_trace(load, shape, 2048, np.random.default_rng(0))
    both = exchange(
        trace,
        gpus_in_a_row(layers, 256, 8, 8),
        DataParallel(layers, 1, 8),
        sizes=SIZES,
        mode="per_gpu",
    )
    sent, tokens = both.dispatch[0], 2048 * layers
    # 118,784 draws whose standard deviation is below 1: 5 / 344 is five of the mean's.
    assert sent.count.sum() / tokens == pytest.approx(3.629, abs=5 / 344)
    remote = sent.count[sent.src != sent.dst].sum()
    assert remote / tokens == pytest.approx(3.175, abs=5 / 344)


def test_the_communication_bound_of_a_layer() -> None:
    """32 tokens to 9 experts, 3 B a value of 7000: 120.96 us at 50 GB/s (FACTS section 2)."""
    rng = np.random.default_rng(0)
    shape = MoEModel("test", 1, (0,), 256, 8, 1, 7000, 8)
    trace = draw_trace(np.full((1, 256), 1 / 256), shape, 32, rng)

    class One(DataParallel):
        def origin_gpu(self, tokens: int) -> np.ndarray:
            return np.zeros((1, tokens), np.int32)

    placement = replace(gpus_in_a_row(1, 256, 2, 1), slot_gpu=np.ones(256, np.int32))
    both = exchange(
        trace,
        placement,
        One(1, 2, 1),
        sizes=MessageSizes(7000, 14000),
        shared="routed",
        shared_experts=1,
        shared_gpus=[1],
    )
    sent = sum(int(each.size_bytes.sum()) for each in (*both.dispatch, *both.combine))
    assert sent / 50e9 == pytest.approx(120.96e-6, rel=1e-12)
    assert both.shared_tokens.tolist() == [[0, 32]]


def test_bad_options_are_refused(inputs: Callable[..., Any]) -> None:
    """One line says what was given, what is allowed and what is missing."""
    trace, placement, attention = inputs(0)
    placement = with_replicas(placement, 0)
    slots = len(placement.slot_layer)
    for options, message in (
        ({"mode": "per_rack"}, "unknown dispatch mode 'per_rack'; allowed: per_expert, per_gpu"),
        ({"replica_rule": "best"}, "unknown replica rule 'best'; allowed: equal, nearest, lp"),
        ({"shared": "gone"}, "unknown way to serve shared experts 'gone'; allowed: replicated"),
        ({"shared": "routed"}, "shared_experts is 0; expected 1 or more"),
        ({"shared_experts": -1}, "must be 0 or more, got -1"),
        ({"replica_rule": "nearest"}, r"needs server_distance of shape \(5, 5\), got none"),
        ({"replica_rule": "lp"}, r"needs parts \[servers, slots\]"),
        ({"replica_rule": "lp", "parts": np.ones((5, 2))}, rf"expected \(5, {slots}\)"),
        ({"replica_rule": "lp", "parts": np.ones((5, slots))}, "server 0, layer 0, expert .* sum"),
        (
            {"shared": "routed", "shared_experts": 1, "shared_gpus": [3, 3]},
            r"shared_gpus \[3, 3\]: expected distinct GPUs of 0\.\.9",
        ),
        ({"shared": "routed", "shared_experts": 1, "shared_gpus": [10]}, r"GPUs of 0\.\.9"),
    ):
        with pytest.raises(SimulationError, match=message):
            exchange(trace, placement, attention, sizes=SIZES, **options)  # type: ignore[arg-type]
    with pytest.raises(SimulationError, match="unknown dispatch mode 'x'"):
        MessageSizes.from_model(model("DeepSeek-R1"), "x")  # type: ignore[arg-type]
