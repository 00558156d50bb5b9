"""The compiled transport against all assignments and against HiGHS."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.field._transport_kernel import transport
from placement.highs import Program, solve


def best_of_all(profit: np.ndarray, room: np.ndarray) -> float:
    """Try every assignment that the rooms allow."""
    items, places = profit.shape
    sums = [
        sum(profit[i, p] for i, p in enumerate(choice))
        for choice in product(range(places), repeat=items)
        if (np.bincount(choice, minlength=places) <= room).all()
    ]
    return float(max(sums))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32))
def test_best_of_all_assignments(items: int, places: int, seed: int) -> None:
    """As profitable as the best of all assignments, within every room; ties and empty rooms too."""
    rng = np.random.default_rng(seed)
    room = rng.integers(0, 4, places)
    room[0] += max(0, items - int(room.sum()))
    profit = rng.integers(-3, 4, (items, places)).astype(float)
    place = transport(profit, room)
    assert (np.bincount(place, minlength=places) <= room).all()
    assert profit[np.arange(items), place].sum() == best_of_all(profit, room)


def test_greedy_would_not_do() -> None:
    """The brute force tells the best from the obvious: taking the highest profit first loses."""
    profit, room = np.array([[5.0, 4.0], [4.0, 0.0]]), np.array([1, 1])
    # 5 + 0 by greed, 4 + 4 at best.
    assert best_of_all(profit, room) == 8.0
    assert transport(profit, room).tolist() == [1, 0]
    assert profit[[0, 1], [0, 1]].sum() < best_of_all(profit, room)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_highs(seed: int) -> None:
    """60 items on 8 places: the optimum of the linear program, whose vertices are integral."""
    rng = np.random.default_rng(seed)
    items, places = 60, 8
    profit = rng.random((items, places))
    room = np.array([8, 8, 8, 8, 7, 7, 7, 7])
    item, place = np.divmod(np.arange(items * places), places)
    linear = solve(
        Program(
            cost=-profit.ravel(),
            lower=np.zeros(items * places),
            upper=np.ones(items * places),
            start=np.arange(0, 2 * items * places + 1, 2, dtype=np.int32),
            index=np.stack((item, items + place), axis=1).ravel().astype(np.int32),
            value=np.ones(2 * items * places),
            row_lower=np.concatenate((np.ones(items), np.zeros(places))),
            row_upper=np.concatenate((np.ones(items), room.astype(float))),
        )
    )
    chosen = transport(profit, room)
    assert -profit[np.arange(items), chosen].sum() == pytest.approx(linear.bound, abs=1e-9)
