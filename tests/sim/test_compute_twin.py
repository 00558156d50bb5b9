"""Times of a step against a slow readable twin in exact fractions, and their laws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement import Placement
from sim.compute import GPUS, DecodePool, GpuModel, PrefillPool, StepTimes, step_times
from workloads import Architecture, GroupedAttention, LatentAttention, MoEModel, Storage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.compute import Pool

SLOW = GpuModel("slow", 4e12, 2e12, 1e9, 10**9, 1e9, efficiency=0.5, tile_tokens=4, launch_s=1e-6)
"""Reading decides nearly always."""
EVEN = replace(SLOW, memory_Bps=4e11, launch_s=0.0)
"""Reading and multiplying meet near 5 operations a byte, as small numbers of tokens have them."""


@dataclass(frozen=True)
class Twin:
    """One operation after the other, as one would write it on paper."""

    shape: MoEModel
    where: Placement
    gpu: GpuModel
    pool: Pool
    slots: list[int]
    origin: list[list[int]]

    def all_ns(self) -> list[list[int]]:
        """Return rows of GPUs: attention of every layer, experts of every layer, tail."""
        ranks, layers = range(self.where.gpus), range(self.shape.layers)
        rows = [[self.attention(layer, rank) for rank in ranks] for layer in layers]
        rows += [[self.experts(layer, rank) for rank in ranks] for layer in layers]
        rows += [[self.tail(rank) for rank in ranks]]
        return [[ceil(each * 10**9 - Fraction(1, 10**6)) for each in row] for row in rows]

    def attention(self, layer: int, rank: int) -> Fraction:
        """Walk from the MoE layer before to the dispatch of this one."""
        own, held = self.tokens(layer, rank)
        time = self.attend(held)
        number = self.shape.moe_layers[layer]
        while number > 0 and number - 1 not in self.shape.moe_layers:
            time += self.dense(own, held)
            number -= 1
        time += self.product(own, self.shape.hidden, self.shape.experts, self.shape.storage.other)
        if self.pool.shared == "replicated":
            wide = self.shape.shared_experts * self.shape.moe_intermediate
            time += self.linear(own, 3 * self.shape.hidden, wide)
        return time

    def experts(self, layer: int, rank: int) -> Fraction:
        """Take the slots of the GPU one by one."""
        time = Fraction(0)
        for slot, tokens in enumerate(self.slots):
            if (self.where.slot_layer[slot], self.where.slot_gpu[slot]) == (layer, rank):
                for _ in ("gate", "up", "down"):
                    time += self.product(
                        tokens,
                        self.shape.hidden,
                        self.shape.moe_intermediate,
                        self.shape.storage.experts,
                    )
        return time

    def tail(self, rank: int) -> Fraction:
        """Walk from the last MoE layer to the next tokens."""
        own, held = self.tokens(-1, rank)
        rows = own if isinstance(self.pool, DecodePool) else ceil(own / self.pool.prompt_tokens)
        known = self.known()
        time = self.product(rows, known.vocabulary, self.shape.hidden, self.shape.storage.other)
        for number in range(self.shape.hidden_layers):
            if number > max(self.shape.moe_layers):
                time += self.dense(own, held)
        return time

    def tokens(self, layer: int, rank: int) -> tuple[int, int]:
        """Return the tokens a GPU dispatches, and those its group holds."""
        group = rank // self.pool.tp
        members = [each for each in range(self.where.gpus) if each // self.pool.tp == group]
        return self.origin[layer][rank], sum(self.origin[layer][each] for each in members)

    def dense(self, own: int, held: int) -> Fraction:
        """Return attention and a dense feed-forward."""
        width = self.known().dense_intermediate
        assert width is not None
        return self.attend(held) + self.linear(own, 3 * self.shape.hidden, width)

    def attend(self, held: int) -> Fraction:
        """Return launches, projections, cache and the exchange of a group."""
        if held == 0:
            return Fraction(0)
        weights, numbers, pair, expand = self.latent() or self.grouped()
        pool, new = self.pool, self.pool.tokens_per_request
        requests = Fraction(held, new)
        seen = sum(pool.kv_tokens + at + 1 for at in range(new))
        moved = 2 * Fraction(held * (pool.tp - 1), pool.tp) * self.shape.hidden * 2
        return (
            Fraction(self.gpu.launch_s)
            + self.linear(held, 1, weights)
            + self.longer(
                requests * (pool.kv_tokens + new) * numbers * 2,
                2 * requests * (seen * pair + pool.kv_tokens * expand),
                2.0,
            )
            + moved / Fraction(self.gpu.nvlink_Bps)
        )

    def latent(self) -> tuple[int, int, int, int] | None:
        """Return weights, cached numbers, and multiplications a pair and an expanded token."""
        at, hidden = self.known().attention, self.shape.hidden
        if not isinstance(at, LatentAttention):
            return None
        weights = hidden * ((at.q_rank or 0) + at.kv_rank + at.rope)
        pair = expand = 0
        for _ in range(at.heads // self.pool.tp):
            weights += (at.q_rank or hidden) * (at.nope + at.rope) + at.value * hidden
            weights += at.kv_rank * at.nope + at.kv_rank * at.value
            if isinstance(self.pool, DecodePool):
                pair += (at.kv_rank + at.rope) + at.kv_rank
            else:
                pair += (at.nope + at.rope) + at.value
                expand += at.kv_rank * at.nope + at.kv_rank * at.value
        return weights, at.kv_rank + at.rope, pair, expand

    def grouped(self) -> tuple[int, int, int, int]:
        """Return the same of grouped queries; a rank holds one KV head at least."""
        at, hidden = self.known().attention, self.shape.hidden
        assert isinstance(at, GroupedAttention)
        queries, keys = at.heads // self.pool.tp, max(1, ceil(at.kv_heads / self.pool.tp))
        weights = 2 * queries * hidden * at.head + 2 * keys * hidden * at.head
        return weights, 2 * keys * at.head, queries * (at.head + at.head), 0

    def linear(self, tokens: int, rows: int, columns: int) -> Fraction:
        """Return a product with weights of attention, dense layers or shared experts."""
        return self.product(tokens, rows, columns, self.shape.storage.linear)

    def product(self, tokens: int, rows: int, columns: int, weight_bytes: float) -> Fraction:
        """Return the longer of reading a matrix and multiplying whole tiles by it."""
        if tokens == 0:
            return Fraction(0)
        while tokens % self.gpu.tile_tokens:
            tokens += 1
        read = Fraction(weight_bytes) * rows * columns
        return self.longer(read, Fraction(2 * tokens * rows * columns), weight_bytes)

    def longer(self, read: Fraction, operations: Fraction, weight_bytes: float) -> Fraction:
        """Return the longer of reading bytes and of operations."""
        peak = self.gpu.flops_8bit if weight_bytes == 1.0 else self.gpu.flops_16bit
        return max(
            read / Fraction(self.gpu.memory_Bps),
            operations / (Fraction(peak) * Fraction(self.gpu.efficiency)),
        )

    def known(self) -> Architecture:
        """Return what surrounds the experts."""
        assert self.shape.architecture is not None
        return self.shape.architecture


def rows(times: StepTimes) -> NDArray[np.int64]:
    """int64 [2 layers + 1, gpus]: attention, experts, tail."""
    return np.concatenate([times.attention, times.experts, times.tail[None]])


def assert_same(times: StepTimes, expected: list[list[int]]) -> None:
    """Equal but for one nanosecond, where floats fall on the other side of a whole one."""
    assert np.abs(rows(times) - np.array(expected)).max() <= 1


def placed(shape: MoEModel, seed: int = 0) -> Placement:
    """Return a placement on 4 GPUs in servers of 2, with a replica a layer, slots anywhere."""
    slots = shape.experts + 1
    return Placement(
        model=shape.name,
        layers=shape.layers,
        experts=shape.experts,
        gpus=4,
        gpus_per_server=2,
        slot_layer=np.repeat(np.arange(shape.layers), slots),
        slot_gpu=np.random.default_rng(seed).integers(0, 4, shape.layers * slots),
        slot_expert=np.tile(np.arange(slots) % shape.experts, shape.layers),
        policy="random",
    )


LATENT = st.builds(
    LatentAttention,
    st.sampled_from([2, 4, 6]),
    st.none() | st.integers(1, 40),
    *[st.integers(1, 40)] * 4,
)
GROUPED = st.builds(
    GroupedAttention, st.sampled_from([6, 12]), st.sampled_from([1, 2, 3, 6]), st.integers(1, 40)
)
MODELS = st.builds(
    MoEModel,
    st.just("any"),
    st.just(5),
    st.sets(st.integers(0, 4), min_size=1).map(sorted).map(tuple),
    experts=st.integers(2, 5),
    top_k=st.just(1),
    shared_experts=st.integers(0, 2),
    hidden=st.integers(1, 500),
    moe_intermediate=st.integers(1, 500),
    storage=st.builds(Storage, *[st.sampled_from([0.5, 1.0, 2.0])] * 3),
    architecture=st.builds(
        Architecture, LATENT | GROUPED, st.integers(1, 10_000), st.integers(1, 500)
    ),
)
CHOICES: dict[str, Any] = {
    "tp": st.sampled_from([1, 2]),
    "shared": st.sampled_from(["replicated", "routed"]),
}
POOLS = st.builds(
    DecodePool, st.just(1), st.integers(0, 5000), drafts=st.integers(0, 3), **CHOICES
) | st.builds(PrefillPool, st.just(1), st.integers(1, 300), st.integers(0, 300), **CHOICES)
MODEL = MoEModel(
    "small",
    4,
    (1, 3),
    experts=3,
    top_k=1,
    shared_experts=1,
    hidden=300,
    moe_intermediate=200,
    storage=Storage(1.0, 1.0),
    architecture=Architecture(LatentAttention(4, 20), 1000, 600),
)


def tokens_of(
    shape: MoEModel, seed: int, most: int = 3000
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return tokens of slots and origins, half of them none."""
    rng = np.random.default_rng(seed)
    slots, origins = shape.layers * (shape.experts + 1), (shape.layers, 4)
    return (
        rng.integers(0, most, slots) * rng.integers(0, 2, slots),
        rng.integers(0, 200, origins) * rng.integers(0, 2, origins),
    )


