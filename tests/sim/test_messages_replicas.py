"""Which replica tokens take: expected parts against counts, exact where the rule is."""

from __future__ import annotations

from fractions import Fraction
from math import log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exchange_twin import slow_mixed
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import DataParallel, Pipelined, Placement, PlacementProblem
from placement.replicas import RULES, ReplicaProblem, make_rule
from placement.replicas.rules import replica_flows
from sim import MessageSizes
from sim.messages import REPLICA_RULES, exchange
from sim.messages._message_kernel import (
    TURN,
    Replicas,
    add_up_parts,
    choose_replicas,
    guess_entries,
    mixed,
)
from workloads import ExpertProfile, MoEModel, RoutingTrace, draw_trace

if TYPE_CHECKING:
    from placement import Attention

SIZES = MessageSizes(dispatch_bytes=100, combine_bytes=200)
LAYERS, EXPERTS, SERVERS, K, TOKENS = 2, 8, 4, 4, 3000
MODEL = MoEModel("test", LAYERS, tuple(range(LAYERS)), EXPERTS, K, 0, 8, 8)
DISTANCE = np.array([[0, 2, 4, 4], [2, 0, 4, 4], [4, 4, 0, 2], [4, 4, 2, 0]])


def most_off(choices: int, every: int = 1) -> float:
    """Bound on how far counts of every so manieth choice are from their parts.

    Denjoy and Koksma: q steps of a rotation hit an interval to within 2 of q times its length,
    q the denominator of a convergent. Any number of steps is a sum of such q, each at most as
    often as the next partial quotient (Ostrowski).
    """
    step = Fraction(0x9E3779B97F4A7C15 * every % (1 << 64), 1 << 64)
    before, q, runs = 0, 1, 0
    while q <= choices and step:
        quotient, step = divmod(1 / step, 1)
        runs += min(quotient, choices // q)
        before, q = q, quotient * q + before
    return 2.0 * runs


def case(
    attention: Attention, width: int = 1, seed: int = 0
) -> tuple[RoutingTrace, Placement, ReplicaProblem]:
    """Draw a trace; the problem's profile is the trace's own; every expert has 1 to 3 replicas."""
    rng = np.random.default_rng(seed)
    load = rng.random((LAYERS, EXPERTS)) + 0.7
    trace = draw_trace(load / load.sum(axis=1, keepdims=True), MODEL, TOKENS, rng)
    gpus = SERVERS * width
    slots = [
        (layer, gpu, expert)
        for layer in range(LAYERS)
        for expert in range(EXPERTS)
        for gpu in rng.permutation(gpus)[: 1 + expert % 3]
    ]
    layer, gpu, expert = np.array(slots).T
    placement = Placement("test", LAYERS, EXPERTS, gpus, width, layer, gpu, expert, "random")
    problem = PlacementProblem.build(
        MODEL,
        DISTANCE,
        attention,
        ExpertProfile.from_trace(trace, keep_choices=True),
        gpus_per_server=width,
        layer_slots=EXPERTS,
    )
    return trace, placement, ReplicaProblem.of(problem, DISTANCE, attention)


def test_every_rule_has_its_replay() -> None:
    """What can be priced can be replayed, under the same names."""
    assert tuple(RULES) == REPLICA_RULES


@pytest.mark.parametrize("rule", REPLICA_RULES)
@pytest.mark.parametrize("seed", range(3))
def test_counts_agree_with_what_the_rule_expects(rule: str, seed: int) -> None:
    """Tokens of every slot against the priced flows of the same loads.

    All tokens of a layer start on one GPU (a GPU a server, pipelined), so that flows and counts
    know the same origins: ``vllm_modulo`` and ``sglang_static`` agree exactly, systematic rules
    to the bound, ``sglang_dynamic`` to Hoeffding's at 1e-9.
    """
    attention = Pipelined(LAYERS, SERVERS, 1)
    trace, placement, problem = case(attention, seed=seed)
    made = make_rule(rule)
    expected = replica_flows(placement, problem, made).sum(axis=0) * TOKENS * K
    both = exchange(
        trace,
        placement,
        attention,
        sizes=SIZES,
        replica_rule=rule,
        server_distance=DISTANCE,
        parts=made(placement, problem),
    )
    off = np.abs(both.slot_tokens - expected)
    bound = {
        "vllm_modulo": 1e-6,
        "sglang_static": 1e-6,
        "sglang_dynamic": sqrt(TOKENS * log(2 / 1e-9) / 2),
    }.get(rule, most_off(TOKENS))
    assert off.max() <= bound
    if rule not in ("vllm_modulo", "sglang_static"):
        assert off.max() > 0  # the bound is not met because nothing was drawn


def test_equal_rules_differ_in_how_they_draw() -> None:
    """Turns come nearer to equal parts than independent draws, and the wrong parts are far."""
    attention = DataParallel(LAYERS, SERVERS, 2)
    trace, placement, problem = case(attention, width=2)
    expected = replica_flows(placement, problem, make_rule("equal")).sum(axis=0) * TOKENS * K
    off = {}
    for rule in ("equal", "sglang_dynamic"):
        both = exchange(trace, placement, attention, sizes=SIZES, replica_rule=rule)
        off[rule] = np.abs(both.slot_tokens - expected).max()
    assert off["equal"] <= most_off(TOKENS) < off["sglang_dynamic"]
    nearest = exchange(
        trace,
        placement,
        attention,
        sizes=SIZES,
        replica_rule="nearest",
        server_distance=DISTANCE,
    )
    assert np.abs(nearest.slot_tokens - expected).max() > most_off(TOKENS)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=6).filter(any), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_systematic_draws_keep_to_the_parts(weight: list[int], seed: int) -> None:
    """Any parts, over all choices and over every second or eighth; zero parts never."""
    part = np.array([weight]) / sum(weight)
    tokens = 4000
    rng = np.random.default_rng(seed)
    size = len(weight)
    start = np.array([0, size])
    reach = add_up_parts(part, start)
    replicas = Replicas(
        start=start,
        gpu=np.arange(size, dtype=np.int32),
        row_of_gpu=np.zeros(size, np.int32),
        reach=reach,
        guess=guess_entries(reach, start, 16),
        phase=rng.integers(0, 1 << 64, (1, 1), np.uint64),
        draw=TURN,
        salt=np.uint64(0),
    )
    gpu = np.empty((tokens, 1), np.int32)
    taken, seen = np.zeros(size, np.int64), np.zeros(size, np.int64)
    topk = np.zeros((tokens, 1), np.uint8)
    topk.setflags(write=False)
    choose_replicas(topk, np.zeros(tokens, np.int32), replicas, gpu, taken, seen, 0)
    assert taken.tolist() == np.bincount(gpu[:, 0], minlength=size).tolist()
    assert (taken[part[0] == 0] == 0).all()
    assert np.abs(taken - tokens * part[0]).max() <= most_off(tokens)
    for every in (2, 8):  # as origins take turns
        for first in range(every):
            some = np.bincount(gpu[first::every, 0], minlength=size)
            off = np.abs(some - tokens / every * part[0]).max()
            assert off <= most_off(tokens // every, every)


def test_a_single_token_is_unbiased() -> None:
    """Over 4000 seeds the first token takes each of 2 replicas half of the time (5 deviations)."""
    trace = RoutingTrace(np.zeros((1, 1, 1), int), 1, np.array([1]), "test")
    placement = Placement("t", 1, 1, 2, 1, [0, 0], [0, 1], [0, 0], "t")  # type: ignore[arg-type]
    for rule in ("equal", "sglang_dynamic"):
        first = [
            exchange(
                trace,
                placement,
                DataParallel(1, 2, 1),
                sizes=SIZES,
                replica_rule=rule,
                seed=seed,
            ).slot_tokens[0]
            for seed in range(4000)
        ]
        # Standard deviation of the count: sqrt(4000) / 2 = 31.6.
        assert abs(int(np.sum(first)) - 2000) < 5 * 31.7


def test_parts_decide_and_rounding_does_not() -> None:
    """A replica whose part is zero takes nothing, though the others' parts sum to below 1."""
    thirds = np.array([[0.1] * 10 + [0.0]])
    reach = add_up_parts(thirds, np.array([0, 11]))
    assert thirds[0, :10].cumsum()[-1] < 1.0  # 0.9999999999999999: rounding
    assert reach[0, 8] < 1.0
    assert np.isinf(reach[0, 9:]).all()


def test_guesses_stop_at_or_before_the_entry() -> None:
    """Parts 1/4, 0, 3/4 in 8 cells: numbers below 2/8 take entry 0, all others entry 2."""
    start = np.array([0, 3])
    reach = add_up_parts(np.array([[0.25, 0.0, 0.75]]), start)
    assert guess_entries(reach, start, 8).tolist() == [[[0, 0, 2, 2, 2, 2, 2, 2]]]
    # One cell holds all numbers: the first entry that takes any.
    assert guess_entries(np.full((1, 3), np.inf), start, 1).tolist() == [[[0]]]
    assert guess_entries(np.array([[0.0, 0.0, np.inf]]), start, 1).tolist() == [[[2]]]


def test_a_rank_keeps_to_itself_under_sglang_static() -> None:
    """A rank that holds the expert serves its own tokens; each other rank keeps one replica."""
    attention = DataParallel(LAYERS, SERVERS, 2)
    trace, placement, _ = case(attention, width=2)
    both = exchange(trace, placement, attention, sizes=SIZES, replica_rule="sglang_static")
    held = {
        (layer, gpu, expert)
        for layer, gpu, expert in zip(
            placement.slot_layer.tolist(),
            placement.slot_gpu.tolist(),
            placement.slot_expert.tolist(),
            strict=True,
        )
    }
    own: Any = np.zeros((LAYERS, 8), int)
    origin = attention.origin_gpu(TOKENS)
    for layer in range(LAYERS):
        for token in range(TOKENS):
            gpu = int(origin[layer, token])
            own[layer, gpu] += sum(
                (layer, gpu, expert) in held for expert in trace.topk[token, layer].tolist()
            )
    sent = both.dispatch[0]
    stays = sent.src == sent.dst
    found = np.zeros_like(own)
    np.add.at(found, (sent.layer_of_row[stays], sent.src[stays]), sent.count[stays])
    assert found.tolist() == own.tolist()


def test_numbers_are_scattered_as_published() -> None:
    """SplitMix64 from seed 0: its first outputs (Vigna's splitmix64.c), compiled and by hand."""
    golden = 0x9E3779B97F4A7C15
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    for step, number in enumerate(published, 1):
        state = golden * step % (1 << 64)
        assert slow_mixed(state) == number
        assert int(mixed(np.uint64(state))) == number
