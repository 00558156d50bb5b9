"""Model shapes and presets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from workloads import PRESETS, Architecture, GroupedAttention, MoEModel, WorkloadError, model


@pytest.mark.parametrize(
    ("name", "first", "shape"),
    [
        ("DeepSeekMoE-16B", 1, (28, 64, 6, 2, 2048, 1408)),
        ("DeepSeek-V2-Lite", 1, (27, 64, 6, 2, 2048, 1408)),
        ("DeepSeek-V3", 3, (61, 256, 8, 1, 7168, 2048)),
        ("DeepSeek-R1", 3, (61, 256, 8, 1, 7168, 2048)),
        ("DeepSeek-V2", 1, (60, 160, 6, 2, 5120, 1536)),
        ("Kimi-K2", 1, (61, 384, 8, 1, 7168, 2048)),
        ("Mixtral-8x7B", 0, (32, 8, 2, 0, 4096, 14336)),
        ("Mixtral-8x22B", 0, (56, 8, 2, 0, 6144, 16384)),
        ("Qwen3-30B-A3B", 0, (48, 128, 8, 0, 2048, 768)),
        ("Qwen3-235B-A22B", 0, (94, 128, 8, 0, 4096, 1536)),
        ("gpt-oss-20b", 0, (24, 32, 4, 0, 2880, 2880)),
        ("gpt-oss-120b", 0, (36, 128, 4, 0, 2880, 2880)),
        ("OLMoE-1B-7B", 0, (16, 64, 8, 0, 2048, 1024)),
        ("GLM-4.5", 3, (92, 160, 8, 1, 5120, 1536)),
    ],
)
def test_presets_have_the_published_shape(name: str, first: int, shape: tuple[int, ...]) -> None:
    """Presets equal the models' published config.json; dense layers come first."""
    preset = model(name)
    assert preset.name == name
    assert shape == (
        preset.hidden_layers,
        preset.experts,
        preset.top_k,
        preset.shared_experts,
        preset.hidden,
        preset.moe_intermediate,
    )
    assert preset.moe_layers == tuple(range(first, preset.hidden_layers))


def test_r1_routes_through_four_of_eight_groups() -> None:
    """DeepSeek-R1 has n_group 8 and topk_group 4, and an expert of 44,040,192 parameters."""
    r1 = model("DeepSeek-R1")
    assert (r1.n_group, r1.topk_group) == (8, 4)
    # 3 matrices of 7168 x 2048.
    assert r1.parameters_per_expert == 44_040_192


def test_unknown_name_lists_the_presets() -> None:
    """An unknown model is refused in one line that names every preset."""
    with pytest.raises(WorkloadError) as caught:
        model("DeepSeek-R2")
    assert "DeepSeek-R2" in str(caught.value)
    assert all(name in str(caught.value) for name in PRESETS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"experts": 0}, "experts is 0"),
        ({"experts": 70000}, "at most 65536"),
        ({"top_k": 5}, "top_k 5 of 4 experts"),
        ({"top_k": 0}, "top_k is 0"),
        ({"shared_experts": -1}, "shared_experts is -1"),
        ({"moe_layers": ()}, "moe_layers"),
        ({"moe_layers": (1, 3)}, r"0\.\.2"),
        ({"moe_layers": (2, 1)}, "ascend"),
        ({"moe_layers": (1, 1)}, "ascend"),
        ({"n_group": 2}, "come together"),
        ({"n_group": 3, "topk_group": 1}, "does not divide"),
        ({"n_group": 2, "topk_group": 3}, r"expected 1\.\.2"),
        ({"n_group": 4, "topk_group": 1}, "too few for top_k 2"),
        ({"mtp_layers": -1}, "mtp_layers is -1"),
        (
            {"architecture": Architecture(GroupedAttention(1, 1, 8), 10)},
            "1 of 3 layers are dense; expected dense_intermediate",
        ),
    ],
)
def test_impossible_shapes_are_refused(
    tiny: MoEModel, change: dict[str, Any], expected: str
) -> None:
    """Each impossible field is refused by name."""
    with pytest.raises(WorkloadError, match=expected):
        replace(tiny, **change)
