"""Times of a step on a GPU, by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from placement import Placement
from sim import SimulationError
from sim.compute import (
    DecodePool,
    GpuModel,
    PrefillPool,
    StepTimes,
    gpu_model,
    step_times,
)
from workloads import (
    PRESETS,
    Architecture,
    GroupedAttention,
    LatentAttention,
    MoEModel,
    Storage,
    WorkloadError,
    model,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.compute import Pool

R1 = model("DeepSeek-R1")
ROUND = GpuModel(
    "round",
    flops_8bit=4e12,
    flops_16bit=2e12,
    memory_Bps=1e9,
    memory_bytes=10**9,
    nvlink_Bps=1e9,
    efficiency=0.5,
    tile_tokens=4,
    launch_s=1e-6,
)
"""2 operations per ps in FP8, 1 in BF16, a byte per ns; 4 tokens a tile."""


def small(
    *, moe_layers: tuple[int, ...] = (1, 3), storage: float = 1.0, latent: bool = False
) -> MoEModel:
    """Return a model of 5 layers: hidden 8, 4 experts of width 2, 4 heads."""
    heads = LatentAttention(4, 3, 5, 2, 4, 6) if latent else GroupedAttention(4, 2, 3)
    return MoEModel(
        "small",
        5,
        moe_layers,
        experts=4,
        top_k=2,
        shared_experts=1,
        hidden=8,
        moe_intermediate=2,
        storage=Storage(storage, storage, 2.0),
        architecture=Architecture(heads, vocabulary=100, dense_intermediate=16),
    )


def placed(shape: MoEModel, gpus: int = 4, slots_of_layer: int = 5, seed: int = 0) -> Placement:
    """Return a placement on servers of 2 GPUs, the slots anywhere."""
    rng = np.random.default_rng(seed)
    layer = np.repeat(np.arange(shape.layers), slots_of_layer)
    return Placement(
        model=shape.name,
        layers=shape.layers,
        experts=shape.experts,
        gpus=gpus,
        gpus_per_server=2,
        slot_layer=layer,
        slot_gpu=rng.integers(0, gpus, len(layer)),
        slot_expert=np.tile(np.arange(slots_of_layer) % shape.experts, shape.layers),
        policy="random",
    )


def zeros(shape: MoEModel, where: Placement) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return no tokens: [slots] and [layers, gpus]."""
    return (
        np.zeros(len(where.slot_layer), dtype=np.int64),
        np.zeros((shape.layers, where.gpus), dtype=np.int64),
    )


# --- by hand -------------------------------------------------------------------------------------


def test_experts_by_hand() -> None:
    """A slot reads its weights, or multiplies whole tiles; one without tokens costs nothing."""
    shape = small()
    where = replace(
        placed(shape), slot_gpu=np.array([0, 0, 1, 2, 3] * 2), slot_expert=[0, 1, 2, 3, 3] * 2
    )
    slots, origin = zeros(shape, where)
    # An expert has 3 x 8 x 2 = 48 weights of 1 byte: 48 ns to read. A tile of 4 tokens takes
    # 4 x 96 operations of 2 a ps = 0.192 ns, so 250 tiles meet the reading.
    slots[:5] = [1, 1000, 1001, 0, 2000]
    times = step_times(
        shape, where, ROUND, pool=DecodePool(1, 0), slot_tokens=slots, origin_tokens=origin
    )
    # GPU 0: 48 + 250 x 0.192 = 96; GPU 1: 251 x 0.192 = 48.192; GPU 3: 500 x 0.192 = 96.
    assert times.experts.tolist() == [[96, 49, 0, 96], [0, 0, 0, 0]]
    assert not times.attention.any()
    assert not times.tail.any()
    assert (times.layers, times.gpus) == (2, 4)


def test_an_r1_slot_meets_the_published_figures() -> None:
    """44.04 MB take 13.1 us at 3.35 TB/s, and multiplying takes longer from 296 tokens on.

    FACTS.md, section 3: near 295 tokens at 1979 TFLOP/s.
    """
    peak = replace(gpu_model("H100"), efficiency=1.0, tile_tokens=1)
    assert R1.parameters_per_expert == 44_040_192
    # Scales add 4 bytes per 128 x 128: 44,050,944 bytes / 3.35e12 = 13,149.5 ns. A token takes
    # 88,080,384 / 1979e12 = 44.507 ns: 295 take 13,129.7, 296 13,174.2.
    assert _slot_ns(R1, peak, [1, 295, 296]) == [13_150, 13_150, 13_175]
    # Tiles of 64: 257 tokens are 320, 320 x 44.507 = 14,242.4 ns.
    assert _slot_ns(R1, replace(peak, tile_tokens=64), [256, 257]) == [13_150, 14_243]
    # BF16 weights take twice as long to read and to multiply: 26,292.7 and 89.015 a token.
    assert _slot_ns(replace(R1, storage=Storage(2.0, 2.0)), peak, [295, 296]) == [26_293, 26_349]


