"""One suite over every policy and every variant: the contract, the caps, names, starts, reports."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conformance_cases import (
    CASES,
    TIE_FREE,
    Case,
    expert_order,
    rename_experts,
    rename_servers,
    server_order,
)
from conformance_judges import hops, place_load
from conformance_policies import VARIANTS, Variant

from placement import Placement, PlacementError, placement_json
from placement.conformance import ConformanceError, check_policy

HERE = Path(__file__).resolve()


TO_RENAME = [
    pytest.param(variant, case, id=f"{variant.name}-{case.name}")
    for variant in VARIANTS.values()
    for case in TIE_FREE
    if variant.accepts(case)
]


@cache
def placed(name: str, case: Case) -> Placement:
    """Return what a variant places, called once for all tests."""
    variant = VARIANTS[name]
    return variant.make(case)(case.given(variant.takes))


def checked(variant: Variant, case: Case) -> Placement:
    """Hold a variant to the contract, to its options' promise, and to its start."""
    policy = variant.make(case)
    placement = check_policy(
        policy,
        case.given(variant.takes),
        judge=lambda made: variant.judge(made, case, policy),
        repeats=variant.repeats,
    )
    assert variant.keeps(placement, case)
    start = variant.start(policy, case)
    if start is not None:
        assert placement.solve.objective <= start + 1e-9
    return placement


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_contract(variant: Variant, case: Case) -> None:
    """Valid, within the caps, deterministic, pure, honest; or refused in one line."""
    if variant.accepts(case):
        checked(variant, case)
        return
    with pytest.raises(PlacementError) as refusal:
        variant.make(case)(case.given(variant.takes))
    assert not isinstance(refusal.value, ConformanceError)
    assert "\n" not in str(refusal.value)


def slots(placement: Placement, expert: np.ndarray, inside: int = 1) -> list[tuple[int, ...]]:
    """Every (layer, GPU or server, expert), sorted."""
    place = placement.slot_gpu // inside
    return sorted(zip(placement.slot_layer.tolist(), place.tolist(), expert.tolist(), strict=True))


def check_law(
    law: str, cases: tuple[Case, Case], pair: tuple[Placement, Placement], named: np.ndarray
) -> None:
    """Hold the placements of a case and of its renamed twin to a law of `Variant`.

    `named` [slots]: the experts of the first placement's slots, by the names of the law.
    """
    before, after = pair
    old, new = before.solve, after.solve
    if law in {"same", "follows", "home"}:
        inside = before.gpus_per_server if law == "home" else 1
        assert slots(before, named, inside) == slots(after, after.slot_expert, inside)
    if law == "load":
        heat, again = (
            np.sort(place_load(p, case, "gpu")) for p, case in zip(pair, cases, strict=True)
        )
        np.testing.assert_allclose(again, heat, rtol=1e-9)
    if law == "value":
        value, again = (
            hops(p, case) if p.solve is None else p.solve.objective
            for p, case in zip(pair, cases, strict=True)
        )
        assert again == pytest.approx(value, rel=1e-9, abs=1e-9)
    if law in {"value", "bound"} or (law == "full" and is_full(cases[0])):
        if old is None:
            return
        assert (new.bound is None) == (old.bound is None)
        floor = 0.0 if old.unit == "seconds" else 1e-9
        assert new.bound is None or new.bound == pytest.approx(old.bound, rel=1e-9, abs=floor)


def is_full(case: Case) -> bool:
    """Whether experts take all slots that the caps allow."""
    problem = case.problem
    return problem.servers * problem.server_slots == problem.layers * problem.experts


@pytest.mark.parametrize(("variant", "case"), TO_RENAME)
def test_renaming_servers(variant: Variant, case: Case) -> None:
    """With costs, distances, links and previous placements renamed, the variant's law holds."""
    renamed = rename_servers(case, server_order(case))
    before = placed(variant.name, case)
    after = checked(variant, renamed)
    check_law(variant.servers, (case, renamed), (before, after), before.slot_expert)


@pytest.mark.parametrize(("variant", "case"), TO_RENAME)
def test_renaming_experts(variant: Variant, case: Case) -> None:
    """With loads, choices and previous placements renamed, the variant's law holds."""
    order = expert_order(case)
    renamed = rename_experts(case, order)
    before, after = placed(variant.name, case), placed(variant.name, renamed)
    name = np.arange(len(order)) if variant.experts == "same" else np.argsort(order)
    check_law(variant.experts, (case, renamed), (before, after), name[before.slot_expert])


@pytest.mark.parametrize("law", ["same", "follows", "home", "load", "value", "bound", "full"])
def test_each_law_can_be_broken(law: str) -> None:
    """Consecutive runs do not follow renamed experts, and other loads have other optima."""
    case = TIE_FREE[1]
    order = expert_order(case)
    if law in {"same", "follows", "home"}:
        name, other = "contiguous", rename_experts(case, order)
    else:
        name, problem = "ilp-load", replace(case.problem, profile=case.second)
        other = replace(case, origins=replace(case.origins, problem=problem))
    before, after = placed(name, case), placed(name, other)
    with pytest.raises(AssertionError):
        check_law(law, (case, other), (before, after), np.argsort(order)[before.slot_expert])


def test_instances_for_renaming_have_no_ties() -> None:
    """All costs and loads of a layer differ, so that no answer hangs on a name."""
    for case in TIE_FREE:
        for rows in (case.problem.cost, case.problem.profile.load):
            assert all(len(np.unique(row)) == len(row) for row in rows)


def digests() -> str:
    """Hash what every variant places on one case, seconds apart."""
    case = CASES["loose"]
    lines = []
    for name in VARIANTS:
        placement = placed(name, case)
        report = placement.solve
        said = report and (report.status, report.objective, report.bound, report.limit)
        text = placement_json(placement).split('"policy"')[0] + repr(said)
        lines.append(f"{name} {hashlib.sha256(text.encode()).hexdigest()}")
    return "\n".join(lines)


def test_other_processes_place_the_same() -> None:
    """A process with other string hashes gets the same placements and reports, bit by bit."""
    path = os.pathsep.join((str(HERE.parent), str(HERE.parents[2])))
    done = subprocess.run(
        [sys.executable, "-c", "import test_conformance; print(test_conformance.digests())"],
        env={**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().splitlines() == digests().splitlines()
