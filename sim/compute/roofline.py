"""Times of single operations: the longer of reading and multiplying.

Activations are not counted: below 300 tokens they are small beside the weights, above it
multiplying decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workloads import LatentAttention

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sim.compute.gpu import GpuModel
    from sim.compute.pool import Pool
    from workloads.architecture import Attention

BF16_BYTES = 2
"""Bytes of a number in the KV cache, and of one of a hidden state."""


def matrix_seconds(
    gpu: GpuModel, tokens: NDArray[np.int64], parameters: int, bytes_per_parameter: float
) -> NDArray[np.float64]:
    """Return the seconds of tokens [...] through matrices of `parameters` weights.

    ``max(weight bytes / memory bandwidth, 2 parameters x tokens filled up to tiles / rate)``, the
    rate being peak x efficiency of the weights' number format; nothing where no token is.
    """
    padded = -(-tokens // gpu.tile_tokens) * gpu.tile_tokens
    read = parameters * bytes_per_parameter / gpu.memory_Bps
    multiply = padded * (2 * parameters / gpu.flops(bytes_per_parameter))
    return np.where(tokens > 0, np.maximum(read, multiply), 0.0)


def cache_seconds(
    gpu: GpuModel, tokens: NDArray[np.int64], attention: Attention, pool: Pool
) -> NDArray[np.float64]:
    """Return the seconds in which tokens [...] attend to what their requests have cached.

    A request's n tokens of a step see its c cached tokens and those of the n that come before
    them, themselves included: n c + n (n + 1) / 2 pairs, quadratic in prompts. Reading takes
    c + n tokens of cache a request, once for its n tokens. Without windows: every layer sees all.

    Parameters
    ----------
    gpu
        Multiplies in BF16.
    tokens
        Held by the rank; n of every request.
    attention
        Its heads are divided by `pool.tp`.
    pool
        Says c and n.
    """
    new, cached = pool.tokens_per_request, pool.kv_tokens
    read = (cached + new) * attention.cached_numbers(pool.tp) * BF16_BYTES / gpu.memory_Bps
    products = new * (cached + (new + 1) / 2) * pair_products(attention, pool)
    products += cached * expansion_products(attention, pool)
    multiply = 2 * products / gpu.flops(BF16_BYTES)
    return tokens.astype(np.float64) / new * max(read, multiply)


def pair_products(attention: Attention, pool: Pool) -> int:
    """Multiplications of a rank and layer for a token and a token it sees: scores and values.

    Latent attention decodes on the cached vectors themselves, its projections absorbed (kv_rank +
    rope for the score, kv_rank for the value of every head: DeepSeek-V2, arXiv 2405.04434, 2.1.2);
    prompts are expanded to full heads first.
    """
    heads = attention.heads // pool.tp
    if not isinstance(attention, LatentAttention):
        return heads * 2 * attention.head
    if pool.phase == "decode":
        return heads * (2 * attention.kv_rank + attention.rope)
    return heads * (attention.nope + attention.rope + attention.value)


def expansion_products(attention: Attention, pool: Pool) -> int:
    """Multiplications to expand a cached token to full heads: in prefill of latent attention.

    Those of the step's own tokens are among the projections.
    """
    if not isinstance(attention, LatentAttention) or pool.phase == "decode":
        return 0
    return attention.heads // pool.tp * attention.kv_rank * (attention.nope + attention.value)


def gather_seconds(
    gpu: GpuModel, tokens: NDArray[np.int64], hidden: int, tp: int
) -> NDArray[np.float64]:
    """Return the seconds to bring tokens [...] to all of `tp` ranks, and their sums back.

    All-gather before, reduce-scatter after attention, in BF16 over NVLink: (tp - 1) / tp of the
    group's tokens each.
    """
    a_token = 2 * (tp - 1) / tp * hidden * BF16_BYTES / gpu.nvlink_Bps
    return a_token * tokens.astype(np.float64)
