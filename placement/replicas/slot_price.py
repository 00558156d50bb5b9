"""What a redundant slot costs: weight bytes, and the KV cache that no longer fits beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workloads import MoEModel


def slot_bytes(model: MoEModel, *, bytes_per_parameter: float = 1.0) -> int:
    """Weight bytes of one expert slot in one layer.

    Gate, up and down projection: ``3 * hidden * moe_intermediate`` parameters. DeepSeek-R1 in
    FP8, block scales left out: 44,040,192 bytes, the published 44.04 MB.

    Parameters
    ----------
    model
        The model.
    bytes_per_parameter
        1 for FP8, 2 for BF16.
    """
    return round(model.parameters_per_expert * bytes_per_parameter)


def mla_kv_bytes(
    hidden_layers: int, *, latent: int = 512, rope: int = 64, bytes_per_number: int = 2
) -> int:
    """KV-cache bytes of a token under multi-head latent attention.

    A latent vector and a rotary key per layer; sizes from DeepSeek-V3's ``config.json``
    (kv_lora_rank, qk_rope_head_dim). 61 layers in BF16: 70,272 bytes.
    """
    return hidden_layers * (latent + rope) * bytes_per_number


def kv_tokens(
    model: MoEModel,
    *,
    slots_per_gpu: float = 1.0,
    bytes_per_parameter: float = 1.0,
    kv_bytes: int | None = None,
) -> int:
    """Whole tokens of KV cache that redundant slots in every MoE layer of a GPU displace.

    DeepSeek-R1 in FP8, one slot a GPU: 58 x 44.04 MB = 2.55 GB = 36,349 tokens of BF16 MLA cache.

    Parameters
    ----------
    model
        The model.
    slots_per_gpu
        Redundant slots of a layer on a GPU, a mean over GPUs where some hold more.
    bytes_per_parameter
        Of the experts' weights.
    kv_bytes
        KV-cache bytes of a token; by default those of MLA (`mla_kv_bytes`).
    """
    size = model.layers * slots_per_gpu * slot_bytes(model, bytes_per_parameter=bytes_per_parameter)
    return int(size / (kv_bytes or mla_kv_bytes(model.hidden_layers)))
