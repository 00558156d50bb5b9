"""Reading per-token traces: what is accepted, and every way a file can be wrong."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import RoutingTrace, WorkloadError, model, read_trace
from workloads.readers import arrays

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from workloads import MoEModel

IDS = np.array([[[0, 1], [2, 3]], [[3, 2], [1, 0]], [[1, 2], [0, 3]]])
LENGTHS = np.array([2, 1])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one file that the tests overwrite."""
    return tmp_path_factory.mktemp("traces") / "trace.npz"


def _packed(save: Callable[..., None] = np.savez, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **({"topk_ids": IDS, "seq_lens": LENGTHS} | arrays))
    return buffer.getvalue()


def _read(file: Path, content: bytes, shape: MoEModel) -> RoutingTrace:
    file.write_bytes(content)
    return read_trace(file, shape)


def _refusal(file: Path, content: bytes, shape: MoEModel) -> str:
    with pytest.raises(WorkloadError) as caught:
        _read(file, content, shape)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", "i4", ">i8", "u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_integer_type_and_order_is_read(
    file: Path, tiny: MoEModel, save: Callable[..., None], dtype: str, order: Any
) -> None:
    """Ids of any width and memory order come out the same, and narrow."""
    content = _packed(save, topk_ids=np.asarray(IDS.astype(dtype), order=order), other=np.ones(3))
    trace = _read(file, content, tiny)
    assert trace.topk.dtype == np.uint8
    assert np.array_equal(trace.topk, IDS)
    assert (trace.seq_lens.tolist(), trace.source) == ([2, 1], "trace trace.npz")


def _with(token: int, layer: int, choice: int, value: int) -> NDArray[np.int64]:
    ids = IDS.copy()
    ids[token, layer, choice] = value
    return ids


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"topk_ids": _with(1, 0, 1, 4)}, "token 1, layer 0: expert id 4, expected 0..3"),
        ({"topk_ids": _with(2, 1, 0, -1)}, "token 2, layer 1: expert id -1, expected 0..3"),
        ({"topk_ids": _with(2, 1, 0, 256)}, "token 2, layer 1: expert id 256"),
        ({"topk_ids": _with(0, 1, 0, 3)}, "token 0, layer 1: expert 3 chosen twice"),
        ({"topk_ids": IDS[:, :1]}, "shape (3, 1, 2), expected (tokens, 2 MoE layers, 2 choices)"),
        ({"topk_ids": IDS[:, :, :1]}, "shape (3, 2, 1), expected (tokens, 2 MoE layers, 2"),
        ({"topk_ids": IDS[0]}, "shape (2, 2), expected (tokens"),
        (
            {"topk_ids": IDS[:0]},
            "shape (0, 2, 2), expected (tokens, 2 MoE layers, 2 choices), at least one token",
        ),
        ({"topk_ids": IDS.astype(float)}, "key 'topk_ids': expected integers, got float64"),
        ({"topk_ids": IDS > 1}, "key 'topk_ids': expected integers, got bool"),
        ({"topk_ids": IDS.astype(str)}, "key 'topk_ids': expected integers, got <U"),
        ({"topk_ids": IDS.astype(object)}, "key 'topk_ids': expected integers, got object"),
        ({"seq_lens": np.array([2, 2])}, "seq_lens sum to 4, expected the 3 tokens"),
        ({"seq_lens": np.array([[3]])}, "key 'seq_lens': shape (1, 1), expected (sequences)"),
        ({"seq_lens": np.array([1.5, 1.5])}, "key 'seq_lens': expected integers, got float64"),
        ({"seq_lens": np.array([4, -1])}, "seq_lens[0] is 4, expected 1..3"),
    ],
)
def test_wrong_arrays_name_key_and_place(
    file: Path, tiny: MoEModel, arrays: dict[str, Any], expected: str
) -> None:
    """Each wrong array is refused in one line with file, key, and token, layer and id."""
    assert expected in _refusal(file, _packed(**arrays), tiny)


def test_missing_keys_are_listed(file: Path, tiny: MoEModel) -> None:
    """The line says which array is missing and which there are."""
    buffer = io.BytesIO()
    np.savez(buffer, topk=IDS)
    assert "key 'topk_ids' is missing; keys there are: 'topk'" in _refusal(
        file, buffer.getvalue(), tiny
    )


