"""What surrounds the experts: parameters and cache, against published totals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from workloads import (
    PRESETS,
    Architecture,
    GroupedAttention,
    LatentAttention,
    Storage,
    SyntheticWorkload,
    WorkloadError,
    model,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from workloads import MoEModel

TOTALS = {
    # Parameters of the published checkpoints, norms and biases included (safetensors metadata),
    # gpt-oss: arXiv 2508.10925, table 1.
    "DeepSeek-R1": 671_026_419_200,
    "DeepSeek-V3": 671_026_419_200,
    "DeepSeek-V2": 235_741_434_880,
    "DeepSeek-V2-Lite": 15_706_484_224,
    "DeepSeekMoE-16B": 16_375_728_128,
    "Mixtral-8x7B": 46_702_792_704,
    "Mixtral-8x22B": 140_620_634_112,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen3-235B-A22B": 235_093_634_560,
    "OLMoE-1B-7B": 6_919_161_856,
    "gpt-oss-20b": 20_910_000_000,
    "gpt-oss-120b": 116_830_000_000,
}


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_totals_are_the_published_ones(name: str) -> None:
    """Weight matrices alone come within 0.05 % below the checkpoint, which has norms and biases."""
    preset = model(name)
    assert TOTALS[name] * 0.9995 < preset.parameters <= TOTALS[name] * 1.00001


def test_a_wrong_dimension_would_show() -> None:
    """A head width off by a half moves the total of R1 beyond the tolerance: the check can fail."""
    wrong = Architecture(LatentAttention(128, 1536, value=64), 129_280, 18_432)
    assert replace(model("DeepSeek-R1"), architecture=wrong).parameters < 671_026_419_200 * 0.9995


@pytest.mark.parametrize(("name", "billions"), [("Kimi-K2", 1000), ("GLM-4.5", 355)])
def test_rounded_totals(name: str, billions: int) -> None:
    """Where only a round figure is published (1 T, 355 B), it is met within 3 %."""
    assert model(name).parameters == pytest.approx(billions * 1e9, rel=0.03)


def test_r1_by_part() -> None:
    """671.0 B parameters; every part by hand from config.json."""
    r1 = model("DeepSeek-R1")
    parts = r1.resident_parameters()
    # q_a, q_b, kv_a, kv_b, o of 128 heads.
    layer = (
        7168 * 1536
        + 1536 * 128 * (128 + 64)
        + 7168 * (512 + 64)
        + 512 * 128 * (128 + 128)
        + 128 * 128 * 7168
    )
    assert parts.attention == 61 * layer == 61 * 187_105_280
    assert parts.dense == 3 * 3 * 7168 * 18_432
    assert parts.shared_experts == 58 * 44_040_192
    assert parts.routers == 58 * 7168 * 256
    assert parts.embeddings == 2 * 129_280 * 7168
    assert parts.total == r1.parameters - 58 * 256 * 44_040_192
    assert round(r1.parameters / 1e9, 1) == 671.0


def test_mtp_layer_of_r1() -> None:
    """One MTP layer: 256 experts, a shared one, attention, router and a 14336 x 7168 matrix.

    DeepSeek-V3's README_WEIGHTS says 11.5 B parameters beside embedding and head; the checkpoint
    of 684.53 B holds 671.03 + 11.61 + 2 x 0.93 (its copies of both) and the scales.
    """
    r1 = model("DeepSeek-R1")
    by_hand = 257 * 44_040_192 + 187_105_280 + 7168 * 256 + 14_336 * 7168
    assert r1.mtp_parameters == by_hand
    assert by_hand == pytest.approx(11.5e9, rel=0.01)
    assert replace(r1, mtp_layers=0).mtp_parameters == 0


def test_cache_of_a_token() -> None:
    """R1: 61 x (512 + 64) numbers in BF16 are 70,272 bytes (FACTS section 3); GQA by hand."""
    r1, mixtral = model("DeepSeek-R1"), model("Mixtral-8x7B")
    assert r1.kv_bytes_per_token == 70_272
    # The MTP layer caches its own latent vector; no number of ranks divides one.
    assert r1.cached_numbers(tp=8, mtp=True) == 62 * 576
    # Keys and values of 8 heads of 128, in 32 layers and BF16.
    assert mixtral.kv_bytes_per_token == 32 * 2 * 8 * 128 * 2
    # Two ranks hold 4 KV heads each; of 16, each holds one.
    assert mixtral.cached_numbers(tp=2) == 32 * 2 * 4 * 128
    assert mixtral.cached_numbers(tp=16) == 32 * 2 * 1 * 128


def test_ranks_share_the_heads() -> None:
    """Tensor parallelism divides what belongs to heads and leaves latent projections whole."""
    latent, grouped = LatentAttention(128, 1536), GroupedAttention(32, 8, 128)
    whole = 7168 * (1536 + 512 + 64)
    assert latent.parameters(7168, 8) == whole + (187_105_280 - whole) // 8
    # Query and output of 4 heads, key and value of one: 4096 x 128 each.
    assert grouped.parameters(4096, 8) == 4096 * 128 * (4 + 4 + 1 + 1)
    without = LatentAttention(16, None)
    assert without.parameters(2048) == (
        2048 * 16 * 192 + 2048 * 576 + 512 * 16 * 256 + 16 * 128 * 2048
    )


def test_number_formats() -> None:
    """FP8 carries a 4-byte scale per 128 x 128 block, MXFP4 a byte per 32 numbers."""
    assert model("DeepSeek-R1").bytes_per_parameter == 1 + 4 / 16_384
    assert model("gpt-oss-120b").bytes_per_parameter * 8 == 4.25
    assert model("DeepSeek-V2-Lite").bytes_per_parameter == 2.0


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: LatentAttention(0, None), "heads is 0, expected at least 1"),
        (lambda: LatentAttention(4, 0), "q_rank is 0"),
        (lambda: GroupedAttention(4, 3, 8), "4 heads do not divide by 3 KV heads"),
        (lambda: GroupedAttention(4, 2, 0), "head is 0"),
        (lambda: Architecture(GroupedAttention(1, 1, 1), 0), "vocabulary is 0"),
        (lambda: Architecture(GroupedAttention(1, 1, 1), 1, 0), "dense_intermediate is 0"),
        (lambda: Storage(float("nan"), 1.0), "experts is nan, expected a finite number above 0"),
        (lambda: Storage(1.0, 0.0), "linear is 0.0"),
        (lambda: GroupedAttention(4, 4, 8).parameters(8, 3), "tp 3 does not divide 4 heads"),
        (lambda: LatentAttention(4, 8).cached_numbers(0), "tp 0 does not divide 4 heads"),
    ],
)
def test_impossible_architectures(make: Callable[[], object], expected: str) -> None:
    """Each is refused in one line that names the field."""
    with pytest.raises(WorkloadError, match=expected) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_bare_shape_says_nothing_of_memory(tiny: MoEModel) -> None:
    """Without an architecture, memory figures are refused rather than guessed."""
    with pytest.raises(WorkloadError, match="'tiny' does not say what surrounds its experts"):
        _ = tiny.kv_bytes_per_token


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_makes_a_synthetic_workload(name: str) -> None:
    """Synthetic loads and traces exist for every preset, whatever its experts and choices."""
    preset = model(name)
    one_layer = replace(preset, hidden_layers=1, moe_layers=(0,))
    trace = SyntheticWorkload(one_layer, 0).trace(64)
    assert trace.topk.shape == (64, 1, preset.top_k)