def _slot_ns(shape: MoEModel, gpu: GpuModel, tokens: list[int]) -> list[int]:
    """Return the time of one slot of layer 0 with so many tokens."""
    expert = np.tile(np.arange(256), 58)
    where = Placement(
        model="DeepSeek-R1",
        layers=58,
        experts=256,
        gpus=256,
        gpus_per_server=8,
        slot_layer=np.repeat(np.arange(58), 256),
        slot_gpu=expert,
        slot_expert=expert,
        policy="one each",
    )
    slots, origin = zeros(shape, where)
    slots[: len(tokens)] = tokens
    times = step_times(
        shape, where, gpu, pool=DecodePool(1, 0), slot_tokens=slots, origin_tokens=origin
    )
    found: list[int] = times.experts[0, : len(tokens)].tolist()
    return found


def test_attention_by_hand() -> None:
    """Dense layers precede their MoE layer, the last one goes with the head."""
    shape = small()
    where = placed(shape)
    slots, origin = zeros(shape, where)
    origin[:, 1] = 4
    times = step_times(
        shape, where, ROUND, pool=DecodePool(4, 1000), slot_tokens=slots, origin_tokens=origin
    )
    # All bound by reading, a byte a ns. A layer's attention: launch 1000; weights
    # 2 x 8 x 3 x (4 + 2) = 288; cache 4 requests x 1001 tokens x 2 x 2 x 3 numbers x 2 bytes =
    # 96,096; together 97,384. Dense feed-forward 3 x 8 x 16 = 384. Shared expert 48. Router
    # 8 x 4 x 2 = 64 bytes. Each MoE layer (1 and 3) follows one dense layer:
    # 97,384 + 384 + 97,384 + 48 + 64 = 195,264.
    assert times.attention.tolist() == [[0, 195_264, 0, 0]] * 2
    # Layer 4 is dense, 97,768; head 100 x 8 x 2 bytes = 1600.
    assert times.tail.tolist() == [0, 99_368, 0, 0]
    routed = step_times(
        shape,
        where,
        ROUND,
        pool=DecodePool(4, 1000, shared="routed"),
        slot_tokens=slots,
        origin_tokens=origin,
        head_tokens=np.array([1, 0, 0, 0]),
    )
    assert routed.attention[0, 1] == 195_264 - 48
    # One token: 24,024 of cache instead of 96,096.
    assert routed.tail.tolist() == [99_368 - 72_072, 0, 0, 0]


def test_prompts_are_quadratic() -> None:
    """Prefill sees n (n + 1) / 2 pairs a prompt, and the head its last token alone."""
    shape = small(moe_layers=(0, 1, 2, 3, 4), storage=2.0)
    where = placed(shape)
    slots, origin = zeros(shape, where)
    origin[:, 0] = 200_000
    pool = PrefillPool(2, 100_000)
    times = step_times(shape, where, ROUND, pool=pool, slot_tokens=slots, origin_tokens=origin)
    # BF16, 1 operation a ps. 2 prompts x 100,000 x 100,001 / 2 pairs x 4 heads x 2 x 3
    # multiplications x 2 = 480,004,800,000 operations: 480,004,800 ns, against
    # 2 x 100,000 x 24 bytes to read. Weights: 200,000 x 2 x (288 + 48 + 32) = 147.2e6
    # operations: 147,200 ns. Launch 1000.
    assert times.attention.tolist() == [[480_153_000, 0, 0, 0]] * 5
    # Head of 2 tokens: 1600 bytes.
    assert times.tail.tolist() == [1600, 0, 0, 0]


def test_latent_attention_by_hand() -> None:
    """R1 decodes on its latent vectors: 1,152 bytes and 278,528 operations a cached token."""
    # 576 numbers of 2 bytes; 128 heads x (512 + 64 to score, 512 to sum up) x 2 operations.
    # At 3.35 TB/s 0.343881 ns, at 989.5 TFLOP/s 0.281484 ns (0.454006 at an efficiency of 0.62).
    fast = replace(gpu_model("H800"), efficiency=1.0)
    for gpu, a_token in ((fast, 0.343881), (gpu_model("H800"), 0.454006)):
        short, long = (_r1_decode_ns(gpu, DecodePool(1, kv)) for kv in (0, 1_000_000))
        assert (long - short) / 1e6 == pytest.approx(a_token, abs=1e-6)
    # Four tokens of a request read the cache once: their 1.125936 ns of multiplying decide.
    short, long = (_r1_decode_ns(fast, DecodePool(1, kv, drafts=3)) for kv in (0, 1_000_000))
    assert (long - short) / 1e6 == pytest.approx(4 * 0.281484, abs=4e-6)
    # Expanded prompts score 192 and sum up 128 numbers a head: 81,920 operations a pair; a
    # cached token is expanded once a prompt: 128 x 512 x 256 x 2 = 33.55e6 operations.
    pools = (PrefillPool(1, 8192, kv_tokens=kv) for kv in (0, 1_000_000))
    short, long = (_r1_decode_ns(fast, pool, 8192) for pool in pools)
    assert (long - short) / 1e6 == pytest.approx((8192 * 81.920 + 33_554.432) / 989.5, rel=1e-6)


