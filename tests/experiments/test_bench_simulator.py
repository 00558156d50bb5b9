"""The benchmark of steps and of the fluid network: what is measured, and what is required."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from experiments.benchmarks.clocks import Clocks, timed
from experiments.benchmarks.fluid import FLUID_SECTIONS, OWN_STEPS, common_rows, skewed_rows
from experiments.benchmarks.sections import SECTIONS
from experiments.benchmarks.step import ANALYTIC, FLUID, STEP_SECTION
from sim import FluidNetwork
from topologies import Router, from_links


def test_clocks_are_the_least_of_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clock's least of the repeats, wherever it came; the last result."""
    # Wall: 5, 2 and 8 s; processor: 1, 3 and 2 s.
    wall, processor = iter((0.0, 5.0, 10.0, 12.0, 20.0, 28.0)), iter((0.0, 1.0, 1.0, 4.0, 4.0, 6.0))
    clock = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(processor))
    monkeypatch.setattr("experiments.benchmarks.clocks.time", clock)
    results = iter("abc")
    assert timed(lambda: next(results), 3) == ("c", Clocks(seconds=2.0, cpu_s=1.0))


def test_required_of_the_networks_own_steps() -> None:
    """Figures are asked of the steps that users get without asking."""
    router = Router(from_links([], leaf_of_gpu=[0, 0]))
    assert FluidNetwork(router).steps == OWN_STEPS


def test_the_common_job_is_ideal() -> None:
    """On the full fat-tree shares and D-mod-k need what a host link needs: 127 messages of it."""
    # 127 * 65,536 B * 8 / 100 Gb/s = 665.846 us (ideal).
    rows = common_rows(("shares", "dmodk"), repeats=1)
    assert [row["makespan_us"] for row in rows] == pytest.approx([665.846, 665.846], abs=2e-3)
    section = FLUID_SECTIONS[0]
    assert len(section.texts(rows)[0]) == len(section.header)
    assert section.judged(rows)[0]["cases"] == 2


def test_lazy_rates_keep_to_what_is_required() -> None:
    """Makespan within 0.5 % of exact rates and mean within 1 %, at the network's own steps."""
    section = FLUID_SECTIONS[1]
    rows = skewed_rows(steps=(OWN_STEPS,), repeats=1)
    judged = section.judged(rows)
    assert [row["cases"] for row in judged] == [1, 1, 1]
    assert all(row["met"] for row in judged[1:])
    # An error of the other sign counts as well.
    assert not section.judged([rows[0] | {"mean_error": -0.011}])[2]["met"]


def test_step_figures_are_told_apart() -> None:
    """The analytic and the fluid replay have a limit each; parts of a replay have none."""
    row = {"seconds": 1.0, "cpu_s": 0.4}
    rows = [{"part": part} | row for part in (ANALYTIC, "counting messages")]
    assert [each["met"] for each in STEP_SECTION.judged(rows)] == [True, None]
    rows.append({"part": FLUID, "seconds": 40.0, "cpu_s": 31.0})
    assert [each["met"] for each in STEP_SECTION.judged(rows)] == [True, False]
    assert STEP_SECTION in SECTIONS
