"""Formats of expert maps by name, and by what is in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from placement.errors import PlacementError
from placement.formats.ascend import ASCEND
from placement.formats.eplb import EPLB, EPLB_JSON
from placement.formats.omni import OMNI
from placement.formats.own import TOPOMOE
from placement.formats.sglang import SGLANG
from placement.formats.trtllm import TRTLLM
from placement.formats.vllm import VLLM_MAPPING, VLLM_P2L, VLLM_RANKS

if TYPE_CHECKING:
    from placement.formats.base import MapFormat
    from workloads import MoEModel
    from workloads.readers.peek import Peek

MAP_FORMATS: dict[str, MapFormat] = {
    form.name: form
    for form in (
        TOPOMOE,
        SGLANG,
        TRTLLM,
        VLLM_P2L,
        VLLM_MAPPING,
        VLLM_RANKS,
        ASCEND,
        OMNI,
        EPLB,
        EPLB_JSON,
    )
}
"""Formats by name."""

_KEYS = {
    "experts_on_gpu": "topomoe",
    "physical_to_logical_map": "sglang",
    "eplb_initial_mapping": "vllm-proposal-mapping",
    "initial_global_assignments": "trtllm",
    "layer_list": "ascend",
    "expert_to_ep_rank": "vllm-proposal-ranks",
    "phy2log": "eplb",
}
"""The key (or type of record) that tells a format."""


def map_format(name: str) -> MapFormat:
    """Return the format called `name`.

    Raises
    ------
    PlacementError
        If there is none, listing those there are.
    """
    if name not in MAP_FORMATS:
        raise PlacementError(f"unknown format '{name}' of maps; allowed: {', '.join(MAP_FORMATS)}")
    return MAP_FORMATS[name]


def guess_map(seen: Peek, model: MoEModel) -> str | None:
    """Name the format of a file that holds a map; None where it seems to hold none."""
    for key, name in _KEYS.items():
        if key in seen.keys:
            return name
    if seen.header is None:
        return None
    shape, kind = seen.header.shape, seen.header.dtype.kind
    if len(shape) == 3 and kind in "iub" and shape[2] == model.experts:
        return "omni"
    return "vllm-p2l" if len(shape) == 2 and kind in "iu" else None
