"""Every format of loads and traces: golden examples, write and read again, wrong in every way."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutate import as_json, cut_or_flip, mutate, outcome

from workloads import LoadCounts, RoutingTrace, WorkloadError, model, read_load, read_trace, writers
from workloads.readers.any_file import LOADS, TRACES, guess_load, guess_trace
from workloads.readers.peek import Peek, peek

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workloads import MoEModel

STATS = [
    {
        "record_type": "eplb_load_stats",
        "version": 1,
        "step": 7,
        "num_ranks": 2,
        "expert_load": [[5, 1, 0, 3, 2, 4], [0, 0, 1, 1, 1, 9]],
        "p2l_map": [[0, 1, 2, 0, 3, 1], [3, 2, 1, 0, 2, 2]],
    },
    {
        "record_type": "eplb_load_stats",
        "version": 1,
        "step": 3,
        "num_ranks": 2,
        "expert_load": [[1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2]],
        "p2l_map": [[0, 1, 2, 3, 0, 0], [0, 1, 2, 3, 1, 1]],
    },
]
STATS_COUNTS = [[[3, 1, 1, 1], [2, 6, 2, 2]], [[8, 5, 0, 2], [1, 1, 10, 0]]]
"""By hand, by step: step 7, layer 0: expert 0 in slots 0 and 3 took 5 + 3, and so on."""

WEIGHT = {"weight": [[1, 2, 3, 4], [5.5, 0, 0, 1]]}


def lines(records: list[Any]) -> bytes:
    """Write a record a line."""
    return b"\n".join(as_json(record) for record in records)


def npz(save: Callable[..., None] = np.savez, **arrays: Any) -> bytes:
    """Return arrays as the content of an npz file."""
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    """Return an array as the content of an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def counts_of(file: Path, content: bytes, shape: MoEModel) -> Any:
    """Read loads of whatever format."""
    file.write_bytes(content)
    return read_load(file, shape).counts.tolist()


def refused(read: Callable[..., Any], file: Path, content: bytes, shape: MoEModel) -> str:
    """Return the one line that refuses a file."""
    file.write_bytes(content)
    message, found = outcome(lambda: read(file, shape), file, WorkloadError)
    assert found is None
    return message


def test_golden_loads(file: Path, tiny: MoEModel) -> None:
    """Files made by hand are known by their content and give the counts computed by hand."""
    assert counts_of(file, lines(STATS), tiny) == STATS_COUNTS
    assert counts_of(file, as_json(WEIGHT), tiny) == [WEIGHT["weight"]]
    dense = [[0, 0, 0, 0], *WEIGHT["weight"]]
    for content in (
        as_json({"weight": dense}),
        npz(weight=np.array(dense)),
        npy(WEIGHT["weight"]),
        npz(np.savez_compressed, weight=np.array(WEIGHT["weight"])),
        as_json({"logical_count": dense}),
        as_json({"logical_count": [dense]}),
    ):
        assert counts_of(file, content, tiny) == [WEIGHT["weight"]]


def test_each_format_of_loads_by_name(file: Path, tiny: MoEModel) -> None:
    """A format that is named is not guessed, and an unknown one lists the allowed."""
    file.write_bytes(as_json(WEIGHT))
    assert read_load(file, tiny, form="eplb-load").counts.shape == (1, 2, 4)
    with pytest.raises(WorkloadError, match="key 'logical_count' is missing"):
        read_load(file, tiny, form="sglang-load")
    with pytest.raises(WorkloadError, match="unknown format 'x' of loads; allowed: sglang-load, "):
        read_load(file, tiny, form="x")
    with pytest.raises(WorkloadError, match="unknown format 'x' of traces; allowed: topomoe-trace"):
        read_trace(file, tiny, form="x")


