"""Statistics of recordings and what makes them doubtful."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import (
    ExpertProfile,
    LoadStatistics,
    RoutingTrace,
    StoredTrace,
    TraceWriter,
    correlations,
    count_trace,
    expected_pairs,
    lint_load,
    lint_trace,
    load_statistics,
    model,
    read_trace,
    total_variation,
    trace_statistics,
    window_distances,
)
from workloads.trace_statistics import load_variance

if TYPE_CHECKING:
    from pathlib import Path

EXPERTS, LAYERS, TOP_K = 7, 2, 3


def made(lengths: list[int], seed: int = 0, *, labels: bool = True) -> RoutingTrace:
    """Return a trace of uneven random choices, in two domains and both phases."""
    rng, tokens = np.random.default_rng(seed), sum(lengths)
    keys = rng.random((tokens, LAYERS, EXPERTS)) * np.arange(1, EXPERTS + 1)
    trace = RoutingTrace(
        topk=np.argsort(-keys, axis=2)[:, :, :TOP_K],
        experts=EXPERTS,
        seq_lens=np.array(lengths),
        source="made",
    )
    if not labels:
        return trace
    return replace(
        trace,
        phase=rng.integers(0, 2, tokens).astype(np.uint8),
        domain=np.arange(len(lengths)).astype(np.uint16) % 2,
        domain_names=("code", "law"),
    )


def test_counts_are_those_of_a_plain_loop() -> None:
    """Windows, phases, domains, pairs, followers and moments, token by token in Python."""
    lengths = [5, 1, 9, 4]
    trace = made(lengths)
    counts = count_trace(trace)
    windows, phases, domains, pairs, followers = (Counter() for _ in range(5))  # type: ignore[var-annotated]
    owner = [i for i, length in enumerate(lengths) for _ in range(length)]
    chosen = [Counter() for _ in lengths]  # type: ignore[var-annotated]
    for t, token in enumerate(trace.topk.tolist()):
        for layer, experts in enumerate(token):
            for e in experts:
                windows[t * 8 // 19, layer, e] += 1
                phases[int(trace.phase[t]), layer, e] += 1  # type: ignore[index]
                domains[owner[t] % 2, layer, e] += 1
                chosen[owner[t]][layer, e] += 1
                for other in experts:
                    pairs[layer, e, other] += 1
                if layer + 1 < LAYERS:
                    for other in token[layer + 1]:
                        followers[layer, e, other] += 1
    for array, expected in (
        (counts.windows, windows),
        (counts.phases, phases),
        (counts.domains, domains),
        (counts.pairs, pairs),
        (counts.followers, followers),
    ):
        assert array is not None
        assert array.sum() == sum(expected.values())
        assert all(array[place] == number for place, number in expected.items())
    for layer in range(LAYERS):
        for e in range(EXPERTS):
            squares = sum(own[layer, e] ** 2 for own in chosen)
            products = sum(own[layer, e] * n for own, n in zip(chosen, lengths, strict=True))
            assert counts.squares[:, layer, e].tolist() == [squares, products]
    assert counts.squared_lengths == sum(n * n for n in lengths)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 20))
def test_chunks_of_a_stored_trace_count_the_same(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], size: int
) -> None:
    """However a trace is cut, sequences cut with it, its counts are those of the whole."""
    trace, folder = made(lengths), tmp_path_factory.mktemp("counts") / "x.trace"
    with TraceWriter(
        folder, model="made", experts=EXPERTS, layers=LAYERS, top_k=TOP_K, source="made"
    ) as out:
        at = 0
        for i, length in enumerate(lengths):
            part = slice(at, at + length)
            assert trace.phase is not None
            out.append(trace.topk[part], phase=trace.phase[part], domain=["code", "law"][i % 2])
            at += length
    with pytest.MonkeyPatch.context() as patch:
        whole = StoredTrace.traces
        patch.setattr(StoredTrace, "traces", lambda self: whole(self, size))
        found = count_trace(StoredTrace.open(folder))
    expected = count_trace(trace)
    for name in ("windows", "phases", "pairs", "followers", "squares", "squared_lengths"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    if len(lengths) > 1:
        assert np.array_equal(found.domains, expected.domains)  # type: ignore[arg-type]
    assert trace_statistics(found) == trace_statistics(
        replace(expected, domain_names=found.domain_names)
    )


def test_pairs_of_a_long_trace_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fourth token where 19 tokens may count for 5 at most."""
    trace = made([19], labels=False)
    monkeypatch.setattr("workloads.trace_counts.PAIR_TOKENS", 5)
    counts = count_trace(trace)
    assert counts.pair_tokens == 5
    assert np.array_equal(counts.pairs, count_trace(_every(trace, 4)).pairs)
    assert counts.counts.sum() == trace.topk.size


