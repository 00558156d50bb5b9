"""Traces drawn from loads: exact marginals, group limits, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import (
    MoEModel,
    SyntheticWorkload,
    WorkloadError,
    draw_trace,
    inclusion_probabilities,
    model,
    read_logical_count,
)
from workloads import _kernels as kernels
from workloads._waterfill import water_fill
from workloads.sampling import stages

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def _shape(
    experts: int, top_k: int, *, layers: int = 1, groups: tuple[int, int] | None = None
) -> MoEModel:
    return MoEModel(
        name="shape",
        hidden_layers=layers,
        moe_layers=tuple(range(layers)),
        experts=experts,
        top_k=top_k,
        shared_experts=0,
        hidden=1,
        moe_intermediate=1,
        n_group=groups[0] if groups else None,
        topk_group=groups[1] if groups else None,
    )


def _chosen(topk: NDArray[Any], experts: int) -> NDArray[np.int64]:
    """Return how many tokens chose each expert, [layers, experts]."""
    layers = topk.shape[1]
    rows = [np.bincount(topk[:, layer].ravel(), minlength=experts) for layer in range(layers)]
    return np.array(rows)


def _scores(topk: NDArray[Any], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard scores of the counts; tokens are independent, so they are binomial."""
    tokens = len(topk)
    spread = np.sqrt(tokens * wanted * (1 - wanted))
    scores: NDArray[np.float64] = (_chosen(topk, wanted.shape[1]) - tokens * wanted) / spread
    return scores


def test_marginals_of_an_ungrouped_model_are_k_times_load() -> None:
    """All 27 x 64 inclusion counts lie within 5.5 standard deviations (p < 1e-4 in all)."""
    shape = model("DeepSeekMoE-16B")
    load = SyntheticWorkload(shape, 3).load
    topk = draw_trace(load, shape, 20_000, np.random.default_rng(11)).topk
    scores = _scores(topk, shape.top_k * load)
    assert np.abs(scores).max() < 5.5
    # Scores of a layer sum to nearly 0, so their mean square is a hair below 1.
    assert (scores**2).mean() == pytest.approx(1.0, abs=0.15)


def test_marginals_of_a_grouped_model_are_k_times_load() -> None:
    """All 58 x 256 inclusion counts of R1 lie within 6.5 standard deviations of k * load."""
    shape = model("DeepSeek-R1")
    load = SyntheticWorkload(shape, 3).load
    topk = draw_trace(load, shape, 4096, np.random.default_rng(12)).topk
    assert inclusion_probabilities(load, shape)[1] < 1e-12
    scores = _scores(topk, shape.top_k * load)
    assert np.abs(scores).max() < 6.5
    assert (scores**2).mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.real_data
def test_recorded_r1_loads_are_met_under_group_limits(real_data: Path) -> None:
    """Groups that every token must use (4 * load above 1) do not spoil recorded marginals."""
    shape = model("DeepSeek-R1")
    file = real_data / "deepseek-r1-loads" / "decode_in1000out1000.json"
    load = read_logical_count(file, shape).load
    assert (4 * load.reshape(58, 8, 32).sum(axis=2) > 1).any()
    assert inclusion_probabilities(load, shape)[1] < 1e-12
    topk = draw_trace(load, shape, 4096, np.random.default_rng(13)).topk
    scores = _scores(topk, shape.top_k * load)
    assert np.abs(scores).max() < 6.5
    assert (scores**2).mean() == pytest.approx(1.0, abs=0.05)


def test_sequential_weighted_draws_miss_the_marginals() -> None:
    """Drawing by weight without replacement takes the hot expert too rarely; the scores see it.

    Loads (1/2, 1/4, 1/4), k = 2: wanted are (1, 1/2, 1/2). Sequential draws take expert 0 with
    1/2 + 2 * 1/4 * (1/2) / (3/4) = 5/6 only.
    """
    load, tokens = np.array([0.5, 0.25, 0.25]), 3000
    rng = np.random.default_rng(5)
    drawn = np.array([rng.choice(3, size=2, replace=False, p=load) for _ in range(tokens)])
    share = float((drawn == 0).any(axis=1).mean())
    # Standard deviation sqrt(5/6 * 1/6 / 3000) = 0.0068.
    assert share == pytest.approx(5 / 6, abs=5 * 0.0068)
    others = np.array([[0.96, 0.5, 0.5, 0.04]])
    sequential = np.array(
        [rng.choice(4, size=2, replace=False, p=others[0] / 2) for _ in range(tokens)]
    )
    assert np.abs(_scores(sequential[:, None, :], others)).max() > 20
    ours = draw_trace(load[None, :], _shape(3, 2), tokens, rng).topk
    assert _chosen(ours, 3)[0, 0] == tokens
    systematic = draw_trace(others / 2, _shape(4, 2), tokens, rng).topk
    assert np.abs(_scores(systematic, others)).max() < 5


