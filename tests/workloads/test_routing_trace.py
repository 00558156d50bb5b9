"""RoutingTrace: what it refuses, how it narrows, what its head is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import RoutingTrace, WorkloadError


def _trace(topk: Any, *, experts: int = 4, seq_lens: Any = None) -> RoutingTrace:
    ids = np.asarray(topk)
    lengths = np.array([len(ids)]) if seq_lens is None else np.asarray(seq_lens)
    return RoutingTrace(topk=ids, experts=experts, seq_lens=lengths, source="test")


@pytest.mark.parametrize(("experts", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_ids_take_the_narrowest_type(experts: int, dtype: type) -> None:
    """Up to 256 experts fit uint8, more take uint16; the greatest id survives."""
    trace = _trace([[[0, experts - 1]]], experts=experts)
    assert trace.topk.dtype == dtype
    assert trace.topk[0, 0, 1] == experts - 1


@pytest.mark.parametrize("bad", [4, -1, 256, 260, 2**40])
def test_out_of_range_ids_name_token_layer_and_id(bad: int) -> None:
    """An id that a narrowing cast would wrap into range is refused before the cast."""
    topk = np.zeros((3, 2, 2), dtype=np.int64)
    topk[:, :, 1] = 1
    topk[2, 1, 0] = bad
    with pytest.raises(WorkloadError, match=rf"token 2, layer 1: expert id {bad}, expected 0\.\.3"):
        _trace(topk)


def test_an_expert_twice_in_a_token_is_refused() -> None:
    """The k choices of a token in a layer are distinct experts."""
    with pytest.raises(WorkloadError, match="token 1, layer 0: expert 3 chosen twice"):
        _trace([[[0, 1]], [[3, 3]]])


@pytest.mark.parametrize(
    ("seq_lens", "expected"),
    [
        ([1], "sum to 1, expected the 2 tokens"),
        ([2, 1], "sum to 3"),
        ([0, 2], r"seq_lens\[0\] is 0"),
        ([3, -1], r"seq_lens\[0\] is 3"),
        ([1.0, 1.0], "integers"),
        ([], "integers"),
        ([[2]], "integers"),
    ],
)
def test_sequence_lengths_must_sum_to_the_tokens(seq_lens: Any, expected: str) -> None:
    """Lengths are positive integers that sum to the tokens."""
    with pytest.raises(WorkloadError, match=expected):
        _trace([[[0, 1]], [[1, 2]]], seq_lens=seq_lens)


@pytest.mark.parametrize(
    "topk", [[[0, 1]], [[[0.0, 1.0]]], [[[True, False]]], np.zeros((0, 2, 2), dtype=np.int8)]
)
def test_wrong_kind_of_array_is_refused(topk: Any) -> None:
    """Ids are integers with three axes, none of them empty."""
    with pytest.raises(WorkloadError, match=r"\[tokens, layers, k\]"):
        _trace(topk)


def test_arrays_are_read_only_copies() -> None:
    """Writing to the caller's array afterwards does not reach the trace."""
    ids = np.array([[[0, 1]]], dtype=np.uint8)
    trace = _trace(ids)
    ids[0, 0, 0] = 3
    assert trace.topk[0, 0, 0] == 0
    for array in (trace.topk, trace.seq_lens):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_read_only_view_of_a_writable_array_is_copied() -> None:
    """Freezing a view does not protect it from its owner, so it is copied."""
    owner = np.array([[[0, 1]], [[2, 3]]], dtype=np.uint8)
    view = owner[:1]
    view.setflags(write=False)
    trace = _trace(view)
    owner[0, 0, 0] = 3
    assert trace.topk[0, 0, 0] == 0


def test_head_is_a_view() -> None:
    """The head shares memory with its trace."""
    trace = _trace([[[0, 1]], [[2, 3]]])
    assert np.shares_memory(trace.head(1).topk, trace.topk)


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_head_cuts_the_last_sequence(lengths: list[int], data: st.DataObject) -> None:
    """Sequences of the head are those of its tokens, told apart token by token."""
    total = sum(lengths)
    tokens = data.draw(st.integers(1, total))
    trace = _trace(np.tile([[[0, 1]]], (total, 1, 1)), seq_lens=lengths)
    owner = [i for i, length in enumerate(lengths) for _ in range(length)][:tokens]
    expected = [owner.count(i) for i in sorted(set(owner))]
    assert trace.head(tokens).seq_lens.tolist() == expected
    assert trace.head(tokens).tokens == tokens


@pytest.mark.parametrize("tokens", [0, -1, 3])
def test_head_refuses_what_is_not_there(tokens: int) -> None:
    """A head holds at least one token and at most all."""
    with pytest.raises(WorkloadError, match="of a trace of 2"):
        _trace([[[0, 1]], [[2, 3]]]).head(tokens)