def _every(trace: RoutingTrace, step: int) -> RoutingTrace:
    topk = trace.topk[::step]
    return RoutingTrace(topk, trace.experts, np.array([len(topk)]), "sampled")


def test_figures_of_loads_are_the_load_statistics() -> None:
    """Both summaries agree, and experts without load are counted, not refused."""
    load = np.random.default_rng(0).random((4, 16))
    found, known = load_statistics(load, source="made"), LoadStatistics.of(load)
    for name in ("gini", "hottest_share", "top_eighth_share", "max_over_mean", "loglog_slope"):
        assert getattr(found, name) == pytest.approx(getattr(known, name), rel=1e-12)
    load[1, :12] = 0
    found = load_statistics(load, source="made")
    assert found.unused_experts == 12
    # Layer 1 has 4 of 8 experts for its line: the slope is that of the other layers.
    others = LoadStatistics.of(np.delete(load, 1, axis=0)).loglog_slope
    assert found.loglog_slope == pytest.approx(others)
    assert load_statistics(np.eye(3), source="one each").loglog_slope is None


def test_expected_pairs_keep_how_often_each_expert_is_paired() -> None:
    """Rows sum as they did, entries are products off the diagonal; cross-ratios are 1."""
    pairs = np.random.default_rng(1).random((3, 6, 6))
    pairs = pairs + pairs.transpose(0, 2, 1)
    pairs[:, np.arange(6), np.arange(6)] = 0
    expected = expected_pairs(pairs)
    assert expected.sum(axis=2) == pytest.approx(pairs.sum(axis=2), rel=1e-9)
    for a, b, c, d in [(0, 1, 2, 3), (2, 4, 5, 1)]:
        ratio = expected[:, a, b] * expected[:, c, d] / (expected[:, a, d] * expected[:, c, b])
        assert ratio == pytest.approx(np.ones(3))


def test_pair_figures_by_hand() -> None:
    """Experts 0, 1 and 2, 3 always together: of 6 pairs with chance 1/6 each, two share all.

    Variation: 2 x (1/2 - 1/6) = 2/3. The top hundredth of 6 pairs is one: 1/2. The next layer
    copies: joint 1/8 on 8 of 16 cells, 1/16 each by chance; 8 x 1/16 = 1/2.
    """
    token = [[0, 1], [2, 3]]
    topk = np.array([[token[t % 2]] * 2 for t in range(40)])
    found = trace_statistics(count_trace(RoutingTrace(topk, 4, np.array([40]), "made")))
    assert found.pair_excess == pytest.approx(2 / 3)
    assert found.pair_top_share == pytest.approx(1 / 2)
    assert found.affinity_excess == pytest.approx(1 / 2)


def test_top_one_and_one_layer_have_no_pairs() -> None:
    """Figures that nothing tells are None, not zero."""
    trace = RoutingTrace(np.array([[[0]], [[1]], [[0]]]), 2, np.array([3]), "made")
    found = trace_statistics(count_trace(trace))
    assert found.pair_excess is None
    assert found.affinity_excess is None
    assert found.design_effect is None
    assert found.prefill_decode_correlation is None
    assert found.drift_ends is not None


