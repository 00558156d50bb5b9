"""Model shapes and presets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from workloads import PRESETS, MoEModel, WorkloadError, model


@pytest.mark.parametrize(
    ("name", "first", "shape"),
    [
        ("DeepSeekMoE-16B", 1, (28, 64, 6, 2, 2048, 1408)),
        ("DeepSeek-V2-Lite", 1, (27, 64, 6, 2, 2048, 1408)),
        ("DeepSeek-V3", 3, (61, 256, 8, 1, 7168, 2048)),
        ("DeepSeek-R1", 3, (61, 256, 8, 1, 7168, 2048)),
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
    ],
)
def test_impossible_shapes_are_refused(
    tiny: MoEModel, change: dict[str, Any], expected: str
) -> None:
    """Each impossible field is refused by name."""
    with pytest.raises(WorkloadError, match=expected):
        replace(tiny, **change)
