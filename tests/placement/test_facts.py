"""Published and re-computed figures on the recorded DeepSeek-R1 loads (FACTS, section 1)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from placement import (
    Attention,
    DataParallel,
    Pipelined,
    PlacementProblem,
    evaluate,
    hops_over_optima,
    make_policy,
)
from topologies import Router, preset
from workloads import model
from workloads.readers import read_logical_count

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

pytestmark = pytest.mark.real_data


@cache
def server_distance() -> np.ndarray:
    """Hops between the servers of the facts' fat-tree."""
    return Router(preset("facts-fat-tree").spec.build()).server_distance()


def make_problem(
    data: Path, layer_slots: int, *, load: str = "decode_in1000out1000", shared: bool = False
) -> PlacementProblem:
    """Build the facts' problem: 32 servers of 8 GPUs, C_exp 464."""
    r1 = model("DeepSeek-R1")
    attention: Attention = (DataParallel if shared else Pipelined)(r1.layers, 32, 8)
    return PlacementProblem.build(
        r1,
        server_distance(),
        attention,
        read_logical_count(data / "deepseek-r1-loads" / f"{load}.json", r1),
        gpus_per_server=8,
        layer_slots=layer_slots,
        server_slots=464,
    )


@pytest.mark.parametrize(
    ("layer_slots", "weighted", "unweighted"),
    [(8, 58.867255, 75.0), (16, 42.997052, 54.362069), (32, 32.730698, 44.448276)],
)
def test_certified_hops(
    real_data: Path, layer_slots: int, weighted: float, unweighted: float
) -> None:
    """ILPLoad and ILP reach the known optima with a proven gap of zero."""
    problem = make_problem(real_data, layer_slots)
    for name, hops in (("ilp-load", weighted), ("ilp", unweighted)):
        report = make_policy(name)(problem).solve
        assert report is not None
        assert (report.status, report.gap) == ("optimal", 0.0)
        assert report.objective_hops == pytest.approx(hops, abs=5e-7)
    placed = evaluate(make_policy("ilp-load")(problem), problem)
    assert placed.hops_per_token_layer == pytest.approx(weighted, abs=5e-7)


def test_baselines(real_data: Path) -> None:
    """Round-robin and contiguous cost what they are known to cost, at the known balance."""
    problem = make_problem(real_data, 8)
    turns = evaluate(make_policy("round-robin")(problem), problem)
    runs = evaluate(make_policy("contiguous")(problem), problem)
    assert turns.hops_per_token_layer == pytest.approx(75.463256, abs=5e-7)
    assert runs.hops_per_token_layer == pytest.approx(75.857635, abs=5e-7)
    assert turns.balance_server == pytest.approx(1.58, abs=0.005)
    # One expert per GPU: the hottest expert's share decides, whatever the policy.
    assert turns.balance_gpu == pytest.approx(5.56, abs=0.005)


def test_best_balanced_optimum(real_data: Path) -> None:
    """Among placements of equal hops the best balanced is returned (bound 3.71)."""
    problem = make_problem(real_data, 8)
    assert 3.71 <= evaluate(make_policy("ilp-load")(problem), problem).balance_server <= 3.75


def test_degenerate_range_of_the_unweighted_program(real_data: Path) -> None:
    """At C_layer 8 every placement is ILP-optimal; their hops span a wide range."""
    low, high = hops_over_optima(make_problem(real_data, 8))
    assert (low, high) == pytest.approx((58.867, 85.462), abs=5e-4)


def test_greedy_load_is_optimal_only_where_one_cap_binds(real_data: Path) -> None:
    """Greedy by load reaches the optimum at C_layer 8 and 32.997 at C_layer 32."""
    hops = [
        evaluate(make_policy("greedy-load")(problem), problem).hops_per_token_layer
        for problem in (make_problem(real_data, 8), make_problem(real_data, 32))
    ]
    assert hops[0] == pytest.approx(58.867255, abs=5e-7)
    assert hops[1] == pytest.approx(32.997, abs=5e-4)


def test_symmetric_fabric_has_nothing_to_gain(real_data: Path) -> None:
    """Under data-parallel attention every placement costs 75 on this fabric."""
    problem = make_problem(real_data, 8, shared=True)
    for name in ("round-robin", "greedy-load", "ilp-load"):
        placed = evaluate(make_policy(name)(problem), problem)
        assert placed.hops_per_token_layer == pytest.approx(75.0, abs=1e-9)


def test_another_load_judges_the_placement(real_data: Path) -> None:
    """The decode placement on prefill loads: 62.736, where prefill's own optimum is 57.822."""
    placement = make_policy("ilp-load")(make_problem(real_data, 8))
    prefill = make_problem(real_data, 8, load="prefill_in1024")
    assert evaluate(placement, prefill).hops_per_token_layer == pytest.approx(62.736, abs=0.05)
    own = make_policy("ilp-load")(prefill)
    assert evaluate(own, prefill).hops_per_token_layer == pytest.approx(57.822, abs=5e-4)
    turns = make_policy("round-robin")(prefill)
    assert evaluate(turns, prefill).hops_per_token_layer == pytest.approx(75.134, abs=5e-4)