def test_phases_domains_and_drift_by_hand() -> None:
    """Prefill of one expert and decode of another correlate by -1; halves that differ vary by 1."""
    topk = np.repeat([0, 1], 8)[:, None, None]
    trace = RoutingTrace(
        topk,
        2,
        np.array([8, 8]),
        "made",
        phase=np.repeat([0, 1], 8).astype(np.uint8),
        domain=np.array([0, 1], np.uint16),
        domain_names=("a", "b"),
    )
    found = trace_statistics(count_trace(trace))
    assert found.prefill_decode_correlation == pytest.approx(-1)
    assert found.domain_correlation == pytest.approx(-1)
    assert found.domain_least == pytest.approx(-1)
    # Eight windows of two tokens: one of seven steps differs, and the ends do.
    assert found.drift_neighbours == pytest.approx(1 / 7)
    assert found.drift_ends == pytest.approx(1)


def test_correlation_and_variation_against_numpy() -> None:
    """Layer by layer as `numpy.corrcoef`; equal loads have none."""
    one, two = np.random.default_rng(3).random((2, 5, 9))
    known = [np.corrcoef(a, b)[0, 1] for a, b in zip(one, two, strict=True)]
    assert correlations(one, two) == pytest.approx(known)
    assert np.isnan(correlations(np.ones((1, 4)), two[:1, :4])).all()
    assert total_variation(np.array([[1.0, 0.0]]), np.array([[0.25, 0.75]])) == 0.75


def test_the_standard_error_is_that_of_repeated_recordings() -> None:
    """Over 400 recordings of 30 sequences, loads scatter by the standard error of each, on average.

    A sequence stays with its own half of the experts, so tokens are far from independent.
    """
    rng = np.random.default_rng(5)
    loads, errors, effects = [], [], []
    for _ in range(400):
        lengths = rng.integers(5, 16, 30)
        half = np.repeat(rng.integers(0, 2, 30), lengths)
        topk = (half * 4 + rng.integers(0, 4, len(half)))[:, None, None]
        counts = count_trace(RoutingTrace(topk, 8, lengths, "made"))
        variance, effect = load_variance(counts)
        loads.append(counts.counts[0] / counts.tokens)
        errors.append(variance[0])
        effects.append(effect)
    true = np.var(loads, axis=0).mean()
    # 400 samples of a variance scatter by sqrt(2 / 400) = 7 %, averaged over 8 experts.
    assert np.mean(errors) == pytest.approx(true, rel=0.08)
    alone = (1 / 8) * (7 / 8) / 300
    assert np.mean(effects) == pytest.approx(true / alone, rel=0.08)
    assert true / alone > 2


def test_lone_tokens_have_a_design_effect_of_one() -> None:
    """Sequences of independent tokens tell as much as so many tokens."""
    rng = np.random.default_rng(6)
    topk = rng.integers(0, 8, (40_000, 4, 1))
    trace = RoutingTrace(topk, 8, np.full(4000, 10), "made")
    found = trace_statistics(count_trace(trace))
    assert found.design_effect == pytest.approx(1, abs=0.05)
    # sqrt(1/8 x 7/8 / 40,000) x 8.
    assert found.load_error == pytest.approx(0.01323, rel=0.05)
    one = trace_statistics(count_trace(replace(trace, seq_lens=np.array([40_000]))))
    assert one.design_effect is None
    assert one.load_error == pytest.approx(0.01323, rel=0.01)


def _lines(trace: RoutingTrace) -> tuple[str, ...]:
    counts = count_trace(trace)
    return lint_trace(counts, trace_statistics(counts))


def _steady(tokens: int = 16_000, experts: int = 8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, experts, (tokens, 2, 1))


def test_a_good_recording_is_not_doubted() -> None:
    """Many independent tokens, every expert in use, no phases to mix."""
    assert _lines(RoutingTrace(_steady(), 8, np.full(1600, 10), "made")) == ()


def test_warm_up_is_found() -> None:
    """The first eighth is routed otherwise; the others are not blamed."""
    topk = _steady()
    topk[:2000] %= 4
    (line,) = _lines(RoutingTrace(topk, 8, np.full(1600, 10), "made"))
    assert line.startswith("warm-up: the first 2,000 tokens differ")
    away = window_distances(count_trace(RoutingTrace(topk, 8, np.full(1600, 10), "made")))
    # Half of the mass of the first window lies where the rest has half of its own.
    assert away[0] == pytest.approx(0.5, abs=0.02)
    assert away[1:].max() < 0.1


