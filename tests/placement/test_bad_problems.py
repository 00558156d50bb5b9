"""Problems that contradict themselves: each refused in one line that says what would do."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf, nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from placement import Contiguous, DataParallel, InfeasibleError, PlacementError, PlacementProblem
from placement.balance import Balanced
from placement.field import HottestEverywhere
from placement.moves import Replace
from placement.replicas import Replicated
from workloads import ExpertProfile, MoEModel, SyntheticWorkload

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = MoEModel("small", 2, (0, 1), 8, 2, 0, 4, 2)


def even(layers: int = 2, experts: int = 8) -> ExpertProfile:
    """Loads that are all the same."""
    return ExpertProfile.from_counts(np.ones((layers, experts)), source="decode.json")


def build(
    shape: MoEModel = MODEL, profile: ExpertProfile | None = None, layers: int = 2, servers: int = 2
) -> PlacementProblem:
    """Build a problem of 2 servers of 2 GPUs with an attention of `layers` and `servers`."""
    return PlacementProblem.build(
        shape,
        np.zeros((2, 2), dtype=int),
        DataParallel(layers, servers, 2),
        even() if profile is None else profile,
        gpus_per_server=2,
    )


def hot(load: float) -> PlacementProblem:
    """Expert 5 of layer 1 weighs `load`, every other expert 1."""
    counts = np.ones((2, 8))
    counts[1, 5] = load
    return build(profile=ExpertProfile.from_counts(counts, source="hot"))


def choosing_two() -> ExpertProfile:
    """Count 16 tokens that chose two experts each."""
    return SyntheticWorkload(MODEL, 0).profile(16)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: build(profile=even(3, 8)),
            "profile from 'decode.json' counts 3 MoE layers x 8 experts, model 'small' has 2 x 8",
        ),
        (lambda: build(profile=even(2, 16)), "counts 2 MoE layers x 16 experts"),
        (lambda: build(layers=3), "attention 'data-parallel' is of 3 MoE layers on 2 servers"),
        (lambda: build(servers=4), "of 2 MoE layers on 4 servers, model 'small' and cluster"),
        (
            lambda: build(replace(MODEL, top_k=4), choosing_two()),
            "tokens that chose 2 experts, model 'small' has top_k 4; expected the same",
        ),
        (lambda: replace(build(), top_k=0), "top_k is 0, expected at least 1"),
        (lambda: replace(build(), gpus_per_server=0), "gpus_per_server is 0"),
        (lambda: replace(build(), n_group=3), "n_group 3 does not divide 8 experts"),
        # Mean of two servers is 1/2; 21/28 of the load on one expert are 1.5 times that. With
        # C_exp 8 a server that takes 7 experts of layer 1 has room for one of layer 0; what is
        # named is what even counts reach, three beside the hottest: 24/28.
        (
            lambda: Balanced(1.2)(hot(21)),
            "layer 1: expert 5 alone carries 1.5 x .*beta found is 1.7143 .*, or 2 rep",
        ),
        # With C_exp 16 it may stand alone.
        (
            lambda: Balanced(1.2)(replace(hot(21), server_slots=16)),
            "least workable beta found is 1.5000, or 2 replicas of that expert",
        ),
        (lambda: Balanced(nan)(build()), "beta must be a number of at least 1 .*, got nan"),
        (lambda: Balanced(inf)(build()), "got inf"),
        (lambda: Balanced(0.9)(build()), "got 0.9"),
        (lambda: Replicated(8, cap=nan)(build()), "cap is nan; expected finite multiples"),
        (lambda: Replicated(8, cap=(1.5, inf))(build()), r"cap is \(1.5, inf\)"),
        (
            lambda: Replicated(28)(build()),
            "36 slots for 8 experts need more replicas of an expert than the 4 GPUs; redundant is",
        ),
        (
            lambda: HottestEverywhere(9)(build()),
            r"hottest is 9, expected 1\.\.8, .*; all of them on every server take 8 redundant",
        ),
        (
            lambda: HottestEverywhere(9, scope="gpu")(build()),
            "all of them on every gpu take 24 redundant slots",
        ),
        (
            lambda: Replace(Contiguous()(build(replace(MODEL, name="other"))))(build()),
            "the previous placement has model 'other', the problem has 'small'; expected the same",
        ),
        (
            lambda: Replace(Contiguous()(build(replace(MODEL, experts=16), profile=even(2, 16))))(
                build()
            ),
            "the previous placement has experts 16, the problem has 8",
        ),
    ],
)
def test_contradictions_are_refused(make: Callable[[], Any], expected: str) -> None:
    """Each says what came and what was expected, in one line."""
    with pytest.raises(PlacementError, match=expected) as caught:
        make()
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(["server", "gpu"]), st.sampled_from([8, 10, 16]))
def test_the_named_beta_works(seed: int, scope: str, server_slots: int) -> None:
    """Whatever beta the refusal names, a placement within it is found, C_exp included."""
    load = np.random.default_rng(seed).pareto(0.8, (2, 8)) + 0.1
    problem = build(profile=ExpertProfile.from_counts(load, source="skewed"))
    problem = replace(problem, server_slots=server_slots)
    try:
        Balanced(1.02, scope=scope)(problem)
    except InfeasibleError as error:
        text = str(error)
    else:
        assume(False)  # noqa: FBT003  hypothesis takes it by position
    found = re.search(r"least workable beta found is ([\d.]+\d)", text)
    assert found is not None
    Balanced(float(found[1]), scope=scope)(problem)


@pytest.mark.parametrize(("server_slots", "beta"), [(8, 1.5713), (16, 1.4999)])
def test_a_beta_below_the_least_does_not_work(server_slots: int, beta: float) -> None:
    """Just below the least that can be, the refusal stands.

    With C_exp 8 and six experts of layer 0 (12/8 of the mean) beside the hottest, one more of
    layer 1 must join it: 22/28 are 1.5714 x the mean.
    """
    with pytest.raises(InfeasibleError):
        Balanced(beta)(replace(hot(21), server_slots=server_slots))


def test_all_experts_on_every_server_take_what_the_message_says() -> None:
    """8 experts on 2 servers: 8 redundant slots, and on 4 GPUs 24."""
    assert HottestEverywhere(8)(build()).redundant == 2 * 8
    assert HottestEverywhere(8, scope="gpu")(build()).redundant == 2 * 24
