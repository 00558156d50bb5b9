"""Traces on disk: written in parts, read in parts, split by sequence, refused when damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import (
    DECODE,
    PREFILL,
    ExpertProfile,
    MoEModel,
    RoutingTrace,
    StoredTrace,
    TraceWriter,
    WorkloadError,
    read_chunks,
    read_trace,
    split_sequences,
)

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, EXPERTS, TOP_K = 3, 9, 2
SHAPE = MoEModel("test", LAYERS, (0, 1, 2), EXPERTS, TOP_K, 0, 8, 8)


def choices(tokens: int, seed: int = 0, experts: int = EXPERTS) -> np.ndarray:
    """Return distinct choices, [tokens, LAYERS, TOP_K]."""
    keys = np.random.default_rng(seed).random((tokens, LAYERS, experts))
    return np.argsort(keys, axis=2)[:, :, :TOP_K]


def writer(path: Path, experts: int = EXPERTS) -> TraceWriter:
    """Return a writer of the shape of these tests."""
    return TraceWriter(
        path, model=SHAPE, experts=experts, layers=LAYERS, top_k=TOP_K, source="made"
    )


def stored(path: Path, lengths: list[int]) -> tuple[StoredTrace, np.ndarray]:
    """Write a trace of sequences of these lengths, in two domains; return it and its choices."""
    ids = choices(sum(lengths))
    with writer(path) as out:
        at = 0
        for i, length in enumerate(lengths):
            out.append(ids[at : at + length], phase=i % 2, domain="law" if i % 3 else "code")
            at += length
    return StoredTrace.open(path, SHAPE), ids


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Sequences, phases and domains come back, whichever calls brought them."""
    ids = choices(10)
    with writer(tmp_path / "x.trace") as out:
        out.append(ids[:5], seq_lens=[2, 3], phase=PREFILL, domain="law")
        out.append(ids[5:7], phase=[0, 1], domain="code")
        out.append(ids[7:8], phase=DECODE, continues=True)
        out.append(ids[8:9], phase=DECODE, continues=True, domain="code")
        out.append(ids[9:], phase=PREFILL, domain="law")
    trace = StoredTrace.open(tmp_path / "x.trace").trace()
    assert np.array_equal(trace.topk, ids)
    assert trace.topk.dtype == np.uint8
    assert trace.seq_lens.tolist() == [2, 3, 4, 1]
    assert trace.phase is not None
    assert trace.phase.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0]
    assert trace.domain is not None
    assert [trace.domain_names[d] for d in trace.domain] == ["law", "law", "code", "law"]
    assert (trace.experts, trace.source) == (EXPERTS, "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.trace"]


def test_phase_and_domain_are_absent_where_not_recorded(tmp_path: Path) -> None:
    """None on reading, and no file; ids of more than 256 experts take two bytes."""
    with writer(tmp_path / "x.trace", experts=300) as out:
        out.append(choices(4, experts=300))
    trace = StoredTrace.open(tmp_path / "x.trace").trace()
    assert trace.phase is None
    assert trace.domain is None
    assert trace.topk.dtype == np.uint16
    names = {path.name for path in (tmp_path / "x.trace").iterdir()}
    assert names == {"meta.json", "topk.npy", "seq_offsets.npy"}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.data())
