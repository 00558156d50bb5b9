"""Dumps of SGLang's recorder: read with torch, and nothing in them is executed."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutate import cut_or_flip, outcome

from workloads import LoadCounts, RoutingTrace, WorkloadError, read_load, read_trace
from workloads.readers.sglang_dump import read_dump_counts, read_dump_trace

if TYPE_CHECKING:
    from pathlib import Path

    from workloads import MoEModel


def test_without_torch_one_line_names_the_extra(tmp_path: Path) -> None:
    """Where torch is absent, the line says what to install."""
    path = tmp_path / "dump.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from experiments.cli import status\n"
        "sys.exit(status(['place', '--cluster', 'ep32', '--load', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "torch is not installed; install topomoe with the extra 'capture'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_dump_is_refused_before_torch_is_asked(tmp_path: Path, tiny: MoEModel) -> None:
    """Packed members, members longer than the file, no pickle, no archive."""
    path = tmp_path / "dump.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    for read in (read_dump_counts, read_dump_trace):
        with pytest.raises(WorkloadError, match=f"{path}: members of 16777216 bytes in a file of"):
            read(path, tiny)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data", b"x")
    with pytest.raises(WorkloadError, match="no pickle in the archive"):
        read_dump_counts(path, tiny)
    path.write_bytes(pickle.dumps({"logical_count": [[1]]}))
    with pytest.raises(WorkloadError, match="not a readable dump: File is not a zip file"):
        read_dump_counts(path, tiny)
    with pytest.raises(WorkloadError, match="cannot be read: No such file"):
        read_dump_counts(tmp_path / "none.pt", tiny)
    with pytest.raises(WorkloadError, match="cannot be read: Is a directory"):
        read_dump_counts(tmp_path, tiny)


COUNTS = [[[0, 0, 0, 0], [1, 2, 3, 4], [5, 0, 0, 1]], [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]]
MAP = [[0, 1, 2, 3, 0, 0], [3, 2, 1, 0, 0, 1], [0, 0, 1, 2, 3, 3]]
"""Slots of the dense layer 0 and of layers 1 and 2."""

# Pass 0: two tokens and one of padding; layer 1 slots (0, 1) are experts (3, 2), (4, 5) are
# (0, 1); layer 2 slots (5, 3) are (3, 2), (1, 2) are (0, 1).
FIRST = [
    [[-1, -1]] * 3,
    [[0, 1], [4, 5], [-1, -1]],
    [[5, 3], [1, 2], [-1, -1]],
]
SECOND = [[[-1, -1]], [[2, 3]], [[0, 4]]]
TOPK = [[[3, 2], [3, 2]], [[0, 1], [0, 1]], [[1, 0], [0, 3]]]


@pytest.fixture
def torch() -> Any:
    """Return torch, or skip where it is absent."""
    return pytest.importorskip("torch")


def stat(torch: Any, **changes: Any) -> dict[str, Any]:
    """Return the content of a ``stat`` dump."""
    return {"rank": 0, "logical_count": torch.tensor(COUNTS), **changes}


def per_token(torch: Any, **changes: Any) -> dict[str, Any]:
    """Return the content of a ``per_token`` dump."""
    records = [
        {
            "input_ids": torch.tensor(range(len(ids[0]))),
            "topk_ids_of_layer": torch.tensor(ids, dtype=torch.int32),
            "forward_mode": 1,
        }
        for ids in (FIRST, SECOND)
    ]
    return {"records": records, "last_physical_to_logical_map": torch.tensor(MAP), **changes}


def saved(torch: Any, content: Any) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.capture
def test_counts_of_a_stat_dump(file: Path, tiny: MoEModel, torch: Any) -> None:
    """The buffer's entries are steps, dense rows are dropped; integers or floats."""
    for dtype in (torch.int32, torch.int64, torch.float32):
        file.write_bytes(saved(torch, stat(torch, logical_count=torch.tensor(COUNTS, dtype=dtype))))
        loads = read_load(file, tiny)
        assert loads.counts.tolist() == [step[1:] for step in COUNTS]


@pytest.mark.capture
def test_choices_of_a_per_token_dump(file: Path, tiny: MoEModel, torch: Any) -> None:
    """Physical ids become logical by the map, padding is left out, passes are sequences."""
    file.write_bytes(saved(torch, per_token(torch)))
    trace = read_trace(file, tiny)
    assert trace.topk.tolist() == TOPK
    assert trace.seq_lens.tolist() == [2, 1]


