"""Evaluation, dealing and attention by hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from placement import (
    DataParallel,
    InfeasibleError,
    Pipelined,
    Placement,
    PlacementError,
    PlacementProblem,
    SolveReport,
    apply_policy,
    evaluate,
)
from placement.spread import balance_in_tiers
from workloads import ExpertProfile


def make_problem() -> PlacementProblem:
    """Two layers of three experts on two servers of two GPUs."""
    return PlacementProblem(
        model="hand",
        cost=np.array([[0.0, 4.0], [2.0, 2.0]]),
        profile=ExpertProfile(load=np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]), source="hand"),
        top_k=2,
        gpus_per_server=2,
        layer_slots=2,
        server_slots=4,
    )


def test_replicas_share_their_load() -> None:
    """An expert with two replicas costs the mean of their places and loads each by half."""
    placement = Placement(
        model="hand",
        layers=2,
        experts=3,
        gpus=4,
        gpus_per_server=2,
        slot_layer=np.array([0, 0, 0, 0, 1, 1, 1]),
        slot_gpu=np.array([0, 2, 1, 3, 0, 1, 2]),
        slot_expert=np.array([0, 0, 1, 2, 0, 1, 2]),
        policy="by hand",
    )
    placed = evaluate(placement, make_problem())
    # Layer 0: 0.25 * 0 + 0.25 * 4 + 0.3 * 0 + 0.2 * 4 = 1.8; layer 1: all at 2. Times k = 2.
    assert placed.hops_per_token_layer == pytest.approx(2 * (1.8 + 2.0) / 2)
    # Servers: 0.55 and 0.45, then 0.4 and 0.6, over a mean of 0.5.
    assert placed.balance_server == pytest.approx((1.1 + 1.2) / 2)
    # GPUs: 0.3 at most, then 0.6, over a mean of 0.25.
    assert placed.balance_gpu == pytest.approx((1.2 + 2.4) / 2)
    assert placed.balancedness == pytest.approx((1 / 1.2 + 1 / 2.4) / 2)


def test_experts_are_dealt_to_gpus_in_one_turn_across_layers() -> None:
    """A server's experts go to its GPUs in turn, the next layer going on where one ended."""
    placement = make_problem().place(np.array([[0, 0, 1], [0, 1, 1]]), policy="by hand")
    # Server 0: experts 0 and 1 of layer 0 to GPUs 0 and 1, expert 0 of layer 1 to GPU 0 again.
    # Server 1: expert 2 of layer 0 to GPU 2, experts 1 and 2 of layer 1 to GPUs 3 and 2.
    assert placement.gpu_of_expert.tolist() == [[0, 1, 2], [0, 3, 2]]


def test_stops_of_pipelined_attention() -> None:
    """Stop i of the L+1 sits on server floor(i S / (L + 1)); results go to the next stop."""
    attention = Pipelined(layers=4, servers=3, gpus_per_server=2)
    # floor of 0, 3/5, 6/5, 9/5, 12/5
    assert attention.stops().tolist() == [0, 0, 1, 1, 2]
    assert attention.origin_gpu(3).tolist() == [[0, 1, 0], [0, 1, 0], [2, 3, 2], [2, 3, 2]]
    assert attention.collector_gpu(1).ravel().tolist() == [0, 2, 2, 4]


def test_tensor_parallel_ranks_take_turns() -> None:
    """Tokens fill the groups in turn; within a group its GPUs send one after another."""
    attention = DataParallel(layers=1, servers=2, gpus_per_server=2, tp=2)
    assert attention.origin_gpu(5).tolist() == [[0, 2, 1, 3, 0]]