def test_parts_are_those_of_the_trace_in_memory(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    """Any selection of sequences, read in any chunks, is what a plain loop over tokens takes."""
    trace, ids = stored(tmp_path_factory.mktemp("store") / "x.trace", lengths)
    owner = [i for i, length in enumerate(lengths) for _ in range(length)]
    pick = st.lists(st.integers(0, len(lengths) - 1), min_size=1, unique=True).map(sorted)
    chosen = data.draw(pick)
    part = trace.select(np.array(chosen))
    tokens = [t for t, sequence in enumerate(owner) if sequence in chosen]
    assert part.tokens == len(tokens)
    size = data.draw(st.integers(1, len(owner) + 1))
    pieces = list(part.traces(size))
    assert [piece.tokens for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    assert np.array_equal(np.concatenate([piece.topk for piece in pieces]), ids[tokens])
    start = data.draw(st.integers(0, len(tokens) - 1))
    stop = data.draw(st.integers(start + 1, len(tokens)))
    piece, inside = part.trace(start, stop), tokens[start:stop]
    owners = sorted({owner[t] for t in inside})
    assert np.array_equal(piece.topk, ids[inside])
    assert piece.seq_lens.tolist() == [sum(owner[t] == o for t in inside) for o in owners]
    assert piece.phase is not None
    assert piece.phase.tolist() == [owner[t] % 2 for t in inside]
    assert piece.domain is not None
    said = [piece.domain_names[d] for d in piece.domain]
    assert said == ["law" if o % 3 else "code" for o in owners]


def test_splits_are_those_of_a_trace_in_memory(tmp_path: Path) -> None:
    """On disk and in memory the same sequences go to the same part, labels with them."""
    trace, _ = stored(tmp_path / "x.trace", [3, 1, 4, 2, 5])
    for fraction in (None, 0.4, 0.999):
        on_disk, in_memory = trace.split(fraction, seed=2), trace.trace().split(fraction, seed=2)
        for part, same in zip(on_disk, in_memory, strict=True):
            read = part.trace()
            assert np.array_equal(read.topk, same.topk)
            assert read.seq_lens.tolist() == same.seq_lens.tolist()
            assert np.array_equal(read.domain, same.domain)  # type: ignore[arg-type]
            assert np.array_equal(read.phase, same.phase)  # type: ignore[arg-type]


@given(st.integers(2, 50), st.floats(0.001, 0.999), st.integers(0, 2**31))
def test_splits_part_the_sequences(sequences: int, fraction: float, seed: int) -> None:
    """Every sequence goes to one part, none is empty, and the first has its share."""
    first, second = split_sequences(sequences, fraction, seed=seed)
    assert sorted([*first, *second]) == list(range(sequences))
    assert len(first) >= 1
    assert len(second) >= 1
    assert abs(len(first) - fraction * sequences) <= 1
    even, odd = split_sequences(sequences)
    assert even.tolist() == list(range(0, sequences, 2))
    assert odd.tolist() == list(range(1, sequences, 2))


@pytest.mark.parametrize(("count", "fraction"), [(1, None), (5, 0.0), (5, 1.0), (5, float("nan"))])
def test_impossible_splits_are_refused(count: int, fraction: float | None) -> None:
    """A part would be empty, or the fraction is none."""
    with pytest.raises(WorkloadError, match="expected"):
        split_sequences(count, fraction)


def test_profile_is_that_of_the_trace_in_memory(tmp_path: Path) -> None:
    """Counted chunk by chunk, and the choices kept are every step-th token."""
    trace, ids = stored(tmp_path / "x.trace", [400, 300, 50])
    whole = ExpertProfile.from_trace(trace.trace(), keep_choices=True)
    profile = trace.profile(keep_choices=True)
    assert np.array_equal(profile.load, whole.load)
    assert np.array_equal(profile.choices, ids)  # type: ignore[arg-type]
    assert trace.profile().choices is None


def test_a_long_profile_keeps_every_third_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the most that is kept, tokens are taken at equal steps across chunks."""
    trace, ids = stored(tmp_path / "x.trace", [100, 75])
    monkeypatch.setattr("workloads.store.KEPT_TOKENS", 60)
    # Chunks of 16 do not divide by the step of 3: 175 tokens, at most 60 kept.
    monkeypatch.setattr(StoredTrace, "chunks", lambda self: (part.topk for part in self.traces(16)))
    kept = trace.profile(keep_choices=True).choices
    assert np.array_equal(kept, ids[::3])  # type: ignore[arg-type]


def test_readers_take_the_folder(tmp_path: Path, tiny: MoEModel) -> None:
    """`read_trace` and `read_chunks` read it where a file is expected, checked for the model."""
    _, ids = stored(tmp_path / "x.trace", [2, 3])
    assert np.array_equal(read_trace(tmp_path / "x.trace", SHAPE).topk, ids)
    chunks = list(read_chunks(tmp_path / "x.trace", SHAPE, tokens=2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert np.array_equal(np.concatenate(chunks), ids)
    with pytest.raises(WorkloadError, match=r"a trace of test with \(3, 9, 2\) .* tiny has"):
        read_trace(tmp_path / "x.trace", tiny)


def test_wrong_choices_are_found_when_read(tmp_path: Path) -> None:
    """Opening reads no choice; the chunk that holds a wrong one is refused, others are not."""
    trace, ids = stored(tmp_path / "x.trace", [6, 4])
    bad = ids.astype(np.uint8)
    bad[7, 1] = [EXPERTS, 0]
    np.save(tmp_path / "x.trace" / "topk.npy", bad)
    again = StoredTrace.open(tmp_path / "x.trace")
    assert np.array_equal(again.trace(0, 7).topk, ids[:7])
    with pytest.raises(
        WorkloadError, match=r"x.trace: .* token 6: .*token 1, layer 1: expert id 9"
    ):
        list(again.chunks(3))
    bad[7, 1] = [4, 4]
    np.save(tmp_path / "x.trace" / "topk.npy", bad)
    with pytest.raises(WorkloadError, match="expert 4 chosen twice"):
        trace.profile()


def _meta(folder: Path, **changes: Any) -> None:
    file = folder / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "other", "expected an object with the key 'format'"),
        ("version", 2, "version 2, expected 1"),
        ("version", True, "version True"),
        ("extra", 1, "unknown key 'extra': allowed are format"),
        ("model", 3, "key 'model': expected a text"),
        ("experts", 300, r"topk.npy: holds uint8 \(5, 3, 2\), expected uint16 \(5, 3, 2\)"),
        ("experts", 1, "key 'top_k': 2, expected at most"),
        ("experts", 1 << 40, "key 'experts'"),
        ("layers", 0, "key 'layers': 0, expected an integer 1.."),
        ("layers", 2, r"topk.npy: holds uint8 \(5, 3, 2\), expected uint8 \(5, 2, 2\)"),
        ("tokens", 4, r"topk.npy: holds .* expected uint8 \(4, 3, 2\)"),
        ("tokens", 5.0, "key 'tokens': 5.0"),
        ("sequences", 3, r"seq_offsets.npy: holds int64 \(3,\), expected int64 \(4,\)"),
        ("sequences", 9, "key 'sequences': 9"),
        ("phases", False, "phase.npy: is there, but meta.json does not speak of it"),
        ("phases", 1, "key 'phases': 1"),
        ("domains", [], "domain.npy: is there, but"),
        ("domains", ["a", "a"], "'a' is named twice"),
        ("domains", ["a"], "domain.npy: domain of sequence 1 is 1, expected 0..0"),
        ("domains", [1], "domain 1, expected a name"),
        ("domains", "ab", "key 'domains': expected a list"),
    ],
)
def test_wrong_meta_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    """One line names the file, the key and what was expected."""
    folder = tmp_path / "x.trace"
    stored(folder, [2, 3])
    _meta(folder, **{key: value})
    with pytest.raises(WorkloadError, match=message) as caught:
        StoredTrace.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", '"x"', "[" * 10000, '{"format": "topomoe-trace"}']
)
def test_damaged_meta_is_refused(tmp_path: Path, content: str) -> None:
    """Truncated, nested or foreign JSON is one line."""
    folder = tmp_path / "x.trace"
    stored(folder, [2, 3])
    (folder / "meta.json").write_text(content)
    with pytest.raises(WorkloadError, match=r"meta\.json: ") as caught:
        StoredTrace.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("seq_offsets.npy", np.array([0, 2, 4]), "from 0 to 4, expected from 0 to the 5"),
        ("seq_offsets.npy", np.array([1, 2, 5]), "from 1 to 5"),
        ("seq_offsets.npy", np.array([0, 0, 5]), "offset 1 is 0, expected more than 0"),
        ("seq_offsets.npy", np.array([0, 9, 5]), "offset 2 is 5, expected more than 9"),
        ("seq_offsets.npy", np.array([0.0, 2.0, 5.0]), "holds float64"),
        ("phase.npy", np.zeros(4, np.uint8), r"holds uint8 \(4,\), expected uint8 \(5,\)"),
        ("domain.npy", np.array([0, 7], np.uint16), "domain of sequence 1 is 7"),
        ("topk.npy", np.zeros((5, 3, 2), np.int64), "holds int64"),
        ("topk.npy", np.zeros((2, 3, 5), np.uint8).T, "Fortran order"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, array: np.ndarray, message: str
) -> None:
    """Every array is held against meta.json when the trace is opened."""
    folder = tmp_path / "x.trace"
    stored(folder, [2, 3])
    np.save(folder / name, array)
    with pytest.raises(WorkloadError, match=f"{name}: .*{message}"):
        StoredTrace.open(folder)


@pytest.mark.parametrize("name", ["topk.npy", "seq_offsets.npy", "phase.npy", "domain.npy"])
def test_missing_and_truncated_arrays_are_refused(tmp_path: Path, name: str) -> None:
    """A byte less is refused when opened, and when read after it was opened; so is no file."""
    folder = tmp_path / "x.trace"
    trace, _ = stored(folder, [2, 3])
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(WorkloadError, match=rf"{name}: the header promises {len(whole)} bytes"):
        StoredTrace.open(folder)
    if name in ("topk.npy", "phase.npy"):
        with pytest.raises(WorkloadError, match=f"{name}: the header promises"):
            trace.head(1)
    (folder / name).write_bytes(b"\x93NUMPY junk")
    with pytest.raises(WorkloadError, match=f"{name}: not a readable npy file"):
        StoredTrace.open(folder)
    (folder / name).unlink()
    with pytest.raises(WorkloadError, match=f"{name}: cannot be read"):
        StoredTrace.open(folder)


def test_wrong_phases_are_found_when_read(tmp_path: Path) -> None:
    """As choices are."""
    trace, _ = stored(tmp_path / "x.trace", [2, 3])
    np.save(tmp_path / "x.trace" / "phase.npy", np.array([0, 0, 1, 2, 1], np.uint8))
    with pytest.raises(WorkloadError, match=r"phase\[3\] is 2, expected 0..1"):
        trace.trace()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"topk": choices(2)[:, :2]}, r"choices \(2, 2, 2\), expected \(tokens, 3 MoE layers"),
        ({"topk": choices(2) + 8}, "after token 3: .*expert id"),
        ({"topk": np.zeros((1, 3, 2), int)}, "chosen twice"),
        ({"topk": choices(2), "seq_lens": [3]}, "seq_lens"),
        ({"topk": choices(2), "phase": None}, "phase is to be given for all tokens or for none"),
        ({"topk": choices(2), "phase": 2}, r"phase\[0\] is 2"),
        ({"topk": choices(2), "phase": [0]}, "phase must be integers"),
        ({"topk": choices(2), "domain": None}, "domain is to be given for all sequences"),
        ({"topk": choices(2), "domain": ""}, "domain '', expected a name"),
        ({"topk": choices(2), "continues": True, "seq_lens": [1, 1]}, "2 sequences continue"),
        ({"topk": choices(2), "continues": True}, "goes on in its own domain"),
    ],
)
def test_wrong_parts_are_refused(tmp_path: Path, call: dict[str, Any], message: str) -> None:
    """Nothing of a wrong part is added, and the trace goes on without it."""
    with writer(tmp_path / "x.trace") as out:
        out.append(choices(3), phase=0, domain="law")
        with pytest.raises(WorkloadError, match=message):
            out.append(**{"phase": 0, "domain": "code", **call})
        out.append(choices(1), phase=1, continues=True)
    trace = StoredTrace.open(tmp_path / "x.trace").trace()
    assert trace.seq_lens.tolist() == [4]


def test_nothing_to_continue(tmp_path: Path) -> None:
    """The first part begins a sequence; and a trace without tokens is none."""
    with writer(tmp_path / "x.trace") as out:
        with pytest.raises(WorkloadError, match="no sequence to continue"):
            out.append(choices(1), continues=True)
        out.append(choices(1))
    with pytest.raises(WorkloadError, match="no tokens were added"), writer(tmp_path / "y.trace"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["x.trace"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    """Neither the folder nor the temporary one, whatever stops it."""

    def interrupted() -> None:
        with writer(tmp_path / "x.trace") as out:
            out.append(choices(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    """Refused at once, and also if it comes to be there while the trace is written."""
    (tmp_path / "x.trace").mkdir()
    with pytest.raises(WorkloadError, match="is there already"):
        writer(tmp_path / "x.trace")
    out = writer(tmp_path / "y.trace")
    out.append(choices(1))
    (tmp_path / "y.trace").mkdir()
    with pytest.raises(WorkloadError, match="meanwhile"):
        out.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkloadError, match="cannot be written"):
        writer(tmp_path / "file" / "z.trace")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.trace", "y.trace"]


@pytest.mark.parametrize("bounds", [(0, 0), (-1, 2), (2, 6), (3, 2)])
def test_tokens_that_are_not_there_are_refused(tmp_path: Path, bounds: tuple[int, int]) -> None:
    """A part holds at least one token and only what there is; a chunk too."""
    trace, _ = stored(tmp_path / "x.trace", [2, 3])
    with pytest.raises(WorkloadError, match="expected some of the 5"):
        trace.trace(*bounds)
    with pytest.raises(WorkloadError, match="chunks of 0 tokens"):
        trace.traces(0)


def test_more_than_memory_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for all at once; a head is still given."""
    trace, _ = stored(tmp_path / "x.trace", [2, 3])
    monkeypatch.setattr("workloads.store.MAX_TRACE_BYTES", 12)
    with pytest.raises(WorkloadError, match="5 tokens take 30 bytes, expected at most 12"):
        trace.trace()
    assert trace.head(2).tokens == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"phase": [0, 2]}, r"phase\[1\] is 2"),
        ({"phase": [0]}, "phase must be integers"),
        ({"phase": [0.0, 1.0]}, "phase must be integers"),
        ({"domain": [0], "domain_names": ()}, "come together"),
        ({"domain_names": ("a",)}, "come together"),
        ({"domain": [1], "domain_names": ("a",)}, r"domain\[0\] is 1, expected 0..0"),
        ({"domain": [0, 0], "domain_names": ("a",)}, "domain must be integers"),
    ],
)
def test_wrong_labels_of_a_trace_are_refused(labels: dict[str, Any], message: str) -> None:
    """Phases mark tokens, domains sequences, with values that have a meaning."""
    arrays = {k: np.array(v) if k != "domain_names" else v for k, v in labels.items()}
    with pytest.raises(WorkloadError, match=message):
        RoutingTrace(choices(2), EXPERTS, np.array([2]), "test", **arrays)


