"""Topics: exact marginals, what they tie together, and a twin of the compiled chain."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import (
    LoadCurve,
    MoEModel,
    SyntheticWorkload,
    Topics,
    WorkloadError,
    count_trace,
    model,
    stream,
    trace_statistics,
)
from workloads._kernels import choose
from workloads.topic_sampling import TopicSampler
from workloads.topics import topic_loads

SMALL = MoEModel("small", 3, (0, 1, 2), 12, 3, 0, 8, 8)
GROUPED = replace(SMALL, n_group=4, topk_group=2)
CURVE = LoadCurve(tuple(np.linspace(-1.5, 1.0, 12).tolist()))
EVERYTHING = Topics(
    count=8,
    strength=2.0,
    affinity=0.8,
    home=0.3,
    seq_len=20,
    domains=(("code", 0.25), ("law", 0.75)),
    domain_separation=0.6,
    decode_share=0.4,
    phase_separation=0.5,
)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.floats(0, 8), st.integers(0, 2**32), st.integers(2, 4))
def test_topics_average_to_the_loads(count: int, strength: float, seed: int, top_k: int) -> None:
    """Their loads sum to 1, stay below the cap, and mean to the loads by how common they are."""
    rng = np.random.default_rng(seed)
    load = rng.random((3, 10)) + 0.3
    load /= load.sum(axis=1, keepdims=True)
    cap = (1 / top_k + load.max()) / 2
    loads = topic_loads(load, Topics(count=count, strength=strength), rng, cap=cap)
    assert loads.sum(axis=2) == pytest.approx(np.ones((count, 3)), abs=1e-9)
    assert loads.max() <= cap * (1 + 1e-9)
    # Steep topics converge slowly: what is left is said by `deviation`.
    assert np.abs(loads.mean(axis=0) - load).max() < (1e-6 if strength < 2 else 2e-2)


@pytest.mark.parametrize("shape", [SMALL, GROUPED], ids=["free", "grouped"])
def test_marginals_are_the_loads(shape: MoEModel) -> None:
    """Under domains, phases, homes and group limits, experts come as often as loads say."""
    workload = SyntheticWorkload(shape, 1, CURVE, EVERYTHING)
    # Groups cannot take any loads: the deviation says how far off the chances are.
    limit = 1e-9 if shape is SMALL else 0.15
    assert workload.deviation < limit
    trace = workload.trace(60_000)
    found = np.array(
        [np.bincount(each.ravel(), minlength=12) for each in trace.topk.swapaxes(0, 1)]
    )
    # 3,000 sequences of 20 tokens that are tied together: sd below sqrt(1 / 4 / 3,000) = 0.0091.
    off = np.abs(found / trace.tokens - 3 * workload.load).max()
    assert off < workload.deviation + 4 * 0.0091
    if shape is GROUPED:
        groups = [len(set(token // 3)) for token in trace.topk[:500].reshape(-1, 3)]
        assert max(groups) <= 2


def _twin(sampler: TopicSampler, tokens: int, rng: np.random.Generator) -> tuple[Any, list[int]]:
    """Draw as the kernel does, the chain of topics in plain Python; return choices and domains."""
    topics, model_ = sampler.topics, sampler.model
    chances, sides = topics.chances(), topics.sides()

    def pick(weights: np.ndarray, point: float) -> int:
        reached = 0.0
        for i, weight in enumerate(weights):
            reached += weight
            if weight > 0 and reached > point * weights.sum():
                return i
        return int(np.flatnonzero(weights)[-1])

    groups = np.arange(sampler.design[0].shape[2])
    scratch = (
        groups,
        np.arange(model_.experts),
        groups.copy(),
        np.empty(model_.top_k, np.int64),
    )
    topk = np.empty((tokens, model_.layers, model_.top_k), np.uint16)
    start, domains, homes = rng.random(), [], [0, 0]
    for token in range(tokens):
        sequence, at = divmod(token, topics.seq_len)
        turn = 1 + sides * topics.drift * math.cos(2 * math.pi * token / topics.drift_tokens)
        if at == 0:
            golden = (math.sqrt(5) - 1) / 2
            domains.append(pick(topics.shares(), (start + sequence * golden) % 1))
            point = rng.random()
            homes = [pick(chances[domains[-1], phase] * turn, point) for phase in (0, 1)]
        phase = int(at >= topics.prefill_tokens)
        topic = None
        for layer in range(model_.layers):
            if topic is None or rng.random() >= topics.affinity:
                if rng.random() < topics.home:
                    topic = homes[phase]
                else:
                    topic = pick(chances[domains[-1], phase] * turn, rng.random())
            group, used, weight = (each[topic, layer] for each in sampler.design)
            choose(rng, (group, weight), used, scratch, topk[token, layer])
    return topk, domains


@pytest.mark.parametrize("shape", [SMALL, GROUPED], ids=["free", "grouped"])
def test_the_kernel_draws_what_its_twin_draws(shape: MoEModel) -> None:
    """Choice by choice, drift included; another affinity draws others."""
    topics = replace(EVERYTHING, drift=0.7, drift_tokens=90)
    load = SyntheticWorkload(shape, 0, CURVE).load
    sampler = TopicSampler.of(load, shape, topics, np.random.default_rng(1), cap=0.33)
    trace = sampler.draw(150, np.random.default_rng(2), source="made")
    topk, domains = _twin(sampler, 150, np.random.default_rng(2))
    assert np.array_equal(trace.topk, topk)
    assert trace.domain is not None
    assert trace.domain.tolist() == domains
    other = TopicSampler(shape, replace(topics, affinity=0.5), *_rest(sampler))
    assert not np.array_equal(_twin(other, 150, np.random.default_rng(2))[0], topk)


def _rest(sampler: TopicSampler) -> tuple[Any, ...]:
    return sampler.design, sampler.included, sampler.deviation


def test_a_longer_trace_begins_with_the_shorter() -> None:
    """Streams do not depend on how many tokens are taken, nor on each other."""
    first, second = (SyntheticWorkload(SMALL, 5, CURVE, EVERYTHING) for _ in range(2))
    short = first.trace(33)
    assert second.profile(50).load.shape == (3, 12)
    long = second.trace(70)
    assert np.array_equal(long.topk[:33], short.topk)
    assert long.seq_lens.tolist() == [20, 20, 20, 10]
    assert not np.array_equal(
        SyntheticWorkload(SMALL, 6, CURVE, EVERYTHING).trace(33).topk, short.topk
    )


def test_labels() -> None:
    """The last tokens of a sequence are decoded, and domains take their shares of sequences."""
    trace = SyntheticWorkload(SMALL, 0, CURVE, EVERYTHING).trace(20 * 400)
    assert trace.phase is not None
    assert trace.phase[:20].tolist() == [0] * 12 + [1] * 8
    assert trace.domain is not None
    # Golden steps spread more evenly than chance would, which scatters by 8.7.
    assert abs(np.bincount(trace.domain).tolist()[0] - 100) <= 4
    assert trace.domain_names == ("code", "law")
    plain = SyntheticWorkload(SMALL, 0, CURVE, Topics(2, 1.0)).trace(10)
    assert plain.phase is None
    assert plain.domain is None


def _figures(topics: Topics, tokens: int = 16_000) -> Any:
    return trace_statistics(count_trace(SyntheticWorkload(SMALL, 2, CURVE, topics).trace(tokens)))


def test_each_parameter_moves_its_own_figure() -> None:
    """Strength ties pairs, affinity layers, separation kinds, home sequences, drift times."""
    plain = _figures(Topics(4, 0.0, seq_len=50))
    strong = Topics(4, 1.5, seq_len=50)
    tied = _figures(strong)
    assert tied.pair_excess > 5 * plain.pair_excess
    lasting = _figures(replace(strong, affinity=1))
    assert lasting.affinity_excess > 5 * tied.affinity_excess
    assert lasting.pair_excess == pytest.approx(tied.pair_excess, rel=0.1)
    at_home = _figures(replace(strong, home=0.5))
    assert at_home.design_effect > 2 * tied.design_effect
    drifting = _figures(replace(strong, drift=0.8, drift_tokens=32_000))
    assert drifting.drift_ends > 3 * tied.drift_ends
    # Half a turn leaves the loads of the whole trace as they were.
    assert drifting.gini == pytest.approx(tied.gini, rel=0.05)
    halves = (("a", 0.5), ("b", 0.5))
    for separation, low, high in ((0.0, 0.95, 1.0), (1.0, -1.0, 0.7)):
        apart = _figures(
            replace(
                strong,
                domains=halves,
                decode_share=0.5,
                domain_separation=separation,
                phase_separation=separation,
            )
        )
        assert low < apart.domain_correlation <= high
        assert low < apart.prefill_decode_correlation <= high


def test_chances() -> None:
    """By hand: two domains of two topics each, half separated, phases at 0.2.

    A topic of the domain has 1/2 x 1/4 + 1/2 x 1/2 = 3/8, another 1/8; x 1.2 or 0.8 by phase.
    """
    topics = Topics(
        4,
        domains=(("a", 0.5), ("b", 0.5)),
        domain_separation=0.5,
        decode_share=0.5,
        phase_separation=0.2,
        seq_len=10,
    )
    chance = np.array([[3, 1, 3, 1], [1, 3, 1, 3]]) / 8
    swing = np.array([1.2, 1.2, 0.8, 0.8])
    assert topics.chances()[:, 0] == pytest.approx(chance * swing)
    assert topics.chances()[:, 1] == pytest.approx(chance * (2 - swing))
    assert topics.common() == pytest.approx(np.full(4, 0.25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count is 0, expected 1..512"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"affinity": 1.1}, "affinity is 1.1, expected 0..1"),
        ({"home": -0.1}, "home is -0.1"),
        ({"seq_len": 0}, "seq_len is 0"),
        ({"decode_share": 2.0}, "decode_share is 2.0"),
        ({"drift": 1.5}, "drift is 1.5"),
        ({"drift_tokens": 0}, "drift_tokens is 0"),
        ({"domains": (("a", 0.5),)}, "summing to 1"),
        ({"domains": (("a", 0.5), ("a", 0.5))}, "different names"),
        ({"domains": (("a", 1.5), ("b", -0.5))}, "above 0"),
        ({"count": 3, "domains": (("a", 0.5), ("b", 0.5))}, "3 for 2 domains, expected two"),
    ],
)
def test_parameters_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    """Each is named with its range."""
    with pytest.raises(WorkloadError, match=message):
        Topics(**{"count": 8, **change})


def test_without_topics_there_is_nothing_to_ask_of() -> None:
    """Independent choices have no topics; no token is no trace."""
    with pytest.raises(WorkloadError, match="has no topics"):
        SyntheticWorkload(SMALL, 0, CURVE).sampled()
    with pytest.raises(WorkloadError, match="cannot draw 0 tokens"):
        SyntheticWorkload(SMALL, 0, CURVE, EVERYTHING).trace(0)


def test_group_limits_of_a_large_model() -> None:
    """DeepSeek-R1 with topics: a token never uses more than 4 of the 8 groups."""
    trace = SyntheticWorkload(model("DeepSeek-R1"), 0, topics=Topics(4, 2.0)).trace(64)
    groups = [len(set((token // 32).tolist())) for token in trace.topk.reshape(-1, 8)]
    assert max(groups) <= 4
    assert stream(0, "topics").random() != stream(0, "trace").random()