def _r1_decode_ns(gpu: GpuModel, pool: Pool, tokens: int | None = None) -> int:
    """Return the attention of the second MoE layer where one request is on every GPU."""
    where = placed(R1, slots_of_layer=256)
    slots, origin = zeros(R1, where)
    origin += tokens or pool.tokens_per_request
    times = step_times(R1, where, gpu, pool=pool, slot_tokens=slots, origin_tokens=origin)
    return int(times.attention[1, 0])


def test_groups_divide_heads_but_not_latent_vectors() -> None:
    """Two ranks hold each other's tokens: half the heads, all of the cache, and a gather."""
    shape = small(moe_layers=(0, 1, 2, 3, 4), latent=True)
    where = placed(shape)
    slots, origin = zeros(shape, where)
    origin[:, 0], origin[:, 1] = 3, 1
    times = step_times(
        shape, where, ROUND, pool=DecodePool(2, 99, tp=2), slot_tokens=slots, origin_tokens=origin
    )
    # Weights of a rank: 8 x (3 + 5 + 2) + 2 heads x (3 x 6 + 5 x 10 + 6 x 8) = 312 bytes. Cache of
    # 4 requests: 4 x 100 x 7 numbers x 2 bytes = 5600. Gather and scatter: 2 x half of 4 tokens x
    # 8 x 2 bytes = 64. Launch 1000; shared 48, router 64: both ranks have tokens of their own.
    assert times.attention.tolist() == [[7088, 7088, 0, 0]] * 5
    origin[:, 0], origin[:, 1] = 4, 0
    times = step_times(
        shape, where, ROUND, pool=DecodePool(2, 99, tp=2), slot_tokens=slots, origin_tokens=origin
    )
    # What stands beside attention is of the tokens a rank sends: none on the second.
    assert times.attention.tolist() == [[7088, 6976, 0, 0]] * 5


# --- against the model's own counts --------------------------------------------------------------


def dealt(shape: MoEModel, gpus: int, slots_of_gpu: int) -> Placement:
    """Return experts dealt to the slots in turn, the first ones again where slots are left."""
    slots = gpus * slots_of_gpu
    return Placement(
        model=shape.name,
        layers=shape.layers,
        experts=shape.experts,
        gpus=gpus,
        gpus_per_server=8,
        slot_layer=np.repeat(np.arange(shape.layers), slots),
        slot_gpu=np.tile(np.arange(slots) % gpus, shape.layers),
        slot_expert=np.tile(np.arange(slots) % shape.experts, shape.layers),
        policy="dealt",
    )


