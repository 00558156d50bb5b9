"""What a redundant slot costs: the KV cache that no longer fits beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from placement.memory import slot_bytes

if TYPE_CHECKING:
    from workloads import MoEModel


def kv_tokens(
    model: MoEModel,
    *,
    slots_per_gpu: float = 1.0,
    bytes_per_parameter: float | None = None,
    kv_bytes: int | None = None,
) -> int:
    """Whole tokens of KV cache that redundant slots in every MoE layer of a GPU displace.

    DeepSeek-R1 in FP8 without block scales, one slot a GPU: 58 x 44.04 MB = 2.55 GB = 36,349
    tokens of BF16 cache.

    Parameters
    ----------
    model
        The model.
    slots_per_gpu
        Redundant slots of a layer on a GPU, a mean over GPUs where some hold more.
    bytes_per_parameter
        Of the experts' weights; None takes the model's own, scales included.
    kv_bytes
        KV-cache bytes of a token; None takes the model's, in BF16.
    """
    size = model.layers * slots_per_gpu * slot_bytes(model, bytes_per_parameter=bytes_per_parameter)
    return int(size / (model.kv_bytes_per_token if kv_bytes is None else kv_bytes))
