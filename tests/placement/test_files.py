"""The placement file: round trip, and refusal of everything else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement import (
    IlpLoad,
    Placement,
    PlacementError,
    PlacementProblem,
    SolveReport,
    placement_json,
    read_placement,
)
from workloads import ExpertProfile

if TYPE_CHECKING:
    from pathlib import Path


def make_placement() -> Placement:
    """Place 2 layers x 4 experts on 2 servers of 2 GPUs."""
    load = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    problem = PlacementProblem(
        model="tiny",
        cost=np.array([[0.0, 1.0], [1.0, 0.0]]),
        profile=ExpertProfile(load=load, source="test"),
        top_k=1,
        gpus_per_server=2,
        layer_slots=3,
        server_slots=4,
    )
    return IlpLoad()(problem)


def test_round_trip(tmp_path: Path) -> None:
    """What is written is read back equal, its solve report included."""
    placement, path = make_placement(), tmp_path / "p.json"
    path.write_text(placement_json(placement))
    assert read_placement(path) == placement
    assert read_placement(path).solve == placement.solve


@pytest.mark.parametrize("bound", [None, 0.25])
def test_a_report_in_another_unit_is_not_written_as_hops(
    tmp_path: Path, bound: float | None
) -> None:
    """Seconds stand under keys of their own, the keys of hops are null, and all is read back."""
    report = SolveReport("feasible" if bound else "heuristic", 0.5, bound, 1.0, unit="seconds")
    placement, path = replace(make_placement(), solve=report), tmp_path / "p.json"
    path.write_text(placement_json(placement))
    solve = json.loads(path.read_text())["solve"]
    assert (solve["objective_hops"], solve["bound_hops"]) == (None, None)
    assert (solve["objective"], solve["bound"], solve["unit"]) == (0.5, bound, "seconds")
    assert read_placement(path).solve == report


def test_a_report_in_hops_has_the_keys_it_always_had(tmp_path: Path) -> None:
    """Files of before, without a unit, read as hops; seconds under hops' keys are refused."""
    content = json.loads(placement_json(make_placement()))
    assert list(content["solve"]) == ["status", "objective_hops", "bound_hops", "gap", "seconds"]
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    report = read_placement(path).solve
    assert report is not None
    assert report.unit == "hops"
    assert report.objective_hops == content["solve"]["objective_hops"]
    for change in ({"unit": "seconds"}, {"objective": 1.0}, {"objective_hops": None}):
        path.write_text(json.dumps(content | {"solve": content["solve"] | change}))
        with pytest.raises(PlacementError, match=r"p\.json: solve: a report in"):
            read_placement(path)


def test_replicas_round_trip(tmp_path: Path) -> None:
    """Redundant experts and uneven GPUs survive the file."""
    placement = Placement(
        model="tiny",
        layers=1,
        experts=2,
        gpus=2,
        gpus_per_server=1,
        slot_layer=np.zeros(3, dtype=np.int32),
        slot_gpu=np.array([0, 1, 1], dtype=np.int32),
        slot_expert=np.array([1, 1, 0], dtype=np.int32),
        policy="by hand",
    )
    path = tmp_path / "p.json"
    path.write_text(placement_json(placement))
    assert json.loads(path.read_text())["experts_on_gpu"] == [[[1], [1, 0]]]
    assert read_placement(path) == placement
    with pytest.raises(PlacementError, match="one slot per expert"):
        placement.gpu_of_expert  # noqa: B018  the property raises


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format: Input should be 'topomoe-placement'"),
        ({"version": 2}, "version: Input should be 1"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"experts": "4"}, "experts: Input should be a valid integer"),
        ({"gpus_per_server": 3}, "gpus_per_server 3 must divide the 4 GPUs"),
        ({"experts_on_gpu": [[[0], [1], [2], [3]]]}, "must hold 2 layers of 4 GPUs"),
        ({"experts": 10**12}, "lists 8 slots; 2 layers of 1000000000000 experts need one"),
        ({"experts_on_gpu": [[[0], [1], [2], [9]]] * 2}, "expert 9 is outside 0..3"),
        ({"experts_on_gpu": [[[0], [1], [2], [2]]] * 2}, "layer 0: expert 3 has no slot"),
        ({"experts_on_gpu": [[[0], [1], [2], [-1]]] * 2}, "greater than or equal to 0"),
        ({"experts_on_gpu": [[[0], [1], [2], [2**70]]] * 2}, "is outside 0..3"),
    ],
)
def test_broken_content_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """Every broken key is one line with the file and the key."""
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(json.loads(placement_json(make_placement())) | change))
    with pytest.raises(PlacementError, match=r"broken\.json") as caught:
        read_placement(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), junk=st.binary(max_size=8))
def test_truncated_or_garbled_files_are_refused_or_right(
    tmp_path: Path, cut: int, junk: bytes
) -> None:
    """A file cut anywhere and garbled is refused in one line, or reads as the same placement."""
    placement, path = make_placement(), tmp_path / "cut.json"
    text = placement_json(placement).encode()
    path.write_bytes(text[: min(cut, len(text))] + junk)
    try:
        assert read_placement(path) == placement
    except PlacementError as error:
        assert "\n" not in str(error)  # noqa: PT017  either outcome is right