@pytest.mark.parametrize("name", sorted({each.name for each in PRESETS.values()}))
def test_multiplying_takes_two_operations_per_active_parameter(name: str) -> None:
    """Where reading is free, a step is 2 x active parameters x tokens, and the cache's pairs."""
    bf16 = Storage(2.0, 2.0, 2.0)
    shape = replace(model(name), storage=bf16)
    gpu = GpuModel("x", 2e9, 1e9, 1e30, 1, 1e30, efficiency=1.0, tile_tokens=1, launch_s=0.0)
    where = dealt(shape, 8, shape.experts // 8)
    slots, origin = zeros(shape, where)
    # E tokens on every GPU, so that each of the E slots of a layer gets 8 E k / E of them.
    slots += 8 * shape.top_k
    origin += shape.experts
    times = step_times(
        shape, where, gpu, pool=DecodePool(1, 0), slot_tokens=slots, origin_tokens=origin
    )
    known = shape.architecture
    assert known is not None
    resident = shape.resident_parameters()
    # The embedding is looked up, not multiplied.
    active = resident.total - resident.embeddings + known.vocabulary * shape.hidden
    active += shape.layers * shape.top_k * shape.parameters_per_expert
    heads = known.attention
    pair = 2 * heads.head if isinstance(heads, GroupedAttention) else 2 * 512 + 64
    operations = 2 * (active + shape.hidden_layers * heads.heads * pair) * shape.experts * 8
    total = sum(int(each.sum()) for each in (times.attention, times.experts, times.tail))
    assert total == pytest.approx(operations, rel=1e-9)


def test_computing_alone_is_shorter_than_the_published_steps() -> None:
    """On 96 H100: 91.9 ms a decoding step, 16,384 tokens in 2.21 s of balanced prefill.

    SGLang, May 2025 (FACTS.md, section 3): 256 requests a GPU of 2,000 tokens on 72 GPUs; 59,337
    tokens/s of 8 GPUs. Nothing is fitted: communication and the engine are in theirs alone.
    """
    for pool, gpus, slots_of_gpu, published_s in (
        (DecodePool(256, 2000), 72, 4, 91.9e-3),
        (PrefillPool(4, 4096), 32, 9, 8 * 16_384 / 59_337),
    ):
        where = dealt(R1, gpus, slots_of_gpu)
        slots, origin = zeros(R1, where)
        slots += pool.batch_tokens(gpus) * R1.top_k // (gpus * slots_of_gpu)
        origin += pool.batch_tokens(gpus) // gpus
        times = step_times(
            R1, where, gpu_model("H100"), pool=pool, slot_tokens=slots, origin_tokens=origin
        )
        alone = times.attention.sum(axis=0) + times.experts.sum(axis=0) + times.tail
        assert 0 < alone.max() * 1e-9 < published_s


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": np.zeros(3, dtype=np.int64)}, r"slot_tokens of shape \(3,\) for 10 slots"),
        ({"slots": np.full(10, -1)}, "slot_tokens has -1; expected 0 tokens or more"),
        ({"slots": np.zeros(10)}, "slot_tokens are float64; expected whole numbers"),
        ({"origin": np.zeros((2, 5), dtype=np.int64)}, r"origin_tokens of shape .* \[2, 4\]"),
        ({"origin": np.zeros((0, 4), dtype=np.int64)}, r"origin_tokens of shape"),
        ({"origin": np.full((2, 4), -7)}, "origin_tokens has -7"),
        ({"head": np.zeros(5, dtype=np.int64)}, r"head_tokens of shape \(5,\); expected \[4\]"),
        ({"shape": small(moe_layers=(1,))}, "for 2 layers, 'small' has 1; expected equal"),
        ({"shape": replace(small(), experts=8)}, "for 4 experts, 'small' has 8; expected equal"),
        ({"shape": replace(small(), architecture=None)}, "'small' does not say .* constant times"),
        ({"pool": DecodePool(1, 0, tp=4)}, "tp 4 of servers of 2 GPUs; expected a divisor"),
        (
            {"gpu": replace(ROUND, memory_Bps=1e-9), "slots": np.full(10, 1)},
            "expert time of .* s in one layer; expected below 1e9 s",
        ),
        # 48 bytes of a slot in 4e7 s, and two slots or more of a layer on some GPU, in two layers.
        (
            {"gpu": replace(ROUND, memory_Bps=48 / 4e7), "slots": np.full(10, 1)},
            "clock overflow: GPUs compute up to .* ns in a step; expected below 7.21e",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    """One line says what, and what was expected."""
    parts: dict[str, Any] = {
        "shape": small(),
        "gpu": ROUND,
        "slots": np.zeros(10, dtype=np.int64),
        "origin": np.zeros((2, 4), dtype=np.int64),
        "head": None,
        "pool": DecodePool(1, 0),
        **change,
    }
    with pytest.raises(SimulationError, match=message):
        step_times(
            parts["shape"],
            placed(small()),
            parts["gpu"],
            pool=parts["pool"],
            slot_tokens=parts["slots"],
            origin_tokens=parts["origin"],
            head_tokens=parts["head"],
        )


def test_heads_that_do_not_divide_are_refused() -> None:
    """Three heads cannot be shared by two ranks."""
    shape = small()
    assert shape.architecture is not None
    odd = replace(
        shape, architecture=replace(shape.architecture, attention=GroupedAttention(3, 3, 2))
    )
    slots, origin = zeros(odd, placed(odd))
    with pytest.raises(WorkloadError, match="tp 2 does not divide 3 heads"):
        step_times(
            odd,
            placed(odd),
            ROUND,
            pool=DecodePool(1, 0, tp=2),
            slot_tokens=slots,
            origin_tokens=origin,
        )


def test_times_that_do_not_fit_each_other_are_refused() -> None:
    """[layers, gpus] twice, [gpus] once, nothing negative."""
    two = np.zeros((2, 3), dtype=np.int64)
    with pytest.raises(SimulationError, match=r"expected \[layers, gpus\] twice"):
        StepTimes(two, two, np.zeros(2, dtype=np.int64))
    with pytest.raises(SimulationError, match="experts is negative"):
        StepTimes(two, two - 1, np.zeros(3, dtype=np.int64))
    kept = StepTimes(two, two.copy(), np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="read-only"):
        kept.tail[0] = 1