def test_mixed_phases_are_found() -> None:
    """Only where the phases are routed differently."""
    topk, phase = _steady(), np.tile([0, 1], 8000)
    even = RoutingTrace(topk + 0, 8, np.full(1600, 10), "made", phase=phase)
    skewed = topk.copy()
    skewed[phase == 1] %= 4
    mixed = replace(even, topk=skewed)
    (line,) = [line for line in _lines(mixed) if "phases" in line]
    assert line.startswith("mixed phases: loads of prefill and decode correlate by")
    popular = np.minimum(topk, np.random.default_rng(8).integers(0, 8, topk.shape))
    assert _lines(replace(even, topk=popular)) == ()


def test_dead_layers_and_experts_are_found() -> None:
    """A layer that uses as many experts as a token takes, and an expert of another."""
    topk = _steady()
    topk[:, 1] = 3
    topk[topk == 5] = 3
    dead, experts = _lines(RoutingTrace(topk, 8, np.full(1600, 10), "made"))
    assert dead.startswith("dead layers: 1 use no more experts than a token takes; layer 1 uses 1")
    assert experts == "dead experts: 1 were never chosen, the first is expert 5 of layer 0"
    # Of 16 tokens it says nothing that an expert is missing.
    few = _lines(RoutingTrace(topk[:16], 8, np.full(16, 1), "made"))
    assert not any(line.startswith("dead experts") for line in few)
    load = np.ones((2, 8))
    load[0, 2] = 0
    assert lint_load(load, top_k=2) == (
        "dead experts: 1 were never chosen, the first is expert 2 of layer 0",
    )
    assert lint_load(np.ones((2, 2)), top_k=2) == ()


def test_too_few_tokens_say_how_many_are_needed() -> None:
    """The error is that of 40 tokens of 8 experts, and falls with the root of the tokens."""
    (line,) = _lines(RoutingTrace(_steady(40), 8, np.full(40, 1), "made"))
    # sqrt(1/8 x 7/8 / 40) x 8 = 0.418, within what 40 tokens can tell of it.
    found = float(line.split("load ")[1].split(" %")[0])
    assert found == pytest.approx(41.8, rel=0.1)
    needed = float(line.split("about ")[1].split(" ")[0].replace(",", ""))
    assert needed == pytest.approx(40 * (found / 5) ** 2, rel=0.01)
    (single,) = _lines(RoutingTrace(_steady(40), 8, np.array([40]), "made"))
    assert "if tokens were independent (one sequence only)" in single


@pytest.mark.real_data
def test_recorded_tasks(real_data: Path) -> None:
    """The figures of both recorded tasks, by other code: loops over layers and `numpy.corrcoef`."""
    lite = model("DeepSeek-V2-Lite")
    folder = real_data / "deepseek-v2-lite-traces"
    traces = [read_trace(folder / f"{name}.npz", lite) for name in ("intent", "law")]
    loads = [ExpertProfile.from_trace(trace).load for trace in traces]
    for trace, load in zip(traces, loads, strict=True):
        found = trace_statistics(count_trace(trace))
        together = np.zeros((64, 64))
        for token in trace.topk[:, 5].tolist():
            for a, b in combinations(token, 2):
                together[a, b] += 1
                together[b, a] += 1
        expected = expected_pairs(together[None])[0]
        layer = 0.5 * np.abs(together - expected).sum() / together.sum()
        fifth = RoutingTrace(trace.topk[:, 5:6], 64, trace.seq_lens, "one layer")
        assert trace_statistics(count_trace(fifth)).pair_excess == pytest.approx(layer)
        edges = np.arange(9) * trace.tokens / 8
        parts = [trace.topk[int(np.ceil(a)) : int(np.ceil(b))] for a, b in pairwise(edges)]
        shares = [
            np.array([np.bincount(part[:, la].ravel(), minlength=64) for la in range(26)])
            / (6 * len(part))
            for part in parts
        ]
        ends = 0.5 * np.abs(shares[0] - shares[-1]).sum() / 26
        assert found.drift_ends == pytest.approx(ends)
        assert found.gini == pytest.approx(load_statistics(load, source="").gini)
    # Two tasks share little: the README of the data says as much of prefill and decode.
    assert correlations(*loads).mean() < 0.2