def test_swaps_cool_the_hottest_server() -> None:
    """Longest first gives 7 and 5 of these loads; one swap evens them out."""
    load = np.array([[4.0, 3.0, 2.0, 2.0, 1.0]])
    # Counts 2 and 3: 4+2 | 3+2+1 by longest first is already even, so force 3 and 2 of others.
    server = balance_in_tiers(load, np.array([[2, 3]]), np.zeros((1, 2), dtype=int))
    assert np.bincount(server[0], weights=load[0]).tolist() == [6.0, 6.0]
    load = np.array([[3.0, 3.0, 2.0, 2.0, 2.0, 0.0]])
    # Longest first: 3+2+2 = 7 and 3+2+0 = 5; swapping a 3 and a 2 gives 6 and 6.
    server = balance_in_tiers(load, np.array([[3, 3]]), np.zeros((1, 2), dtype=int))
    assert np.bincount(server[0], weights=load[0]).tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (("best", 1.0, 1.0), "status 'best' is unknown; allowed: optimal"),
        (("optimal", 2.0, 1.0), "'optimal' with objective 2.0 and bound 1.0"),
        (("optimal", 2.0, None), "expected a gap of zero"),
        (("heuristic", float("nan"), None), "objective is nan"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(
    report: tuple[str, float, float | None], message: str
) -> None:
    """Nothing calls itself optimal without a proof."""
    with pytest.raises(PlacementError, match=message):
        SolveReport(*report, seconds=0.0)


def test_a_report_in_another_unit_gives_no_hops() -> None:
    """Seconds are not to be had as hops, and their gap is relative: 1 us is far above 0.9 us."""
    report = SolveReport("feasible", 1e-6, 0.9e-6, 0.0, unit="seconds")
    assert report.gap == pytest.approx(0.1)
    for name in ("objective_hops", "bound_hops"):
        with pytest.raises(PlacementError, match="in seconds, not in hops"):
            getattr(report, name)
    with pytest.raises(PlacementError, match="solve unit 'miles' is unknown; allowed: hops"):
        SolveReport("heuristic", 1.0, None, 0.0, unit="miles")


class Own:
    """A user's policy whose behaviour each test sets."""

    name = "own"
    behave: object = None

    def __call__(self, problem: PlacementProblem) -> object:
        """Do what the test asks."""
        return Own.behave(problem)  # type: ignore[operator]


def _raise(error: BaseException) -> object:
    raise error


def _spoil(problem: PlacementProblem) -> Placement:
    problem.cost.setflags(write=True)
    problem.cost[:] = 0
    return problem.place(np.array([[0, 0, 1], [0, 1, 1]]), policy="own")


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (lambda _: _raise(KeyError("x")), "raised KeyError"),
        (lambda _: _raise(SystemExit(0)), "raised SystemExit"),
        (lambda _: None, "must return a Placement .* got NoneType"),
        (lambda p: p.place(np.full((2, 3), 0.5), policy="own"), "by integers, got float64"),
        (lambda p: p.place(np.array([[0, 0, 1]] * 2), policy="other"), "signs .* 'other'"),
    ],
)
def test_a_users_policy_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, behave: object, message: str
) -> None:
    """Whatever a user's class does, the error names it."""
    monkeypatch.setattr(Own, "behave", staticmethod(behave))
    monkeypatch.setattr("builtins.own_policy", Own, raising=False)
    with pytest.raises(PlacementError, match=message):
        apply_policy("builtins:own_policy", make_problem())


def test_a_users_policy_cannot_spoil_the_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """It works on a copy of costs and loads."""
    monkeypatch.setattr(Own, "behave", staticmethod(_spoil))
    monkeypatch.setattr("builtins.own_policy", Own, raising=False)
    problem = make_problem()
    apply_policy("builtins:own_policy", problem)
    assert problem.cost.tolist() == [[0.0, 4.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("gpu", "message"),
    [
        ([[0, 0, 0], [1, 1, 1]], "layer 0 puts 3 experts on server 0, which takes 2"),
        ([[0, 0, 2], [1, 2, 3]], "puts 2 experts of one layer on GPU 0, which takes 1"),
    ],
)
def test_a_placement_made_by_hand_keeps_the_caps_too(
    monkeypatch: pytest.MonkeyPatch, gpu: list[list[int]], message: str
) -> None:
    """Going round `problem.place` does not go round the caps."""

    def behave(_: PlacementProblem) -> Placement:
        layer, expert = np.divmod(np.arange(6), 3)
        return Placement(
            model="hand",
            layers=2,
            experts=3,
            gpus=4,
            gpus_per_server=2,
            slot_layer=layer,
            slot_gpu=np.array(gpu).ravel(),
            slot_expert=expert,
            policy="own",
        )

    monkeypatch.setattr(Own, "behave", staticmethod(behave))
    monkeypatch.setattr("builtins.own_policy", Own, raising=False)
    with pytest.raises(InfeasibleError, match=message):
        apply_policy("builtins:own_policy", make_problem())


def test_a_free_optimum_is_optimal() -> None:
    """An objective of zero but for rounding is proven, not infinitely far from its bound."""
    assert SolveReport("optimal", 1.7e-16, 0.0, 0.0).gap == 0


def test_a_users_policy_may_not_bear_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables tell policies apart by name."""
    monkeypatch.setattr(Own, "name", "ilp-load")
    monkeypatch.setattr(
        Own, "behave", staticmethod(lambda p: p.place(np.array([[0, 0, 1]] * 2), policy="ilp-load"))
    )
    monkeypatch.setattr("builtins.own_policy", Own, raising=False)
    with pytest.raises(PlacementError, match="is named 'ilp-load', as a built-in one is"):
        apply_policy("builtins:own_policy", make_problem())