def test_a_head_keeps_its_labels() -> None:
    """Phases of its tokens, domains of the sequences that have begun."""
    trace = RoutingTrace(
        choices(5),
        EXPERTS,
        np.array([2, 2, 1]),
        "test",
        phase=np.array([0, 1, 0, 1, 1]),
        domain=np.array([1, 0, 1]),
        domain_names=("a", "b"),
    )
    head = trace.head(3)
    assert head.phase is not None
    assert head.phase.tolist() == [0, 1, 0]
    assert head.domain is not None
    assert head.domain.tolist() == [1, 0]
    assert head.domain_names == ("a", "b")


MEASURED = """
import resource, sys
from workloads import StoredTrace
trace = StoredTrace.open(sys.argv[1])
trace.head(64)
list(trace.split()[1].head(64).seq_lens)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
even, odd = trace.split()
profile = even.profile(keep_choices=True)
assert sum(len(chunk) for chunk in odd.chunks()) == odd.tokens
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_long_traces_do_not_come_into_memory(tmp_path: Path) -> None:
    """Profile and chunks of 200 MB of choices take less than 80 MB, 30 of them kept choices."""
    tokens, layers, top_k = 1 << 19, 50, 8
    block = np.tile(np.arange(top_k, dtype=np.uint8), (1 << 15, layers, 1))
    with TraceWriter(
        tmp_path / "x.trace", model="wide", experts=256, layers=layers, top_k=top_k, source="made"
    ) as out:
        for _ in range(tokens >> 15):
            out.append(block, seq_lens=np.full(1 << 5, 1 << 10))
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "x.trace")],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert int(done.stdout) < 80 << 10