@pytest.mark.capture
def test_each_wrong_dump_is_one_line(file: Path, tiny: MoEModel, torch: Any) -> None:
    """The line says which key, which record, layer and token, and what was expected."""
    ids = torch.tensor(FIRST, dtype=torch.int32)
    beyond, half, dense = ids.clone(), ids.clone(), ids.clone()
    beyond[1, 0, 0], half[2, 2, 0], dense[0, 0, 0] = 6, 3, 1
    wide = torch.zeros(1, dtype=torch.int64).expand(1 << 20, 1 << 20, 4)
    sparse = torch.tensor(COUNTS).to_sparse()
    bad = torch.tensor(COUNTS, dtype=torch.float32)
    bad[1, 2, 3] = float("nan")
    cases = [
        (stat(torch, logical_count=torch.tensor(COUNTS)[0]), "shape (3, 4), expected 3 axes"),
        (stat(torch, logical_count=torch.tensor(COUNTS)[:, :2, :3]), "3 experts, expected 4"),
        (stat(torch, logical_count=COUNTS), "expected a tensor, got a list"),
        (stat(torch, logical_count=wide), "more than 1073741824 bytes"),
        (stat(torch, logical_count=sparse), "expected a plain tensor in main memory"),
        (stat(torch, logical_count=bad), "logical_count[1][2][3]: nan, expected a finite"),
        (stat(torch, logical_count=-torch.tensor(COUNTS)), "logical_count[0][1][0]: -1.0"),
        (stat(torch, logical_count=torch.tensor(COUNTS).bfloat16()), "torch.bfloat16, expected"),
        (stat(torch, logical_count=torch.tensor(COUNTS) + 1), "layer 0 of tiny is dense"),
        ([1, 2], "holds a list, expected a dictionary"),
        ({"rank": 0}, "key 'logical_count' is missing; keys there are: 'rank'"),
    ]
    cases += [
        (per_token(torch, records=[{"topk_ids_of_layer": ids_}]), text)
        for ids_, text in (
            (beyond, "records[0]: topk_ids_of_layer: layer 1, token 0: slot 6, expected 0..5"),
            (half, "layer 1, token 2: slot -1, expected 0..5, or -1 throughout"),
            (dense, "choices in layer 0, which is dense in tiny"),
            (ids[:2], "shape (2, 3, 2), expected (3 layers of tiny, tokens, 2 choices)"),
            (ids * 0 - 1, "records: no token in it"),
            (ids.float(), "float32, expected integers"),
        )
    ]
    cases += [
        (per_token(torch, records={}), "key 'records': expected a list of records"),
        (per_token(torch, records=[1]), "records[0]: expected a dictionary, got a int"),
        (per_token(torch, last_physical_to_logical_map=torch.tensor(MAP)[1:]), "2 rows, expected"),
        (per_token(torch, last_physical_to_logical_map=torch.tensor(MAP) + 1), "[0][3]: expert 4"),
    ]
    for content, expected in cases:
        file.write_bytes(saved(torch, content))
        counts = "records" not in content
        read = read_dump_counts if counts else read_dump_trace
        message, found = outcome(lambda read=read: read(file, tiny), file, WorkloadError)
        assert found is None
        assert expected in message
    file.write_bytes(saved(torch, stat(torch)))
    with pytest.raises(WorkloadError, match="sums; give it as loads"):
        read_trace(file, tiny, form="sglang-dump")
    file.write_bytes(saved(torch, per_token(torch)))
    with pytest.raises(WorkloadError, match="choices of tokens; give it as a trace"):
        read_load(file, tiny, form="sglang-dump")


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.capture
def test_pickles_are_not_executed(
    tmp_path: Path, tiny: MoEModel, torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump that would run code is refused, and the code has not run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "dump.pt"
    path.write_bytes(saved(torch, stat(torch, rank=Evil())))
    for read in (read_load, read_trace, read_dump_counts, read_dump_trace):
        with pytest.raises(WorkloadError, match="not executed") as caught:
            read(path, tiny)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.capture
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_dumps_are_one_line_or_data(
    file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """A dump cut anywhere, or with one byte changed, ends in one line or in checked data."""
    torch = pytest.importorskip("torch")
    make, read, kind = data.draw(
        st.sampled_from(
            [(stat, read_dump_counts, LoadCounts), (per_token, read_dump_trace, RoutingTrace)]
        )
    )
    file.write_bytes(cut_or_flip(data, saved(torch, make(torch))))
    message, found = outcome(lambda: read(file, tiny), file, WorkloadError)
    assert message or isinstance(found, kind)


@pytest.mark.capture
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_dumps_translate_as_a_plain_loop_does(
    file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """Any map and any distinct choices: the same logical ids as looked up one by one."""
    torch = pytest.importorskip("torch")
    slots = [data.draw(st.permutations([0, 1, 2, 3, *range(4)])) for _ in range(3)]
    tokens = data.draw(st.integers(1, 4))
    ids = np.full((3, tokens, 2), -1)
    for layer in (1, 2):
        for token in range(tokens):
            chosen = data.draw(st.permutations(range(4)))[:2]
            ids[layer, token] = [slots[layer].index(expert) for expert in chosen]
    record = {"topk_ids_of_layer": torch.tensor(ids, dtype=torch.int32)}
    content = {"records": [record], "last_physical_to_logical_map": torch.tensor(slots)}
    file.write_bytes(saved(torch, content))
    expected = [
        [[slots[layer][slot] for slot in ids[layer, token]] for layer in (1, 2)]
        for token in range(tokens)
    ]
    assert read_trace(file, tiny).topk.tolist() == expected