IDS = np.array([[[0, 1], [2, 3]], [[3, 0], [1, 0]], [[2, 1], [0, 3]]])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64"])
@pytest.mark.parametrize("fill", [None, 0, -1])
def test_golden_routed_experts(file: Path, tiny: MoEModel, dtype: str, fill: int | None) -> None:
    """Any width of id, npz or npy, with or without rows for dense layers."""
    if fill == -1 and dtype.startswith("u"):
        fill = 0
    rows = IDS if fill is None else np.insert(IDS, 0, fill, axis=1)
    for content in (npz(routed_experts=rows.astype(dtype)), npy(rows.astype(dtype))):
        file.write_bytes(content)
        trace = read_trace(file, tiny)
        assert np.array_equal(trace.topk, IDS)
        assert trace.seq_lens.tolist() == [3]
    file.write_bytes(npz(routed_experts=rows.astype(dtype), seq_lens=np.array([1, 2])))
    assert read_trace(file, tiny).seq_lens.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (npz(routed_experts=IDS[:, :1]), "shape (3, 1, 2), expected (tokens, 2 MoE layers or all"),
        (npz(routed_experts=IDS[:, :, :1]), "shape (3, 2, 1), expected (tokens, 2 MoE layers or"),
        (npz(routed_experts=IDS + 1), "expert id 4, expected 0..3"),
        (npz(routed_experts=IDS - 1), "expert id -1, expected 0..3"),
        (npz(routed_experts=IDS * 0), "expert 0 chosen twice"),
        (npz(routed_experts=IDS.astype(float)), "expected integers, got float64"),
        (npz(routed_experts=IDS.astype(object)), "expected integers, got object"),
        (
            npz(routed_experts=np.insert(IDS, 0, [[0, 1]], axis=1)),
            "layer 0 of tiny is dense; expected 0 or -1 throughout, got 1",
        ),
        (npz(routed_experts=IDS, seq_lens=np.array([1, 1])), "seq_lens sum to 2"),
    ],
)
def test_wrong_choices_name_the_place(
    content: bytes, expected: str, file: Path, tiny: MoEModel
) -> None:
    """Each wrong array is refused in one line."""
    assert expected in refused(read_trace, file, content, tiny)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"step": 7}, "line 2: step 7 stands twice"),
        ({"version": 2}, "line 2: version: 2, expected 1..1"),
        ({"record_type": "other"}, "line 2: record_type: 'other', expected 'eplb_load_stats'"),
        ({"step": -1}, "line 2: step: -1, expected 0.."),
        ({"num_ranks": "2"}, "line 2: num_ranks: expected a whole number, got a string"),
        ({"extra": 1}, "line 2: unknown key 'extra'"),
        ({"expert_load": [[1] * 4] * 2}, "expert_load[0]: 4 counts, expected 6, one per slot"),
        ({"expert_load": [[1] * 6]}, "line 2: expert_load: 1 rows, expected 2"),
        ({"p2l_map": [[0, 1, 2, 3, 0, 4]] * 2}, "line 2: p2l_map[0][5]: 4, expected 0..3"),
        ({"p2l_map": [[0] * 6, [0] * 5]}, "line 2: p2l_map[1]: 5 slots, expected 6"),
        ({"expert_load": [[1] * 6, [1] * 5 + [-1]]}, "line 2: expert_load[1][5]: count is -1.0"),
    ],
)
def test_wrong_records_name_line_key_and_row(
    change: dict[str, Any], expected: str, file: Path, tiny: MoEModel
) -> None:
    """Each wrong line is refused with its number."""
    content = lines([STATS[0], {**STATS[1], **change}])
    assert expected in refused(LOADS["vllm-proposal-stats"], file, content, tiny)


def test_no_expert_of_a_slot_map_may_stay_unused(file: Path, tiny: MoEModel) -> None:
    """A layer without any count is named."""
    idle = [{**STATS[0], "expert_load": [[1] * 6, [0] * 6]}]
    message = refused(LOADS["vllm-proposal-stats"], file, lines(idle), tiny)
    assert "row 1 is all zero" in message