def _slow_pick(
    rng: np.random.Generator, items: list[int], weight: list[Fraction], wanted: int
) -> list[int]:
    """Return the items on which the points u, u+1, ... fall, in exact arithmetic."""
    point = Fraction(rng.random())
    end = Fraction(0)
    found: list[int] = []
    waiting = list(items)
    for place in range(len(items)):
        other = place + int(rng.random() * (len(items) - place))
        waiting[place], waiting[other] = waiting[other], waiting[place]
        start, end = end, end + weight[waiting[place]]
        if start <= point + len(found) < end:
            found.append(waiting[place])
            if len(found) == wanted:
                break
    items[:] = waiting
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12), st.data())
def test_kernel_equals_its_readable_twin(seed: int, count: int, data: st.DataObject) -> None:
    """The compiled walk picks what exact fractions pick from the same random numbers."""
    wanted = data.draw(st.integers(1, count - 1))
    raw = np.random.default_rng(seed).random(count)
    # Multiples of 2**-20 keep float sums exact; the first item absorbs what is left.
    weight = np.round(water_fill(raw, wanted, 0.999) * 2**20) / 2**20
    slack = wanted - weight.sum()
    weight[int(np.argmin(weight))] += slack
    order, picks = np.arange(count), np.empty(wanted, np.int64)
    kernels.pick(np.random.default_rng(seed + 1), order, count, weight, picks)
    slow = _slow_pick(
        np.random.default_rng(seed + 1), list(range(count)), [*map(Fraction, weight)], wanted
    )
    assert picks.tolist() == slow


def test_twin_notices_a_wrong_weight() -> None:
    """The readable twin disagrees with a kernel that is fed other weights."""
    fast, slow = [], []
    for seed in range(50):
        picks = np.empty(1, np.int64)
        kernels.pick(np.random.default_rng(seed), np.arange(2), 2, np.array([0.9, 0.1]), picks)
        fast.append(picks.tolist())
        half = [Fraction(1, 2)] * 2
        slow.append(_slow_pick(np.random.default_rng(seed), [0, 1], half, 1))
    assert fast != slow


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_rounding_never_costs_a_choice(seed: int) -> None:
    """Weights that fall short of k still give k distinct experts of positive weight."""
    weight = np.array([0.5, 0.0, 0.5, 0.5, 0.49, 0.0])
    picks = np.empty(2, np.int64)
    kernels.pick(np.random.default_rng(seed), np.arange(6), 6, weight, picks)
    assert len(set(picks.tolist())) == 2
    assert set(picks.tolist()) <= {0, 2, 3, 4}


def _random_load(rng: np.random.Generator, shape: MoEModel, sigma: float) -> NDArray[np.float64]:
    """Return loads of any skew with every k * load at most 1."""
    raw = rng.lognormal(sigma=sigma, size=(shape.layers, shape.experts))
    return np.array([water_fill(row, 1.0, 1.0 / shape.top_k) for row in raw])


@given(
    st.sampled_from([(2, 3, 1), (4, 2, 2), (3, 4, 2), (8, 4, 4), (5, 3, 3)]),
    st.floats(0.0, 3.0),
    st.integers(0, 2**32),
    st.data(),
)
@settings(deadline=None)
def test_weights_of_any_groups_taken_sum_to_k(
    groups: tuple[int, int, int], sigma: float, seed: int, data: st.DataObject
) -> None:
    """Whichever groups are taken, their weights lie in 0..1 and sum to k: always k choices."""
    count, size, used = groups
    top_k = data.draw(st.integers(1, used * size))
    shape = _shape(count * size, top_k, groups=(count, used))
    load = _random_load(np.random.default_rng(seed), shape, sigma)
    design = stages(load, shape)
    assert design.weight.min() >= 0
    assert design.weight.max() <= 1
    assert design.group_weight.sum() == pytest.approx(used)
    sums = design.weight.reshape(count, size).sum(axis=1)
    certain = {g for g in range(count) if design.group_weight[0, g] == 1.0}
    for taken in combinations(range(count), used):
        if certain <= set(taken):
            assert sum(sums[g] for g in taken) == pytest.approx(top_k, rel=1e-9)
    achieved, deviation = inclusion_probabilities(load, shape)
    assert achieved.sum() == pytest.approx(top_k, rel=1e-9)
    if design.weight.max() < 1:
        assert deviation < 1e-9


