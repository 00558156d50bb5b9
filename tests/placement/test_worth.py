"""What a move costs and gains, against a slow twin and arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Placement, PlacementError
from placement.moves.worth import StepFigures, Worth, saving_error, transfers, worth

STEP = StepFigures(
    expected_hops=10.0,
    profile_balance_gpu=1.5,
    hops_per_token_layer=10.5,
    byte_hops=1e6,
    balance_server=1.2,
    balance_gpu=1.6,
    gpus_per_token_layer=7.0,
    servers_per_token_layer=4.0,
    busiest_s=0.5,
    step_s=1.0,
)


def make(gpus_of: list[list[list[int]]], *, gpus: int = 4, size: int = 2) -> Placement:
    """Build a placement from the GPUs of every expert [layers][experts][replicas]."""
    slots = [
        (layer, gpu, expert)
        for layer, row in enumerate(gpus_of)
        for expert, held in enumerate(row)
        for gpu in held
    ]
    layer, gpu, expert = np.array(slots, dtype=np.int32).T
    return Placement("tiny", len(gpus_of), len(gpus_of[0]), gpus, size, layer, gpu, expert, "test")


def near(servers: int, far: int = 4) -> np.ndarray:
    """Distances between servers: 0 to itself, otherwise `far`."""
    return far * (1 - np.eye(servers, dtype=np.int64))


def slow_transfers(
    old: Placement, new: Placement, distance: np.ndarray
) -> list[tuple[int, int, int, int]]:
    """List (layer, expert, source, destination) of every new slot, one loop after another."""
    held: dict[tuple[int, int], set[int]] = {}
    for layer, gpu, expert in zip(old.slot_layer, old.slot_gpu, old.slot_expert, strict=True):
        held.setdefault((int(layer), int(expert)), set()).add(int(gpu))
    size, found = old.gpus_per_server, set()
    for layer, gpu, expert in zip(new.slot_layer, new.slot_gpu, new.slot_expert, strict=True):
        to = int(gpu)
        holders = held[int(layer), int(expert)]
        if to not in holders:
            source = min(
                holders,
                key=lambda gpu, to=to: (  # type: ignore[misc]
                    gpu // size != to // size,
                    distance[gpu // size, to // size],
                    (gpu - to) % old.gpus,
                ),
            )
            found.add((int(layer), int(expert), source, to))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_transfers_equal_the_slow_twin(seed: int) -> None:
    """Replicas or not, the slots that move and their nearest sources are the twin's."""
    rng = np.random.Generator(np.random.PCG64(seed))
    old, new = (
        make(
            [[rng.permutation(6)[: rng.integers(1, 4)].tolist() for _ in range(3)]] * 2,
            gpus=6,
        )
        for _ in range(2)
    )
    distance = rng.integers(1, 4, (3, 3)) * (1 - np.eye(3, dtype=np.int64))
    moves = transfers(old, new, server_distance=distance)
    listed = zip(moves.layer, moves.expert, moves.src, moves.dst, strict=True)
    assert sorted(tuple(map(int, row)) for row in listed) == slow_transfers(old, new, distance)
    assert moves.slots == len(new.slot_layer)


def test_the_twin_would_notice_a_wrong_source() -> None:
    """The nearest holder sends: the one on the same server, then the nearer server."""
    # Expert 0 sits on GPUs 0 and 3; GPU 2 wants it: GPU 3 is on its server, GPU 0 is not.
    old, new = make([[[0, 3], [1]]]), make([[[2, 3], [1]]])
    moves = transfers(old, new, server_distance=near(2))
    assert (moves.src.tolist(), moves.dst.tolist(), len(moves)) == ([3], [2], 1)
    assert slow_transfers(old, new, near(2)) != [(0, 0, 0, 2)]
    assert len(transfers(old, old, server_distance=near(2))) == 0


def test_equal_holders_share_the_sending() -> None:
    """Of two holders equally far, each serves the destinations that follow it in the ring."""
    # GPUs 0 and 4 of 8, one a server, hold expert 0; GPUs 1..3 and 5..7 want it too.
    old = make([[[0, 4]]], gpus=8, size=1)
    new = make([[list(range(8))]], gpus=8, size=1)
    moves = transfers(old, new, server_distance=near(8))
    assert dict(zip(moves.dst.tolist(), moves.src.tolist(), strict=True)) == {
        1: 4, 2: 4, 3: 4, 5: 0, 6: 0, 7: 0,
    }  # fmt: skip


