"""Published models by name."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from workloads.architecture import (
    FP8_BLOCKS,
    MXFP4_EXPERTS,
    Architecture,
    GroupedAttention,
    LatentAttention,
)
from workloads.errors import WorkloadError
from workloads.hf_config import is_config_path, read_config
from workloads.model import MoEModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workloads.architecture import Attention


def _preset(
    name: str,
    layers: tuple[int, int],
    routing: tuple[int, int, int],
    width: tuple[int, int],
    *,
    attention: Attention,
    vocabulary: int,
    dense_intermediate: int | None = None,
) -> MoEModel:
    """Return a BF16 model whose dense layers come first.

    Parameters
    ----------
    layers
        num_hidden_layers, and how many of them are dense (first_k_dense_replace).
    routing
        Experts, choices of a token, shared experts.
    width
        hidden_size and the width of an expert.
    """
    return MoEModel(
        name,
        layers[0],
        tuple(range(layers[1], layers[0])),
        *routing,
        *width,
        architecture=Architecture(attention, vocabulary, dense_intermediate),
    )


_DEEPSEEK_MOE_16B = _preset(
    "DeepSeekMoE-16B",
    (28, 1),
    (64, 6, 2),
    (2048, 1408),
    attention=GroupedAttention(16, 16, 128),
    vocabulary=102_400,
    dense_intermediate=10_944,
)
_V2_LITE = _preset(
    "DeepSeek-V2-Lite",
    (27, 1),
    (64, 6, 2),
    (2048, 1408),
    attention=LatentAttention(16, None),
    vocabulary=102_400,
    dense_intermediate=10_944,
)
_V2 = replace(
    _preset(
        "DeepSeek-V2",
        (60, 1),
        (160, 6, 2),
        (5120, 1536),
        attention=LatentAttention(128, 1536),
        vocabulary=102_400,
        dense_intermediate=12_288,
    ),
    n_group=8,
    topk_group=3,
)
_R1 = replace(
    _preset(
        "DeepSeek-R1",
        (61, 3),
        (256, 8, 1),
        (7168, 2048),
        attention=LatentAttention(128, 1536),
        vocabulary=129_280,
        dense_intermediate=18_432,
    ),
    n_group=8,
    topk_group=4,
    mtp_layers=1,
    storage=FP8_BLOCKS,
)
_KIMI_K2 = replace(
    _preset(
        "Kimi-K2",
        (61, 1),
        (384, 8, 1),
        (7168, 2048),
        attention=LatentAttention(64, 1536),
        vocabulary=163_840,
        dense_intermediate=18_432,
    ),
    storage=FP8_BLOCKS,
)
_MIXTRAL_8X7B = _preset(
    "Mixtral-8x7B",
    (32, 0),
    (8, 2, 0),
    (4096, 14_336),
    attention=GroupedAttention(32, 8, 128),
    vocabulary=32_000,
)
_MIXTRAL_8X22B = _preset(
    "Mixtral-8x22B",
    (56, 0),
    (8, 2, 0),
    (6144, 16_384),
    attention=GroupedAttention(48, 8, 128),
    vocabulary=32_000,
)
_QWEN3_30B = _preset(
    "Qwen3-30B-A3B",
    (48, 0),
    (128, 8, 0),
    (2048, 768),
    attention=GroupedAttention(32, 4, 128),
    vocabulary=151_936,
)
_QWEN3_235B = _preset(
    "Qwen3-235B-A22B",
    (94, 0),
    (128, 8, 0),
    (4096, 1536),
    attention=GroupedAttention(64, 4, 128),
    vocabulary=151_936,
)
_GPT_OSS_20B = replace(
    _preset(
        "gpt-oss-20b",
        (24, 0),
        (32, 4, 0),
        (2880, 2880),
        attention=GroupedAttention(64, 8, 64),
        vocabulary=201_088,
    ),
    storage=MXFP4_EXPERTS,
)
_GPT_OSS_120B = replace(
    _GPT_OSS_20B,
    name="gpt-oss-120b",
    hidden_layers=36,
    moe_layers=tuple(range(36)),
    experts=128,
)
_OLMOE = _preset(
    "OLMoE-1B-7B",
    (16, 0),
    (64, 8, 0),
    (2048, 1024),
    attention=GroupedAttention(16, 16, 128),
    vocabulary=50_304,
)
_GLM_45 = replace(
    _preset(
        "GLM-4.5",
        (92, 3),
        (160, 8, 1),
        (5120, 1536),
        attention=GroupedAttention(96, 8, 128),
        vocabulary=151_552,
        dense_intermediate=12_288,
    ),
    mtp_layers=1,
)

PRESETS: Mapping[str, MoEModel] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _R1,
            _V2_LITE,
            replace(_R1, name="DeepSeek-V3"),
            _DEEPSEEK_MOE_16B,
            _V2,
            _KIMI_K2,
            _MIXTRAL_8X7B,
            _MIXTRAL_8X22B,
            _QWEN3_30B,
            _QWEN3_235B,
            _GPT_OSS_20B,
            _GPT_OSS_120B,
            _OLMOE,
            _GLM_45,
        )
    }
)
"""Published models by name; shapes and number formats from their Hugging Face ``config.json``
(hidden_size, moe_intermediate_size, n_routed_experts or num_experts, quantization_config,
num_nextn_predict_layers and so on). DeepSeek-V2 and later carry latent attention."""


def model(name: str) -> MoEModel:
    """Return the preset called `name`, or the model whose ``config.json`` it is the path of.

    What ends in ``.json`` or holds a slash is a path: of the file, or of its folder.

    Raises
    ------
    WorkloadError
        No such preset; the message lists those there are. Or the file is no model's.
    """
    if name in PRESETS:
        return PRESETS[name]
    if is_config_path(name):
        return read_config(name)
    raise WorkloadError(
        f"unknown model {name!r}: expected one of {', '.join(sorted(PRESETS))}, or the path of a "
        "Hugging Face config.json (with a slash, or ending in .json)"
    )
