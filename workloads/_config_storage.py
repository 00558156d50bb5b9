"""Number formats of a model's weights, from its ``config.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloads.architecture import Storage
from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from workloads._config_keys import ConfigKeys

_DTYPE_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0}
_KEPT = ("lm_head", "embed_tokens", "gate", "shared_expert_gate", "router", "eh_proj", "norm")
"""Ends of the names of modules that are counted unquantised, or too small to count."""


def storage_of(keys: ConfigKeys) -> Storage:
    """Return the bytes of weights, scales included.

    Without `quantization_config` all are of the file's `dtype` (`torch_dtype`; BF16 where neither
    is there). ``fp8`` has a 4-byte scale per block of `weight_block_size`, or one per matrix,
    which is not counted; ``mxfp4`` has experts in 4 bits and a 1-byte scale per 32.

    Raises
    ------
    WorkloadError
        If the weights are quantised in another way.
    """
    plain = _plain(keys)
    table = keys.table("quantization_config")
    if table is None:
        return Storage(plain, plain, plain)
    method = table.content.get("quant_method")
    if method == "mxfp4":
        return Storage(0.5 + 1 / 32, plain, plain)
    if method != "fp8":
        raise table.wrong(
            "quant_method",
            "fp8 or mxfp4, or no 'quantization_config', which counts every weight as its 'dtype' "
            "says",
        )
    _check_kept(table)
    each = _fp8(table)
    return Storage(each, each, plain)


def _plain(keys: ConfigKeys) -> float:
    name = "dtype" if keys.content.get("dtype") is not None else "torch_dtype"
    return _DTYPE_BYTES[keys.word(name, tuple(_DTYPE_BYTES), "bfloat16")]


def _fp8(table: ConfigKeys) -> float:
    if table.content.get("weight_block_size") is None:
        return 1.0
    block = table.integers("weight_block_size", least=1, most=1 << 16)
    if len(block) != 2:
        raise table.wrong("weight_block_size", "two integers, the rows and columns of a block")
    return 1 + 4 / (block[0] * block[1])


def _check_kept(table: ConfigKeys) -> None:
    """Refuse a file that keeps attention, experts or dense layers out of the quantisation."""
    for name in table.texts("modules_to_not_convert"):
        if not name.endswith(_KEPT):
            raise WorkloadError(
                f"key 'quantization_config.modules_to_not_convert' names {name!r}; expected "
                "embedding, head, routers and norms only: other weights are counted as quantised"
            )
