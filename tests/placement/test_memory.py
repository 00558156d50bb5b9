"""Memory: slots that fit, caps, reports and refusals, by hand and against a slow twin."""

from __future__ import annotations

import re
from dataclasses import replace
from math import ceil, nan
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from placement import Contiguous, DataParallel, InfeasibleError, PlacementError, PlacementProblem
from placement.field import Eplb, HottestEverywhere
from placement.memory import (
    Memory,
    check_memory,
    memory_caps,
    memory_report,
    slot_bytes,
    slots_per_gpu,
)
from workloads import (
    Architecture,
    ExpertProfile,
    GroupedAttention,
    MoEModel,
    Storage,
    WorkloadError,
    model,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from placement import Placement

# By hand, a byte a parameter everywhere: experts of 3 x 4 x 2 = 24 bytes; attention of a layer
# 2 x 4 x 2 x (2 + 1) = 48; dense 3 x 4 x 5 = 60; router 4 x 8 = 32; vocabulary 2 x 10 x 4 = 80.
SMALL = MoEModel(
    "small",
    3,
    (1, 2),
    8,
    2,
    1,
    4,
    2,
    storage=Storage(1.0, 1.0, 1.0),
    architecture=Architecture(GroupedAttention(2, 1, 2), 10, 5),
)
# 3 x 48 + 60 + 2 shared experts + 2 routers + 80.
RESIDENT = 144 + 60 + 48 + 64 + 80
SMALL_MTP = replace(SMALL, mtp_layers=1)
# One more layer of attention, a shared expert, a router, and 2 x 4 x 4 in front of it.
RESIDENT_MTP = RESIDENT + 48 + 24 + 32 + 32


def make_problem(
    shape: MoEModel = SMALL, servers: int = 2, gpus: int = 2, **caps: int
) -> PlacementProblem:
    """Build a problem with even loads and, unless given, caps that hold everything anywhere."""
    load = np.ones((shape.layers, shape.experts))
    return PlacementProblem.build(
        shape,
        np.zeros((servers, servers), dtype=int),
        DataParallel(shape.layers, servers, gpus),
        ExpertProfile.from_counts(load, source="even"),
        gpus_per_server=gpus,
        **{"layer_slots": shape.experts, "server_slots": shape.layers * shape.experts, **caps},
    )


def fits_by_counting(shape: MoEModel, memory: Memory, placement: Placement) -> bool:
    """Slow twin: add up what lies on every GPU, number by number."""
    per_layer = ceil(len(placement.slot_gpu) / placement.layers)
    resident = RESIDENT_MTP if shape.mtp_layers and memory.mtp else RESIDENT
    layers = 4 if shape.mtp_layers and memory.mtp else 3
    for gpu in range(placement.gpus):
        total = resident + memory.reserve_bytes
        # Keys and values of one KV head of two numbers, two bytes each.
        total += memory.kv_tokens * layers * 2 * 2 * 2
        total += 24 * sum(1 for at in placement.slot_gpu.tolist() if at == gpu)
        if shape.mtp_layers and memory.mtp:
            # The MTP layer is dealt like one more layer: GPU 0 gets most.
            total += 24 * len(range(0, per_layer, placement.gpus))
        if total > memory.gpu_bytes:
            return False
    return True


def test_slots_by_hand() -> None:
    """396 bytes are resident; 1000 leave 604 for 25 slots of 24 bytes; cache and reserve take."""
    assert RESIDENT == 396
    assert slots_per_gpu(SMALL, Memory(1000)) == 25
    # 10 tokens x 3 layers x 8 bytes = 240: 364 bytes are 15 slots.
    assert slots_per_gpu(SMALL, Memory(1000, kv_tokens=10)) == 15
    assert slots_per_gpu(SMALL, Memory(1000, kv_tokens=10, kv_bytes_per_number=1)) == 20
    assert slots_per_gpu(SMALL, Memory(1000, kv_tokens=10, reserve_bytes=4)) == 15
    assert slots_per_gpu(SMALL, Memory(1000, kv_tokens=10, reserve_bytes=5)) == 14
    # Two ranks share the heads: a query head and the one KV head each, 32 bytes a layer.
    assert slots_per_gpu(SMALL, Memory(1000, tp=2)) == (604 + 3 * 16) // 24
    # Twice the bytes: all but routers and vocabulary double.
    assert slots_per_gpu(SMALL, Memory(1000, bytes_per_parameter=2)) == (604 - 252) // 48
    # MTP weights count unless they are not loaded.
    assert slots_per_gpu(SMALL_MTP, Memory(1000)) == (604 - 136) // 24
    assert slots_per_gpu(SMALL_MTP, Memory(1000, mtp=False)) == 25


def test_own_bytes_leave_other_formats_alone() -> None:
    """Where experts are stored unlike the rest, bytes per parameter speak of experts only."""
    mixed = replace(SMALL, storage=Storage(0.5, 1.0, 1.0))
    assert slots_per_gpu(mixed, Memory(1000)) == 604 // 12
    assert slots_per_gpu(mixed, Memory(1000, bytes_per_parameter=2)) == 604 // 48


def test_slot_bytes_of_r1() -> None:
    """One R1 expert slot is 44.04 MB in FP8 (SGLang blog, May 2025): 3 * 7168 * 2048 bytes."""
    r1 = model("DeepSeek-R1")
    assert slot_bytes(r1, bytes_per_parameter=1) == 44_040_192
    assert slot_bytes(r1, bytes_per_parameter=2) == 88_080_384
    # The model's own: a 4-byte scale per block of 128 x 128, 44040192 / 16384 = 2688 blocks.
    assert slot_bytes(r1) == 44_040_192 + 4 * 2688
    for wrong in (0.0, -1.0, nan):
        with pytest.raises(PlacementError, match="expected a finite number above 0"):
            slot_bytes(r1, bytes_per_parameter=wrong)


def test_r1_in_a_deployment() -> None:
    """R1 on EP32 with 288 slots, 80 GB: 9 slots a layer on a GPU, by the published sizes."""
    r1 = model("DeepSeek-R1")
    placement = Eplb(redundant=32, hierarchical=False)(make_problem(r1, 4, 8))
    report = check_memory(placement, r1, Memory(80_000_000_000))
    assert report.slots == 58 * 9
    assert report.experts == 58 * 9 * 44_050_944
    assert report.mtp_experts == 9 * 44_050_944
    # 62 layers with attention, 59 shared experts, FP8; vocabulary and 59 routers in BF16.
    fp8 = 1 + 4 / 16_384
    assert report.attention == ceil(62 * 187_105_280 * fp8)
    assert report.shared_experts == 59 * 44_050_944
    assert report.embeddings == 2 * 2 * 129_280 * 7168
    # What is left holds tokens of 62 x 576 x 2 bytes.
    assert report.kv_tokens_fit == report.free // 71_424
    assert sum(report.gigabytes().values()) == pytest.approx(80.0)
    # One redundant slot less on every GPU frees 59 slots for cache: FACTS's 36,349, MTP aside.
    without = memory_report(Contiguous()(make_problem(r1, 4, 8)), r1, Memory(80_000_000_000))
    tokens = without.kv_tokens_fit - report.kv_tokens_fit
    assert abs(tokens - 59 * 44_050_944 / 71_424) < 1


@settings(deadline=None)
@given(
    st.integers(200, 2000),
    st.integers(0, 8),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([SMALL, SMALL_MTP]),
)
def test_caps_admit_what_fits_and_nothing_else(
    gpu_bytes: int, tokens: int, servers: int, gpus: int, shape: MoEModel
) -> None:
    """Under the caps a placement fits; where they refuse, the evenest placement does not."""
    problem = make_problem(shape, servers, gpus, layer_slots=8, server_slots=16)
    memory = Memory(gpu_bytes, kv_tokens=tokens)
    # Caps of the study: counts differ by one at most, on servers and on GPUs.
    even = Contiguous()(replace(problem, server_slots=ceil(16 / servers), layer_slots=8))
    try:
        capped = memory_caps(problem, shape, memory)
    except InfeasibleError:
        assert not fits_by_counting(shape, memory, even)
    else:
        assert fits_by_counting(shape, memory, Contiguous()(capped))
        assert capped.server_slots <= 16
        assert check_memory(Contiguous()(capped), shape, memory).free >= 0


@settings(deadline=None)
@given(st.integers(200, 2000), st.integers(0, 8), st.sampled_from([SMALL, SMALL_MTP]))
def test_report_agrees_with_the_twin(gpu_bytes: int, tokens: int, shape: MoEModel) -> None:
    """A report has bytes free exactly where the twin says it fits, replicas on the hottest too."""
    placement = HottestEverywhere(2)(make_problem(shape))
    memory = Memory(gpu_bytes, kv_tokens=tokens)
    report = memory_report(placement, shape, memory)
    assert (report.free >= 0) == fits_by_counting(shape, memory, placement)
    if report.free >= 0:
        full = replace(memory, kv_tokens=report.kv_tokens_fit)
        assert fits_by_counting(shape, full, placement)
        assert not fits_by_counting(shape, replace(full, kv_tokens=full.kv_tokens + 1), placement)


def test_the_twin_tells_a_byte() -> None:
    """The twin refuses a GPU one byte smaller than what the report counts: it can fail."""
    placement = Contiguous()(make_problem())
    need = 1000 - memory_report(placement, SMALL, Memory(1000)).free
    # 16 experts on 4 GPUs are 4 slots of 24 bytes.
    assert need == 396 + 4 * 24
    assert fits_by_counting(SMALL, Memory(need), placement)
    assert not fits_by_counting(SMALL, Memory(need - 1), placement)


@settings(deadline=None, max_examples=200)
@given(
    st.integers(200, 1200),
    st.integers(0, 12),
    st.integers(0, 8),
    st.integers(1, 3),
    st.sampled_from([SMALL, SMALL_MTP]),
)
def test_what_the_refusal_names_would_do(
    gpu_bytes: int, tokens: int, redundant: int, servers: int, shape: MoEModel
) -> None:
    """Every remedy in the message works, one less of it does not, and the bytes are exact."""
    problem, memory = make_problem(shape, servers, 2), Memory(gpu_bytes, kv_tokens=tokens)

    def fits(memory: Memory = memory, servers: int = servers, redundant: int = redundant) -> bool:
        try:
            memory_caps(make_problem(shape, servers, 2), shape, memory, redundant=redundant)
        except InfeasibleError:
            return False
        return True

    try:
        memory_caps(problem, shape, memory, redundant=redundant)
    except InfeasibleError as error:
        text = str(error)
    else:
        assume(False)  # noqa: FBT003  hypothesis takes it by position
    assert "\n" not in text
    named = {
        what: int(found[1])
        for what, pattern in (
            ("short", r"\((\d+) bytes\)"),
            ("gpus", r"at least (\d+) GPUs"),
            ("redundant", r"at most (\d+) redundant"),
            ("tokens", r"at most (\d+) KV"),
        )
        if (found := re.search(pattern, text))
    }
    if "before any expert slot" not in text:
        assert fits(replace(memory, gpu_bytes=gpu_bytes + named["short"]))
        assert not fits(replace(memory, gpu_bytes=gpu_bytes + named["short"] - 1))
    if "gpus" in named:
        assert fits(servers=named["gpus"] // 2)
        assert not fits(servers=named["gpus"] // 2 - 1)
    if "redundant" in named:
        assert fits(redundant=named["redundant"])
        assert not fits(redundant=named["redundant"] + 1)
    elif redundant and "before any" not in text:
        assert not fits(redundant=0)
    if "tokens" in named and "before any" not in text:
        assert fits(replace(memory, kv_tokens=named["tokens"]))
        assert not fits(replace(memory, kv_tokens=named["tokens"] + 1))


def test_redundant_slots_count() -> None:
    """Room for 6 slots a GPU: 8 experts and 4 redundant in 2 layers fill 4 GPUs, 5 are too many."""
    memory = Memory(396 + 6 * 24)
    capped = memory_caps(make_problem(), SMALL, memory, redundant=4)
    # A server has 12 slots; 2 x 4 / 2 = 4 of them are for redundant ones.
    assert capped.server_slots == 8
    assert check_memory(Eplb(redundant=4)(capped), SMALL, memory).free == 0
    with pytest.raises(InfeasibleError, match="at most 4 redundant slots of a layer"):
        memory_caps(make_problem(), SMALL, memory, redundant=5)


def test_tighter_caps_stay() -> None:
    """Plenty of memory changes nothing."""
    problem = make_problem(server_slots=9)
    assert memory_caps(problem, SMALL, Memory(10**6)).server_slots == 9


def test_a_layer_of_mtp_takes_its_share_of_every_gpu() -> None:
    """8 MTP experts on 4 GPUs are 2 slots each: of 7, 5 are left for the placement."""
    memory = Memory(RESIDENT_MTP + 7 * 24)
    assert slots_per_gpu(SMALL_MTP, memory) == 7
    assert memory_caps(make_problem(SMALL_MTP), SMALL_MTP, memory).server_slots == 10


def test_uneven_replicas_may_overfill_a_gpu() -> None:
    """The caps let it pass, the check of the placement does not: it names GPU, bytes, remedies."""
    memory = Memory(396 + 24 + 5 * 24, kv_tokens=1)
    capped = memory_caps(make_problem(), SMALL, memory, redundant=2)
    crowded = HottestEverywhere(2)(capped)
    expected = (
        r"policy 'hottest' puts 6 expert slots on GPU \d, 0\.01 GB \(24 bytes\) more than fit "
        r"beside .*; GPUs of 0\.01 GB or at most 5 slots on a GPU would do"
    )
    with pytest.raises(InfeasibleError, match=expected) as caught:
        check_memory(crowded, SMALL, memory)
    assert "\n" not in str(caught.value)


def test_weights_alone_too_large() -> None:
    """Where no slot fits at all, the message says so, with the bytes and the tokens that would."""
    with pytest.raises(InfeasibleError, match=r"exceed a GPU of .* \(20 bytes\) before any expert"):
        slots_per_gpu(SMALL, Memory(376))
    with pytest.raises(InfeasibleError, match="at most 4 KV tokens a GPU"):
        slots_per_gpu(SMALL, Memory(396 + 100, kv_tokens=5))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Memory(0), "gpu_bytes is 0; expected at least 1"),
        (lambda: Memory(nan), "gpu_bytes is nan"),  # type: ignore[arg-type]
        (lambda: Memory(float("inf")), "gpu_bytes is inf"),  # type: ignore[arg-type]
        (lambda: Memory(1, kv_tokens=-1), "kv_tokens is -1; expected at least 0"),
        (lambda: Memory(1, tp=0), "tp is 0"),
        (lambda: Memory(1, reserve_bytes=-1), "reserve_bytes is -1"),
        (lambda: Memory(1, bytes_per_parameter=nan), "bytes_per_parameter is nan"),
        (lambda: Memory(1, kv_bytes_per_number=0), "kv_bytes_per_number is 0"),
        (lambda: slots_per_gpu(SMALL, Memory(1000, tp=3)), "tp 3 does not divide 2 heads"),
        (
            lambda: slots_per_gpu(replace(SMALL, architecture=None), Memory(1000)),
            "does not say what surrounds its experts",
        ),
        (
            lambda: memory_caps(make_problem(), replace(SMALL, name="other"), Memory(1000)),
            r"problem is of model 'small' \(2 MoE layers x 8 experts\), the memory of 'other'",
        ),
        (
            lambda: memory_report(
                Contiguous()(make_problem()), replace(SMALL, moe_layers=(2,)), Memory(1000)
            ),
            r"placement is of model 'small' \(2 MoE layers x 8 experts\), .* \(1 x 8\)",
        ),
        (
            lambda: memory_caps(make_problem(), SMALL, Memory(1000), redundant=-1),
            "redundant is -1",
        ),
    ],
)
def test_bad_memory(make: Callable[[], Any], expected: str) -> None:
    """Each is refused in one line by the package's own error."""
    with pytest.raises(PlacementError, match=expected) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, WorkloadError)
