"""Reading recorded expert loads: what is accepted, and every way a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import ExpertProfile, WorkloadError, model, read_logical_count
from workloads.readers import json_file

if TYPE_CHECKING:
    from pathlib import Path

    from workloads import MoEModel

ALL_LAYERS = [[0, 0, 0, 0], [1, 2, 3, 4], [5, 5, 0, 0]]
LOAD = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.0, 0.0]]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one file that the tests overwrite."""
    return tmp_path_factory.mktemp("loads") / "loads.json"


def _read(file: Path, content: Any, shape: MoEModel) -> ExpertProfile:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    file.write_bytes(raw)
    return read_logical_count(file, shape)


def _refusal(file: Path, content: Any, shape: MoEModel) -> str:
    with pytest.raises(WorkloadError) as caught:
        _read(file, content, shape)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "counts",
    [
        ALL_LAYERS,
        ALL_LAYERS[1:],
        [ALL_LAYERS],
        [ALL_LAYERS, [[0] * 4] * 3],
        [[[1, 2, 3, 4], [5, 0, 0, 0]], [[0, 0, 0.0, 0], [0, 5.0, 0, 0]]],
    ],
)
def test_all_layers_moe_layers_and_steps_give_the_same_loads(
    file: Path, tiny: MoEModel, counts: Any
) -> None:
    """Dense rows are dropped by their absolute numbers, and steps are summed."""
    profile = _read(file, {"logical_count": counts}, tiny)
    assert profile.load == pytest.approx(np.array(LOAD))
    assert profile.source == "logical_count of loads.json"


def test_interleaved_dense_layers_are_dropped_where_they_stand(file: Path, tiny: MoEModel) -> None:
    """A dense layer between MoE layers is found by its number, not by its place in front."""
    shape = replace(tiny, moe_layers=(0, 2))
    counts = [ALL_LAYERS[1], [0] * 4, ALL_LAYERS[2]]
    assert _read(file, {"logical_count": counts}, shape).load == pytest.approx(np.array(LOAD))
    assert "layer 1 of tiny is dense" in _refusal(file, {"logical_count": ALL_LAYERS}, shape)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "key 'logical_count' is missing; keys there are: none"),
        ({"counts": [[1]]}, "is missing; keys there are: 'counts'"),
        ({"logical_count": ALL_LAYERS, "x": 1}, "unknown key 'x': only 'logical_count'"),
        ([1], "expected an object with the key 'logical_count', got a list"),
        ({"logical_count": None}, "logical_count: expected a list of counts, got a null"),
        ({"logical_count": []}, "logical_count: expected a list of counts, got an empty list"),
        ({"logical_count": [1, 2]}, "logical_count[0]: expected a list of counts, got a number"),
        ({"logical_count": ALL_LAYERS[:1]}, "1 rows, expected 3 (all layers of tiny) or 2"),
        ({"logical_count": [[1, 2, 3], *ALL_LAYERS[2:]]}, "logical_count[0]: 3 counts, expected 4"),
        ({"logical_count": [*ALL_LAYERS[:2], [1, 2, 3]]}, "logical_count[2]: 3 counts, expected 4"),
        ({"logical_count": [*ALL_LAYERS[:2], 7]}, "logical_count[2]: expected a list of counts"),
        (
            {"logical_count": [ALL_LAYERS, ALL_LAYERS[1:]]},
            "logical_count[1]: 2 rows, expected 3 as in logical_count[0]",
        ),
        (
            {"logical_count": [ALL_LAYERS, ALL_LAYERS[:1]]},
            "logical_count[1]: 1 rows, expected 3 (all layers",
        ),
        (
            {"logical_count": [[0, 0, 2, 0], *ALL_LAYERS[1:]]},
            "logical_count[0]: counts above zero, but layer 0 of tiny is dense",
        ),
        (
            {"logical_count": [*ALL_LAYERS[:2], [0] * 4]},
            "logical_count: row 2 is all zero, but it is an MoE layer of tiny",
        ),
    ],
)
def test_wrong_shape_names_key_and_row(
    file: Path, tiny: MoEModel, content: Any, expected: str
) -> None:
    """Each wrong shape is refused in one line with file, key and row."""
    assert expected in _refusal(file, content, tiny)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("NaN", "logical_count[2][1]: count is nan"),
        ("Infinity", "logical_count[2][1]: count is inf"),
        ("1e999", "logical_count[2][1]: count is inf"),
        ("-1", "logical_count[2][1]: count is -1.0"),
        ("-0.5", "logical_count[2][1]: count is -0.5"),
        ("true", "logical_count[2][1]: expected a number, got a boolean"),
        ('"7"', "logical_count[2][1]: expected a number, got a string"),
        ("null", "logical_count[2][1]: expected a number, got a null"),
        ("[1]", "logical_count[2][1]: expected a number, got a list"),
        ("{}", "logical_count[2][1]: expected a number, got a object"),
        ("1" + "0" * 400, "logical_count[2]: a count is beyond the range of float64"),
        ("1" + "0" * 5000, "not valid JSON"),
    ],
)
def test_wrong_cell_names_row_and_expert(
    file: Path, tiny: MoEModel, cell: str, expected: str
) -> None:
    """Each wrong value of a cell is refused where it stands."""
    text = f'{{"logical_count": [[0, 0, 0, 0], [1, 2, 3, 4], [5, {cell}, 0, 0]]}}'
    assert expected in _refusal(file, text.encode(), tiny)