def _archive(member: bytes) -> bytes:
    """Return an npz whose ``topk_ids`` is `member`, byte for byte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("topk_ids.npy", member)
    return buffer.getvalue()


def _npy(header: str, *, version: int = 1, data: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (
            _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2000000000000, 2, 2)}"),
            "8000000000000 bytes, expected at most 1073741824",
        ),
        (
            _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9000000, 2, 2)}"),
            "header promises 36000000 bytes, the file holds 0",
        ),
        (
            _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 2, 2)}"),
            "shape (-1, 2, 2)",
        ),
        (_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3L, 2, 2)}"), "promises 12"),
        (_npy("{'descr': ("), "not a readable npz file"),
        (_npy("-" * 9000 + "1"), "not a readable npz file"),
        (_npy("__import__('os').abort()"), "not a readable npz file"),
        (_npy("{}", version=3), "npy version (3, 0)"),
        (_npy("{'shape': " + " " * 20000 + "}"), "not a readable npz file"),
        (_npy("{}", version=2), "npy version (2, 0)"),
        (b"", "not a readable npz file"),
    ],
)
def test_hostile_headers_are_refused_before_memory_is_taken(
    file: Path, tiny: MoEModel, member: bytes, expected: str
) -> None:
    """What a header claims is checked against limits and the file before it is believed."""
    assert expected in _refusal(file, _archive(member), tiny)


def test_unpacked_size_is_limited(
    file: Path, tiny: MoEModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A well-formed array beyond the limit is refused too: few packed bytes can be many."""
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 95)
    # 3 * 2 * 2 ids of 8 bytes are 96.
    assert "96 bytes, expected at most 95" in _refusal(file, _packed(), tiny)


def test_pickles_are_never_loaded(file: Path, tiny: MoEModel) -> None:
    """An object array is refused by its header, its pickle unread."""
    content = _archive(
        _npy(
            "{'descr': '|O', 'fortran_order': False, 'shape': (3, 2, 2)}", data=b"cos\nabort\n(tR."
        )
    )
    assert "expected integers, got object" in _refusal(file, content, tiny)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@settings(deadline=None)
@given(st.data())
def test_truncated_files_are_refused(
    file: Path, tiny: MoEModel, save: Callable[..., None], data: st.DataObject
) -> None:
    """No proper beginning of a good file is accepted."""
    whole = _packed(save)
    cut = data.draw(st.integers(0, len(whole) - 1))
    _refusal(file, whole[:cut], tiny)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_refused_or_read_whole(
    file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """A changed byte ends in one clear line or, where it does not matter, in the same trace."""
    content = bytearray(_packed())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content))
    refusal, trace = _outcome(file, tiny)
    if trace is None:
        assert refusal
        assert "\n" not in refusal
    else:
        assert np.array_equal(trace.topk, IDS)
        assert np.array_equal(trace.seq_lens, LENGTHS)


def _outcome(file: Path, shape: MoEModel) -> tuple[str, RoutingTrace | None]:
    """Return the refusal, or the trace."""
    try:
        return "", read_trace(file, shape)
    except WorkloadError as error:
        return str(error), None


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(file: Path, tiny: MoEModel, content: bytes) -> None:
    """Bytes that are no archive, or no array inside one, end in one clear line."""
    _refusal(file, content, tiny)
    _refusal(file, _archive(content), tiny)


def test_missing_files_and_folders_are_refused(tmp_path: Path, tiny: MoEModel) -> None:
    """What cannot be opened is refused with the reason."""
    with pytest.raises(WorkloadError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.npz", tiny)
    with pytest.raises(WorkloadError, match=r"meta\.json: cannot be read: No such file"):
        read_trace(str(tmp_path), tiny)


@pytest.mark.real_data
@pytest.mark.parametrize(("task", "tokens"), [("intent", 8222), ("law", 8327)])
def test_recorded_traces_are_read(real_data: Path, task: str, tokens: int) -> None:
    """DeepSeek-V2-Lite traces fit their preset, equal what numpy reads, and fit no other model."""
    file = real_data / "deepseek-v2-lite-traces" / f"{task}.npz"
    trace = read_trace(file, model("DeepSeek-V2-Lite"))
    assert (trace.tokens, trace.layers, trace.top_k) == (tokens, 26, 6)
    with np.load(file) as arrays:
        assert np.array_equal(trace.topk, arrays["topk_ids"])
        assert np.array_equal(trace.seq_lens, arrays["seq_lens"])
    with pytest.raises(WorkloadError, match=r"expected \(tokens, 27 MoE layers"):
        read_trace(file, model("DeepSeekMoE-16B"))
