"""All-gather and reduce-scatter: every token to every GPU, and a partial sum from each back.

In two stages, as collective libraries use the links: across servers between GPUs of the same
index, then inside every server. A token enters every other server once, as on NCCL's rings, where
sending it straight to every GPU would take the network card's link once per GPU of the server
(8 times as many bytes) and overstate what placement could gain against it. Back, partial sums are
added up inside the server first. Either way each GPU has or gives every token exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.messages.traffic import Traffic

if TYPE_CHECKING:
    from numpy.typing import NDArray


def all_gather(
    tokens: NDArray[np.int64], gpus_per_server: int, message_bytes: int
) -> tuple[Traffic, Traffic]:
    """Send every token to all GPUs.

    Parameters
    ----------
    tokens
        int64 [layers, gpus]: tokens that start on every GPU.
    """
    out = _across(tokens, gpus_per_server, message_bytes, outward=True)
    return out, _inside(tokens, gpus_per_server, message_bytes, outward=True)


def reduce_scatter(
    tokens: NDArray[np.int64], gpus_per_server: int, message_bytes: int
) -> tuple[Traffic, Traffic]:
    """Send a partial sum of every token from all GPUs to where the token is collected.

    Parameters
    ----------
    tokens
        int64 [layers, gpus]: tokens that are collected on every GPU.
    """
    inside = _inside(tokens, gpus_per_server, message_bytes, outward=False)
    return inside, _across(tokens, gpus_per_server, message_bytes, outward=False)


def _across(tokens: NDArray[np.int64], width: int, message_bytes: int, *, outward: bool) -> Traffic:
    """Messages between GPUs of the same index; a token's own GPU is at the near end."""
    gpus = np.arange(tokens.shape[1])
    src, at = np.divmod(np.arange(len(gpus) * (len(gpus) // width)), len(gpus) // width)
    dst = at * width + src % width
    return _rows(src, dst, tokens[:, src if outward else dst], message_bytes)


def _inside(tokens: NDArray[np.int64], width: int, message_bytes: int, *, outward: bool) -> Traffic:
    """Messages inside servers; at the near end are all tokens of the GPUs of that index."""
    layers, gpus = tokens.shape
    of_index = tokens.reshape(layers, -1, width).sum(axis=1)
    src, at = np.divmod(np.arange(gpus * width), width)
    dst = src // width * width + at
    return _rows(src, dst, of_index[:, (src if outward else dst) % width], message_bytes)


def _rows(
    src: NDArray[np.int64], dst: NDArray[np.int64], count: NDArray[np.int64], message_bytes: int
) -> Traffic:
    """Turn counts [layers, pairs] into rows, without those of no message."""
    layer, pair = np.nonzero(count)
    indptr = np.searchsorted(layer, np.arange(len(count) + 1))
    return Traffic(
        indptr.astype(np.int64),
        src[pair].astype(np.int32),
        dst[pair].astype(np.int32),
        count[layer, pair],
        message_bytes,
    )