def test_group_limits_that_forbid_the_marginals_report_the_deviation(grouped: MoEModel) -> None:
    """Two choices from one group of two take both of its experts, whatever the loads.

    k * load is (0.9, 0.1, 0.5, 0.5): both groups weigh 1/2, so every expert comes with
    probability 1/2, and 0.4 is the greatest miss.
    """
    load = np.array([[0.45, 0.05, 0.25, 0.25]])
    achieved, deviation = inclusion_probabilities(load, grouped)
    assert achieved == pytest.approx(np.full((1, 4), 0.5))
    assert deviation == pytest.approx(0.4)
    topk = draw_trace(load, grouped, 4000, np.random.default_rng(2)).topk
    assert np.abs(_scores(topk, achieved)).max() < 5
    assert np.abs(_scores(topk, 2 * load)).max() > 20


def test_excess_goes_to_the_same_group(grouped: MoEModel) -> None:
    """A capped weight passes what it cannot take to its group, in proportion to load.

    Groups of 3, k = 2, one group a token, k * load (0.8, 0.12, 0.08 | 0.4, 0.3, 0.3): each group
    weighs 1/2, weights are twice these: 1.6 is cut to 1, and 0.6 goes 3:2 to the two others,
    0.24 + 0.36 = 0.6 and 0.16 + 0.24 = 0.4. Achieved are halves of that.
    """
    shape = replace(grouped, experts=6)
    load = np.array([[0.4, 0.06, 0.04, 0.2, 0.15, 0.15]])
    achieved, deviation = inclusion_probabilities(load, shape)
    assert achieved[0] == pytest.approx([0.5, 0.3, 0.2, 0.4, 0.3, 0.3])
    assert deviation == pytest.approx(0.3)


