"""Workloads fitted to recorded ones: curves, topics, and the recorded tasks of V2-Lite."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads import (
    R1_LIKE,
    LoadCurve,
    MoEModel,
    RoutingTrace,
    SyntheticWorkload,
    Topics,
    WorkloadError,
    count_trace,
    fit_curve,
    fit_trace,
    load_statistics,
    model,
    read_logical_count,
    read_trace,
    trace_statistics,
)
from workloads.fitting import home_share, solve

if TYPE_CHECKING:
    from pathlib import Path

    from workloads import WorkloadStatistics

SMALL = MoEModel("small", 6, tuple(range(6)), 16, 2, 0, 8, 8)


def test_a_curve_gives_loads_as_uneven_as_those_it_was_fitted_to() -> None:
    """R1-like loads, fitted and drawn anew from another seed: means within 3 %."""
    shape = model("DeepSeek-R1")
    load = SyntheticWorkload(shape, 0).load
    curve = fit_curve(load, shape)
    wanted = asdict(load_statistics(load, source=""))
    found = asdict(load_statistics(SyntheticWorkload(shape, 1, curve).load, source=""))
    for name in ("gini", "hottest_share", "top_eighth_share", "max_over_mean", "loglog_slope"):
        assert found[name] == pytest.approx(wanted[name], rel=0.03), name
    assert curve.group_correlation == pytest.approx(R1_LIKE.group_correlation, abs=0.05)


def test_a_curve_of_one_load_is_that_load() -> None:
    """Layers of equal sorted loads have no spread, and come back in another order."""
    rng = np.random.default_rng(0)
    row = rng.random(16) + 0.1
    load = np.array([rng.permutation(row) for _ in range(6)])
    curve = fit_curve(load, SMALL)
    assert max(map(abs, curve.layer_spread)) < 1e-9
    assert curve.peak_sigma == pytest.approx(0, abs=1e-9)
    drawn = SyntheticWorkload(SMALL, 3, curve).load
    assert np.sort(drawn, axis=1) == pytest.approx(np.tile(np.sort(row) / row.sum(), (6, 1)))
    assert fit_curve(np.ones((2, 16)), SMALL).log_loads == (0.0,) * 16


def test_a_curve_stretches_to_another_number_of_experts() -> None:
    """Its quantiles stay where they are: of twice the experts, the Gini coefficient is close."""
    curve = fit_curve(SyntheticWorkload(model("DeepSeekMoE-16B"), 0).load, model("DeepSeekMoE-16B"))
    shape = replace(model("DeepSeekMoE-16B"), experts=128)
    wide = load_statistics(SyntheticWorkload(shape, 0, curve).load, source="")
    known = load_statistics(SyntheticWorkload(model("DeepSeekMoE-16B"), 0, curve).load, source="")
    assert wide.gini == pytest.approx(known.gini, rel=0.05)


def test_experts_without_load_do_not_break_the_curve() -> None:
    """They count as half the least load."""
    load = np.array([[0.0, 1, 2, 4] * 4])
    curve = fit_curve(load, SMALL)
    # Logs of 1/2, 1, 2, 4: steps of log 2.
    assert np.diff(np.unique(np.round(curve.log_loads, 9))) == pytest.approx([np.log(2)] * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_loads": ()}, "log_loads must ascend, at least one"),
        ({"log_loads": (1.0, 0.0)}, "must ascend"),
        ({"log_loads": (0.0, float("nan"))}, "log_loads must be numbers"),
        ({"log_loads": (0.0, 1e9)}, "log_loads must be numbers"),
        ({"layer_spread": (1.0,)}, "1 of layer_spread, expected none or 2"),
        ({"layer_spread": (1.0, float("inf"))}, "layer_spread must be numbers"),
        ({"peak_sigma": -1.0}, "peak_sigma is -1.0"),
        ({"group_correlation": 1.5}, "group_correlation is 1.5"),
    ],
)
def test_curves_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    """Each part is named."""
    with pytest.raises(WorkloadError, match=message):
        LoadCurve(**{"log_loads": (0.0, 1.0), **change})


@given(st.floats(0.05, 5), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_solve_finds_where_a_measure_is_as_wanted(power: float, at: float, first: float) -> None:
    """To 1 % of the value wanted, of curves steep or flat, in nine tries where it can be."""
    tried: list[float] = []

    def measure(x: float) -> float:
        tried.append(x)
        return float(1 + x**power)

    found = solve(measure, 1 + at**power, 0.0, 1.0, first=first)
    assert len(tried) <= 10
    assert measure(found) == pytest.approx(1 + at**power, rel=0.1)


def test_solve_stops_at_the_ends() -> None:
    """What cannot be reached is answered by the nearer end."""
    assert solve(lambda x: x, -1.0, 0.0, 1.0, first=0.5) == 0.0
    assert solve(lambda x: x, 3.0, 0.0, 1.0, first=0.5) > 0.98


def test_home_gives_the_design_effect_asked_for() -> None:
    """The closed form against the estimate from 4,000 drawn sequences, domains included."""
    topics = Topics(
        4,
        2.0,
        affinity=0.7,
        seq_len=30,
        domains=(("a", 0.5), ("b", 0.5)),
        domain_separation=0.4,
        decode_share=0.4,
        phase_separation=0.5,
    )
    curve = LoadCurve((0.0,) * 16)
    plain = SyntheticWorkload(SMALL, 0, curve, topics)
    start = trace_statistics(count_trace(plain.trace(30 * 400)))
    wanted = replace(start, design_effect=3.0)
    home = home_share(plain, wanted)
    assert 0.2 < home < 0.9
    workload = SyntheticWorkload(SMALL, 0, curve, replace(topics, home=home))
    found = trace_statistics(count_trace(workload.trace(30 * 4000))).design_effect
    # A variance of 4,000 sequences scatters by sqrt(2 / 4,000) = 2.2 %.
    assert found == pytest.approx(3.0, rel=0.05)
    assert home_share(plain, replace(start, design_effect=0.9)) == 0.0
    assert home_share(plain, replace(start, design_effect=None)) == 0.0


def test_a_drawn_workload_is_found_again() -> None:
    """Fitted to a trace by topics and drawn anew, every figure that was fitted is within 10 %."""
    shape = MoEModel("mid", 12, tuple(range(12)), 32, 4, 0, 8, 8)
    truth = Topics(
        4, 1.8, affinity=0.9, home=0.3, seq_len=40, decode_share=0.5, phase_separation=0.6
    )
    source = SyntheticWorkload(shape, 4, LoadCurve(tuple(np.linspace(-1, 1, 16))), truth)
    trace = source.trace(8_000)
    counts = count_trace(trace)
    wanted = trace_statistics(counts)
    curve, topics = fit_trace(counts, wanted, shape)
    assert topics.seq_len == 40
    assert topics.decode_share == pytest.approx(0.5)
    drawn = [
        trace_statistics(count_trace(SyntheticWorkload(shape, s, curve, topics).trace(8_000)))
        for s in (1, 2, 3, 4)
    ]
    for name in ("gini", "pair_excess", "pair_top_share", "affinity_excess", "design_effect"):
        assert _mean(drawn, name) == pytest.approx(getattr(wanted, name), rel=0.1), name
    off = _mean(drawn, "prefill_decode_correlation") - (wanted.prefill_decode_correlation or 0)
    assert abs(off) < 0.1


def test_top_one_has_no_topics_to_fit() -> None:
    """Without pairs, loads and lengths are all there is."""
    one = replace(SMALL, top_k=1)
    counts = count_trace(SyntheticWorkload(one, 0).trace(500))
    topics = fit_trace(counts, trace_statistics(counts), one)[1]
    assert topics.strength == 0


def _mean(drawn: list[WorkloadStatistics], name: str) -> float:
    return float(np.mean([getattr(each, name) for each in drawn]))


FITTED = (
    "gini",
    "hottest_share",
    "top_eighth_share",
    "max_over_mean",
    "max_over_mean_most",
    "loglog_slope",
    "pair_excess",
    "pair_top_share",
    "affinity_excess",
    "drift_neighbours",
    "drift_ends",
    "design_effect",
    "load_error",
)
"""Figures of `topomoe stats` that a trace without labels has, but for the error of the peak."""


def _recorded(folder: Path, name: str) -> RoutingTrace:
    return read_trace(folder / "deepseek-v2-lite-traces" / f"{name}.npz", model("DeepSeek-V2-Lite"))


def _saving(trace: RoutingTrace) -> float:
    """Part of the GPUs a token visits that grouping by pairs saves, fitted on even sequences.

    8 GPUs of 8 experts; the best swap of two experts is made until none brings more of the pairs
    of a layer together. Judged on the odd sequences, against experts in order.
    """
    fitted, judged = trace.split()
    in_order = np.arange(64) // 8
    met = np.zeros(2)
    for layer, pairs in enumerate(count_trace(fitted).pairs.astype(float)):
        pairs[np.arange(64), np.arange(64)] = 0
        gpu = in_order.copy()
        while True:
            on = np.array([pairs[:, gpu == g].sum(axis=1) for g in range(8)]).T
            gain = on[:, gpu] - on[np.arange(64), gpu][:, None]
            both = np.where(gpu[:, None] == gpu, 0, gain + gain.T - 2 * pairs)
            a, b = np.unravel_index(both.argmax(), both.shape)
            if both[a, b] <= 0:
                break
            gpu[[a, b]] = gpu[[b, a]]
        for i, where in enumerate((in_order, gpu)):
            visited = np.sort(where[judged.topk[:, layer]], axis=1)
            met[i] += 1 + (np.diff(visited, axis=1) > 0).sum(axis=1).mean()
    return float(1 - met[1] / met[0])


@pytest.mark.real_data
@pytest.mark.parametrize("task", ["intent", "law"])
def test_recorded_tasks_are_met(real_data: Path, task: str) -> None:
    """Every figure is within 10 % of the recorded one, as the mean over six seeds.

    Of single seeds, `drift_ends` (two windows of a thousand tokens, four sequences of law) is off
    by up to 44 %, `max_over_mean_most` (one layer) by 22 %; all others by 12 % at most. The error
    of the peak, not fitted, is 40 % too large for intent.
    """
    trace, shape = _recorded(real_data, task), model("DeepSeek-V2-Lite")
    counts = count_trace(trace)
    wanted = trace_statistics(counts)
    curve, topics = fit_trace(counts, wanted, shape)
    drawn = [
        trace_statistics(
            count_trace(SyntheticWorkload(shape, s, curve, topics).trace(trace.tokens))
        )
        for s in range(1, 7)
    ]
    for name in FITTED:
        assert _mean(drawn, name) == pytest.approx(getattr(wanted, name), rel=0.1), name
    assert _mean(drawn, "drift_ends_correlation") == pytest.approx(
        wanted.drift_ends_correlation, abs=0.05
    )
    # Nothing was fitted to this: what a placement by pairs saves, 36 and 32 % as recorded.
    workload = SyntheticWorkload(shape, 1, curve, topics)
    assert _saving(workload.trace(trace.tokens)) == pytest.approx(_saving(trace), rel=0.1)
    # The comparison can fail: independent choices from the same loads are no such trace:
    # hot experts on one GPU save 12 % of intent, and no more.
    alone = SyntheticWorkload(shape, 1, curve).trace(trace.tokens)
    assert (trace_statistics(count_trace(alone)).pair_excess or 0) < (wanted.pair_excess or 0) / 5
    assert _saving(replace(alone, seq_lens=trace.seq_lens)) < _saving(trace) / 2


@pytest.mark.real_data
def test_recorded_domains_are_met(real_data: Path) -> None:
    """Both tasks as two domains of one trace: their correlation to 0.1, other means within 10 %.

    Recorded one after the other, they drift as well; drawn ones are interleaved and drift.
    """
    tasks, shape = [_recorded(real_data, n) for n in ("intent", "law")], model("DeepSeek-V2-Lite")
    trace = RoutingTrace(
        np.concatenate([each.topk for each in tasks]),
        64,
        np.concatenate([each.seq_lens for each in tasks]),
        "both",
        domain=np.repeat([0, 1], [each.sequences for each in tasks]),
        domain_names=("intent", "law"),
    )
    counts = count_trace(trace)
    wanted = trace_statistics(counts)
    curve, topics = fit_trace(counts, wanted, shape)
    drawn = [
        trace_statistics(
            count_trace(SyntheticWorkload(shape, s, curve, topics).trace(trace.tokens))
        )
        for s in range(1, 4)
    ]
    assert wanted.domain_correlation is not None
    assert abs(_mean(drawn, "domain_correlation") - wanted.domain_correlation) < 0.1
    for name in ("gini", "max_over_mean", "pair_excess", "pair_top_share", "affinity_excess"):
        assert _mean(drawn, name) == pytest.approx(getattr(wanted, name), rel=0.1), name


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    ["decode_in1000out1000", "decode_in500out1500", "prefill_in1024", "prefill_in512"],
)
def test_recorded_loads_are_met(real_data: Path, name: str) -> None:
    """Means over layers within 5 % at every seed; the worst layer, over seeds, within 25 %."""
    shape = model("DeepSeek-R1")
    load = read_logical_count(real_data / "deepseek-r1-loads" / f"{name}.json", shape).load
    curve = fit_curve(load, shape)
    wanted = load_statistics(load, source="")
    drawn = [
        load_statistics(SyntheticWorkload(shape, s, curve).load, source="") for s in range(1, 9)
    ]
    for figure in ("gini", "hottest_share", "top_eighth_share", "max_over_mean", "loglog_slope"):
        for each in drawn:
            assert getattr(each, figure) == pytest.approx(getattr(wanted, figure), rel=0.05)
    worst = _mean(drawn, "max_over_mean_most")
    assert worst == pytest.approx(wanted.max_over_mean_most, rel=0.25)