def weigh(step_s: float, hops: float = 9.0) -> Worth:
    """Weigh a move of two slots, 0.3 s long, to a step of `step_s` for 100 tokens."""
    old, new = make([[[0], [1], [2]]]), make([[[1], [2], [2]]])
    return worth(
        transfers(old, new, server_distance=near(2)),
        gpus_per_server=2,
        bytes_per_slot=1000,
        moving_s=0.3,
        steps=(STEP, replace(STEP, step_s=step_s, expected_hops=hops)),
        step_tokens=100,
    )


def test_break_even_by_hand() -> None:
    """0.3 s of moving, 0.2 s gained on 100 tokens, 2 ms a token: even after 150 tokens."""
    result = weigh(0.8)
    assert (result.moved_slots, result.moved_inside, result.moved_bytes) == (2, 1, 2000)
    assert (result.hops_gain, result.step_gain) == pytest.approx((0.1, 0.2))
    assert result.gained_s_per_token == pytest.approx(0.002)
    assert result.break_even_tokens == pytest.approx(150)
    assert result.verdict == "worth it after 150 tokens (1.5 steps of this batch)"


def test_nothing_gained_is_never_worth_it() -> None:
    """No gain, or a loss, has no break-even; rounding is no gain."""
    for step_s in (1.0, 1 - 1e-12, 1.25):
        assert weigh(step_s).break_even_tokens is None
    assert weigh(1.0).verdict == "never: 0 % to gain, leave it"
    assert weigh(1.25).verdict == "never: the step gets 25 % longer, leave it"


def test_what_may_be_chance_is_no_gain() -> None:
    """A gain within two standard errors counts only where the profile promises one."""
    lucky = replace(weigh(0.98, hops=STEP.expected_hops), scatter_s=0.011)
    assert lucky.break_even_tokens is None
    assert lucky.verdict == (
        "never: 0 % to gain, leave it; the step's +2 % are within the scatter of this batch "
        "(standard error 1.1 %), and the profile promises nothing"
    )
    assert replace(lucky, scatter_s=0.009).verdict.startswith("worth it after")
    assert replace(weigh(0.98, hops=9.0), scatter_s=0.011).verdict.startswith("worth it after")
    slower = replace(weigh(1.02, hops=STEP.expected_hops), scatter_s=0.011)
    assert slower.verdict.startswith("never: 0 % to gain, leave it; the step's -2 %")


def test_the_error_of_a_saving() -> None:
    """Savings 0 and 2 ms in turn over ten layers: a deviation of 1.054 ms, times sqrt(10)."""
    old, new = np.full(10, 3e-3), np.tile([3e-3, 1e-3], 5)
    # Squared deviations of 1 ms each: sqrt(10 / 9) ms a layer.
    assert saving_error(old, new) == pytest.approx(1e-3 * (10 / 9) ** 0.5 * 10**0.5)
    assert saving_error(old[:9], new[:9]) == 0.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_error_is_that_of_repeated_batches(seed: int) -> None:
    """Over 500 batches of 58 layers the total saving scatters as one batch's error says."""
    rng = np.random.Generator(np.random.PCG64(seed))
    savings = rng.exponential(1.0, (500, 58))
    zeros = np.zeros(58)
    errors = [saving_error(batch, zeros) for batch in savings]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(
        savings.sum(axis=1).std(ddof=1), rel=0.2
    )


def test_nothing_moves() -> None:
    """A placement against itself."""
    old = make([[[0], [1]]])
    moves = transfers(old, old, server_distance=near(2))
    result = worth(
        moves,
        gpus_per_server=2,
        bytes_per_slot=1000,
        moving_s=0.0,
        steps=(STEP, STEP),
        step_tokens=1,
    )
    assert result.break_even_tokens is None
    assert result.verdict.startswith("nothing moves")


def test_placements_that_do_not_belong_together() -> None:
    """Another model, shape or cluster, and a step without tokens, are one-line errors."""
    old = make([[[0], [1]]])
    for new, message in (
        (replace(old, model="other"), "old placement has model 'tiny', the new one 'other'"),
        (make([[[0], [1], [2]]]), "old placement has experts 2, the new one 3"),
        (make([[[0], [1]]], size=1), "old placement has gpus per server 2, the new one 1"),
    ):
        with pytest.raises(PlacementError, match=message):
            transfers(old, new, server_distance=near(2))
    with pytest.raises(PlacementError, match="the placements have 2 servers, the cluster 3"):
        transfers(old, old, server_distance=near(3))
    moves = transfers(old, old, server_distance=near(2))
    with pytest.raises(PlacementError, match="the step has 0 tokens"):
        worth(
            moves,
            gpus_per_server=2,
            bytes_per_slot=1,
            moving_s=0,
            steps=(STEP, STEP),
            step_tokens=0,
        )