def test_a_token_uses_at_most_its_groups() -> None:
    """The 8 choices of an R1 token come from at most 4 of the 8 groups of 32."""
    shape = model("DeepSeek-R1")
    topk = SyntheticWorkload(shape, 1).trace(300).topk
    used = (topk[..., None] // 32 == np.arange(8)).any(axis=2).sum(axis=2)
    assert used.max() == 4
    assert np.ptp(used) > 0


@pytest.mark.parametrize(("grouped_routing", "published"), [(True, 3.629), (False, 5.295)])
def test_distinct_destinations_of_uniform_routing(grouped_routing: bool, published: float) -> None:
    """Mean distinct runs of 32 experts equal G * (1 - C(E-E/G, k) / C(E, k)).

    5.295 of 8 for E = 256, k = 8; with top-4 of 8 groups it is that formula for the 4 groups
    taken, E = 128: 3.629. Bound: 5 standard errors of the sample.
    """
    shape = model("DeepSeek-R1")
    if not grouped_routing:
        shape = replace(shape, n_group=None, topk_group=None)
    groups, reach = (4, 128) if grouped_routing else (8, 256)
    exact = groups * (1 - comb(reach - 32, 8) / comb(reach, 8))
    assert exact == pytest.approx(published, abs=5e-4)
    load = np.full((58, 256), 1 / 256)
    topk = draw_trace(load, shape, 1000, np.random.default_rng(7)).topk
    distinct = (topk[..., None] // 32 == np.arange(8)).any(axis=2).sum(axis=2)
    error = distinct.std() / np.sqrt(distinct.size)
    assert distinct.mean() == pytest.approx(exact, abs=5 * error)


def test_the_order_of_a_tokens_choices_is_random() -> None:
    """Every one of the k places has the loads as its distribution (5 standard deviations)."""
    shape = _shape(5, 3)
    load = np.array([[0.32, 0.28, 0.2, 0.15, 0.05]])
    topk = draw_trace(load, shape, 20_000, np.random.default_rng(9)).topk
    for place in range(3):
        assert np.abs(_scores(topk[:, :, place : place + 1], load)).max() < 5


def test_hot_expert_is_refused_by_layer_and_expert() -> None:
    """A load above 1/k cannot be met by distinct choices; the line says where and how much."""
    load = np.array([[0.25] * 4, [0.1, 0.1, 0.6, 0.2]])
    with pytest.raises(WorkloadError) as caught:
        draw_trace(load, _shape(4, 2, layers=2), 5, np.random.default_rng(0))
    message = "MoE layer 1 (layer 1 of shape), expert 2: inclusion probability 2 x 0.6 = 1.2"
    assert message in str(caught.value)


def test_every_expert_when_k_is_all_of_them() -> None:
    """With k = E the only load is uniform, and every token takes every expert."""
    topk = draw_trace(np.full((1, 3), 1 / 3), _shape(3, 3), 20, np.random.default_rng(0)).topk
    assert np.sort(topk, axis=2).tolist() == [[[0, 1, 2]]] * 20


def test_experts_and_groups_without_load_are_never_chosen() -> None:
    """Load zero means never, also where fewer groups than allowed are in use."""
    shape = _shape(6, 2, groups=(3, 2))
    load = np.array([[0.5, 0.5, 0.0, 0.0, 0.0, 0.0]])
    topk = draw_trace(load, shape, 50, np.random.default_rng(0)).topk
    assert set(topk.ravel().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ([[0.5, 0.5]], r"shape \(1, 2\), tiny has \(2, 4\)"),
        ([[0.25] * 4, [0.25, 0.25, 0.25, 0.2]], "layer 1 sums to"),
        ([[0.25] * 4, [np.nan, 0.5, 0.25, 0.25]], "layer 1, expert 0 is nan"),
    ],
)
def test_bad_loads_are_refused(tiny: MoEModel, load: Any, expected: str) -> None:
    """Loads are checked against the model before anything is drawn."""
    with pytest.raises(WorkloadError, match=expected):
        draw_trace(np.array(load), tiny, 5, np.random.default_rng(0))


def test_bad_lengths_are_refused(tiny: MoEModel) -> None:
    """A trace has at least one token and sequences at least one token each."""
    load = np.full((2, 4), 0.25)
    with pytest.raises(WorkloadError, match="cannot draw 0 tokens"):
        draw_trace(load, tiny, 0, np.random.default_rng(0))
    with pytest.raises(WorkloadError, match="seq_len is 0"):
        draw_trace(load, tiny, 5, np.random.default_rng(0), seq_len=0)


def test_sequences_have_the_length_asked_for(tiny: MoEModel) -> None:
    """Ten tokens in fours are 4, 4 and 2; without a length they are one sequence."""
    load = np.full((2, 4), 0.25)
    cut = draw_trace(load, tiny, 10, np.random.default_rng(0), seq_len=4, source="here")
    assert (cut.seq_lens.tolist(), cut.source) == ([4, 4, 2], "here")
    assert draw_trace(load, tiny, 10, np.random.default_rng(0)).seq_lens.tolist() == [10]


def test_a_longer_trace_begins_with_the_shorter_one(tiny: MoEModel) -> None:
    """Tokens do not depend on how many follow, and equal seeds give equal traces."""
    load = np.full((2, 4), 0.25)
    short = draw_trace(load, tiny, 7, np.random.default_rng(4)).topk
    long = draw_trace(load, tiny, 50, np.random.default_rng(4)).topk
    assert np.array_equal(short, long[:7])
    assert not np.array_equal(short, draw_trace(load, tiny, 7, np.random.default_rng(5)).topk)


@settings(deadline=None)
@given(
    st.lists(st.floats(0.0, 1e300) | st.just(5e-324), min_size=1, max_size=8).filter(any),
    st.floats(0.0, 1.0),
)
def test_water_fill_caps_and_keeps_the_total(weights: list[float], fraction: float) -> None:
    """Shares sum to the total, none exceeds the cap, heavier never gets less."""
    total = fraction * len(weights)
    filled = water_fill(np.array(weights), total, 1.0)
    assert filled.min() >= 0
    assert filled.max() <= 1
    assert filled.sum() == pytest.approx(total, rel=1e-9, abs=1e-300)
    assert (np.diff(filled[np.argsort(weights, kind="stable")]) >= -1e-12).all()


def test_water_fill_by_hand() -> None:
    """Weights (6, 3, 1) to total 2, cap 1: 6 is cut; 3:1 share the other 1 as 3/4, 1/4."""
    assert water_fill(np.array([6.0, 3.0, 1.0]), 2.0, 1.0).tolist() == [1.0, 0.75, 0.25]
    # Both positive weights are full: the rest goes evenly to the two without weight.
    assert water_fill(np.array([1.0, 1.0, 0.0, 0.0]), 3.0, 1.0).tolist() == [1.0, 1.0, 0.5, 0.5]