COUNTS = st.lists(
    st.lists(
        st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any), min_size=2, max_size=2
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("name", ["sglang-load", "eplb-load", "eplb-load-json", "vllm"])
@settings(deadline=None)
@given(steps=COUNTS, half=st.booleans())
def test_loads_written_are_read_again(
    name: str, file: Path, tiny: MoEModel, steps: list[Any], half: bool
) -> None:
    """Counts go round to the last bit, steps too where the format holds them."""
    loads = LoadCounts(np.array(steps) / (2 if half else 1), source="drawn")
    write = {
        "sglang-load": writers.logical_count_json,
        "eplb-load": writers.eplb_weight_npz,
        "eplb-load-json": writers.eplb_weight_json,
        "vllm": lambda counts, shape: writers.vllm_stats_lines(counts, shape, 2),
    }[name]
    content = write(loads, tiny)
    kept = loads.counts if name in ("sglang-load", "vllm") else loads.total[None]
    assert counts_of(file, content, tiny) == kept.tolist()


@pytest.mark.parametrize("write", [writers.npz_trace, writers.routed_experts_npz])
def test_traces_written_are_read_again(
    write: Callable[[RoutingTrace], bytes], file: Path, tiny: MoEModel
) -> None:
    """Choices and lengths of sequences go round."""
    trace = RoutingTrace(topk=IDS, experts=4, seq_lens=np.array([2, 1]), source="drawn")
    file.write_bytes(write(trace))
    again = read_trace(file, tiny)
    assert np.array_equal(again.topk, IDS)
    assert again.seq_lens.tolist() == [2, 1]


def test_what_does_not_fit_is_not_written(tiny: MoEModel) -> None:
    """Loads of another model, ranks that do not divide, sums beyond float64."""
    loads = LoadCounts(np.ones((1, 2, 4)), source="x")
    with pytest.raises(WorkloadError, match="loads of 2 layers x 4 experts, expected 58 x 256"):
        writers.logical_count_json(loads, model("DeepSeek-R1"))
    with pytest.raises(WorkloadError, match="3 ranks, expected a divisor of the 4 experts"):
        writers.vllm_stats_lines(loads, tiny, 3)
    huge = LoadCounts(np.full((2, 2, 4), 1e308), source="x")
    with pytest.raises(WorkloadError, match="sum beyond the range"):
        writers.eplb_weight_json(huge, tiny)
    with pytest.raises(WorkloadError, match="step 0, layer 1, expert 2: nan, expected a finite"):
        LoadCounts(np.array([[[1, 1, 1, 1], [1, 1, np.nan, 1]]]), source="x")


def _twin_stats(records: list[Any]) -> list[Any]:
    """Add the counts of slots up with a plain loop."""
    steps = []
    for record in sorted(records, key=lambda each: each["step"]):
        total = [[0.0] * 4 for _ in range(2)]
        for layer in range(2):
            pairs = zip(record["p2l_map"][layer], record["expert_load"][layer], strict=True)
            for expert, count in pairs:
                total[layer][expert] += count
        steps.append(total)
    return steps


def test_the_twin_is_right_and_sees_a_difference() -> None:
    """The plain loop gives the counts made by hand, and others for a slot of another expert."""
    assert _twin_stats(STATS) == STATS_COUNTS
    other = [{**STATS[0], "p2l_map": [[1, 1, 2, 0, 3, 1], STATS[0]["p2l_map"][1]]}, STATS[1]]
    assert _twin_stats(other) != STATS_COUNTS


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_changed_records_are_refused_or_read_right(
    file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """Whatever is changed in the lines: one line of error, or the sums of a plain loop."""
    records = mutate(data, STATS)
    file.write_bytes(lines(records if isinstance(records, list) else [records]))
    read = LOADS["vllm-proposal-stats"]
    message, found = outcome(lambda: read(file, tiny), file, WorkloadError)
    assert message or found.counts.tolist() == _twin_stats(records)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_changed_weights_are_refused_or_read_right(
    file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """Whatever is changed in JSON: one line of error, or the rows as they stand."""
    document = mutate(data, WEIGHT)
    file.write_bytes(as_json(document))
    read = LOADS["eplb-load"]
    message, found = outcome(lambda: read(file, tiny), file, WorkloadError)
    # Counts are kept as float64: beyond 2^53 the nearest one.
    assert message or found.counts[0].tolist() == [
        [float(count) for count in row] for row in document["weight"][-2:]
    ]


FILES = {
    "sglang-load": as_json({"logical_count": WEIGHT["weight"]}),
    "vllm-proposal-stats": lines(STATS),
    "eplb-load": npz(weight=np.array(WEIGHT["weight"])),
    "npz": npz(topk_ids=IDS, seq_lens=np.array([2, 1])),
    "vllm-routed": npz(np.savez_compressed, routed_experts=IDS),
}


@pytest.mark.parametrize("name", FILES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_files_are_one_line_or_data(
    name: str, file: Path, tiny: MoEModel, data: st.DataObject
) -> None:
    """A file cut anywhere, or with one byte changed, ends in one line or in checked data."""
    file.write_bytes(cut_or_flip(data, FILES[name]))
    readers: dict[str, Any] = {**LOADS, **TRACES}
    message, found = outcome(lambda: readers[name](file, tiny), file, WorkloadError)
    assert message or isinstance(found, LoadCounts | RoutingTrace)
    for read in (read_load, read_trace):
        message, found = outcome(lambda read=read: read(file, tiny), file, WorkloadError)
        assert message or isinstance(found, LoadCounts | RoutingTrace)


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_refused(file: Path, tiny: MoEModel, content: bytes) -> None:
    """Bytes that are nothing are refused by every reader, guessed or not."""
    for read in (read_load, read_trace, *LOADS.values(), *list(TRACES.values())[1:]):
        assert refused(read, file, content, tiny)


def test_bombs_are_refused_by_their_headers(file: Path, tiny: MoEModel) -> None:
    """A few packed bytes that claim a terabyte, and members without end, are not unpacked."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999, 2, 2), }"
    head = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("routed_experts.npy", head + bytes(1 << 22))
    content = buffer.getvalue()
    assert len(content) < 1 << 14
    assert "bytes, expected at most 1073741824" in refused(read_trace, file, content, tiny)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(5000):
            archive.writestr(f"{i}.npy", b"")
    file.write_bytes(buffer.getvalue())
    assert peek(file) == Peek("unreadable", damage="5000 arrays, expected at most 4096")


def test_what_files_are_files_of(tmp_path: Path, file: Path, tiny: MoEModel) -> None:
    """Loads, traces and neither are told apart without being read."""
    for name, content in FILES.items():
        file.write_bytes(content)
        seen = peek(file)
        assert guess_load(file, seen, tiny) == (name if name in LOADS else None)
        assert guess_trace(file, seen, tiny) == (name if name in TRACES else None)
    assert peek(tmp_path).container == "folder"
    assert peek(tmp_path / "none").container == "unreadable"
    for text in (b"", b"hello", b"{", b"[]", b'{"a": 1, "a": 2}'):
        file.write_bytes(text)
        assert guess_load(file, peek(file), tiny) is guess_trace(file, peek(file), tiny) is None


def test_loads_given_as_a_trace_and_the_other_way(file: Path, tiny: MoEModel) -> None:
    """The line says what the file holds; what holds neither is named by what it seems to be."""
    message = refused(read_load, file, FILES["npz"], tiny)
    assert "holds choices of tokens; give it as a trace, not as loads" in message
    message = refused(read_trace, file, FILES["sglang-load"], tiny)
    assert "holds loads, not choices of tokens; give it as loads" in message
    assert "key 'weight' is missing; keys there are: 'a'" in refused(
        read_load, file, npz(a=IDS), tiny
    )
    assert "not a readable npz file" in refused(read_load, file, FILES["eplb-load"][:60], tiny)
    message = refused(read_trace, file, npy(IDS[:, :, :1]), tiny)
    assert "shape (3, 2, 1), expected (tokens, 2 MoE layers or all 3 layers of tiny" in message


def test_keys_that_stand_twice_are_refused(file: Path, tiny: MoEModel) -> None:
    """JSON would silently keep the last of two."""
    content = b'{"weight": [[1,1,1,1],[1,1,1,1]], "weight": [[2,2,2,2],[1,1,1,1]]}'
    message = refused(LOADS["eplb-load"], file, content, tiny)
    assert "key 'weight' stands twice in an object" in message
    buffer = io.BytesIO(npz(weight=np.array(WEIGHT["weight"])))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr("weight.npy", npy(np.ones((2, 4))))
    message = refused(LOADS["eplb-load"], file, buffer.getvalue(), tiny)
    assert "key 'weight' stands twice in the archive" in message


@pytest.mark.real_data
def test_recorded_choices_go_through_every_format(real_data: Path, tmp_path: Path) -> None:
    """Real choices and loads are the same after a journey through other formats."""
    lite, r1 = model("DeepSeek-V2-Lite"), model("DeepSeek-R1")
    trace = read_trace(real_data / "deepseek-v2-lite-traces" / "intent.npz", lite)
    path = tmp_path / "routed.npz"
    path.write_bytes(writers.routed_experts_npz(trace))
    again = read_trace(path, lite)
    assert np.array_equal(again.topk, trace.topk)
    assert np.array_equal(again.seq_lens, trace.seq_lens)
    loads = read_load(real_data / "deepseek-r1-loads" / "prefill_in512.json", r1)
    for content in (
        writers.logical_count_json(loads, r1),
        writers.eplb_weight_npz(loads, r1),
        writers.vllm_stats_lines(loads, r1, 32),
    ):
        path.write_bytes(content)
        assert np.array_equal(read_load(path, r1).total, loads.total)