def test_sums_beyond_float64_are_refused(file: Path, tiny: MoEModel) -> None:
    """Steps, or the experts of a layer, that sum to infinity are refused."""
    huge = [[1e308, 0, 0, 0], [1, 1, 1, 1]]
    assert "row 0 sum beyond" in _refusal(file, {"logical_count": [huge, huge]}, tiny)
    wide = [[1e308, 1e308, 0, 0], [1, 1, 1, 1]]
    assert "row 0 sum beyond" in _refusal(file, {"logical_count": wide}, tiny)


@settings(deadline=None)
@given(st.data())
def test_truncated_files_are_refused(file: Path, tiny: MoEModel, data: st.DataObject) -> None:
    """No proper beginning of a good file is accepted."""
    whole = json.dumps({"logical_count": ALL_LAYERS}).encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert "not valid JSON" in _refusal(file, whole[:cut], tiny)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(file: Path, tiny: MoEModel, content: bytes) -> None:
    """Bytes that are no JSON object end in one clear line."""
    _refusal(file, content, tiny)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=30,
)


@settings(deadline=None)
@given(_ANYTHING.filter(lambda value: not isinstance(value, int | float)), st.data())
def test_any_junk_in_a_cell_is_refused_there(
    file: Path, tiny: MoEModel, junk: Any, data: st.DataObject
) -> None:
    """Whatever is no number is refused by row and place, wherever it stands."""
    row, place = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    counts: list[list[Any]] = [list(values) for values in ALL_LAYERS]
    counts[row][place] = junk
    message = _refusal(file, {"logical_count": counts}, tiny)
    assert f"logical_count[{row}][{place}]: expected a number" in message


@given(_ANYTHING)
@settings(max_examples=100, deadline=None)
def test_any_json_is_refused_or_is_a_profile(file: Path, tiny: MoEModel, value: Any) -> None:
    """Whatever stands under the key, the answer is a checked profile or one clear line."""
    file.write_text(json.dumps({"logical_count": value}))
    refusal, profile = _outcome(file, tiny)
    if profile is None:
        assert refusal
        assert "\n" not in refusal
    else:
        assert profile.load.shape == (2, 4)


def _outcome(file: Path, shape: MoEModel) -> tuple[str, ExpertProfile | None]:
    """Return the refusal, or the profile."""
    try:
        return "", read_logical_count(file, shape)
    except WorkloadError as error:
        return str(error), None


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 10**6), min_size=4, max_size=4), min_size=2, max_size=2),
        min_size=1,
        max_size=4,
    )
)
def test_steps_are_summed_as_a_slow_loop_sums_them(
    file: Path, tiny: MoEModel, steps: list[list[list[int]]]
) -> None:
    """Loads of good files equal sums in integers, and an unused layer is refused."""
    sums = [[sum(step[row][e] for step in steps) for e in range(4)] for row in range(2)]
    document = {"logical_count": steps}
    if not all(map(any, sums)):
        assert "all zero" in _refusal(file, document, tiny)
        return
    expected = np.array([[count / sum(row) for count in row] for row in sums])
    assert _read(file, document, tiny).load == pytest.approx(expected)


def test_missing_files_folders_and_deep_nesting_are_refused(
    tmp_path: Path, file: Path, tiny: MoEModel
) -> None:
    """What cannot be opened or parsed at all is refused with the reason."""
    with pytest.raises(WorkloadError, match="cannot be read: No such file"):
        read_logical_count(tmp_path / "none.json", tiny)
    with pytest.raises(WorkloadError, match="cannot be read: Is a directory"):
        read_logical_count(str(tmp_path), tiny)
    assert "not valid JSON" in _refusal(file, b"[" * 100_000, tiny)


def test_files_are_limited_in_size(
    file: Path, tiny: MoEModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beyond the limit is refused before it is parsed."""
    monkeypatch.setattr(json_file, "MAX_FILE_BYTES", 20)
    assert "larger than 20 bytes" in _refusal(file, {"logical_count": ALL_LAYERS}, tiny)


@pytest.mark.real_data
def test_recorded_loads_are_read(real_data: Path) -> None:
    """All recordings of DeepSeek-R1 fit its preset, and no other model's."""
    files = sorted((real_data / "deepseek-r1-loads").glob("*.json"))
    assert files
    for file in files:
        assert read_logical_count(file, model("DeepSeek-R1")).load.shape == (58, 256)
    with pytest.raises(WorkloadError, match="61 rows, expected 28"):
        read_logical_count(files[0], model("DeepSeekMoE-16B"))