@settings(max_examples=100, deadline=None)
@given(
    shape=MODELS,
    pool=POOLS,
    gpu=st.sampled_from([SLOW, EVEN, *GPUS.values()]),
    seed=st.integers(0, 1000),
)
def test_times_are_those_of_the_twin(shape: MoEModel, pool: Pool, gpu: GpuModel, seed: int) -> None:
    """Any model, phase, GPU and counts: the arrays say what the loops say."""
    where, (slots, origin) = placed(shape, seed), tokens_of(shape, seed)
    times = step_times(shape, where, gpu, pool=pool, slot_tokens=slots, origin_tokens=origin)
    expected = Twin(shape, where, gpu, pool, slots.tolist(), origin.tolist())
    assert_same(times, expected.all_ns())


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": DecodePool(1, 101)},
        {"pool": DecodePool(1, 100, drafts=1)},
        {"pool": DecodePool(1, 100, shared="routed")},
        {"pool": DecodePool(1, 100, tp=2)},
        {"pool": PrefillPool(1, 7, 100)},
        {"gpu": replace(SLOW, tile_tokens=5)},
        {"gpu": replace(SLOW, launch_s=1.1e-6)},
        {"gpu": replace(SLOW, flops_8bit=3e12)},
        {"gpu": replace(SLOW, memory_Bps=2e9)},
        {"shape": replace(MODEL, moe_layers=(0, 3))},
        {"shape": replace(MODEL, hidden_layers=5)},
    ],
)
def test_the_twin_tells_wrong_times(wrong: dict[str, Any]) -> None:
    """What any part decides is seen: times of other parts do not pass for the right ones."""
    right = {"shape": MODEL, "gpu": SLOW, "pool": DecodePool(1, 100)}
    where = placed(MODEL)
    slots = np.full(len(where.slot_layer), 50_001)
    origin = np.full((2, 4), 7)
    expected = Twin(where=where, slots=slots.tolist(), origin=origin.tolist(), **right).all_ns()

    def times(shape: MoEModel, gpu: GpuModel, pool: Pool) -> StepTimes:
        return step_times(shape, where, gpu, pool=pool, slot_tokens=slots, origin_tokens=origin)

    assert_same(times(**right), expected)
    with pytest.raises(AssertionError):
        assert_same(times(**{**right, **wrong}), expected)


@settings(max_examples=50, deadline=None)
@given(tokens=st.integers(0, 5000), more=st.integers(1, 500), pool=POOLS)
def test_more_tokens_take_longer_and_parts_longer_than_the_whole(
    tokens: int, more: int, pool: Pool
) -> None:
    """Times never fall with tokens, and two micro-batches never compute less than their sum."""
    where = placed(MODEL)

    def times(each: int) -> NDArray[np.int64]:
        slots, origin = np.full(len(where.slot_layer), each), np.full((2, 4), each)
        return rows(
            step_times(MODEL, where, SLOW, pool=pool, slot_tokens=slots, origin_tokens=origin)
        )

    less, rest, whole = times(tokens), times(more), times(tokens + more)
    assert (less <= whole).all()
    # Rounding up adds at most one nanosecond to the whole.
    assert (whole <= less + rest + 1).all()
