"""Maps of experts from files, placement files or engines', and how an engine takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from placement import read_placement
from placement.formats import guess_map, map_format
from workloads.readers.peek import peek

if TYPE_CHECKING:
    from os import PathLike

    from experiments.run import Setting
    from placement import Placement
    from placement.formats import MapFormat

FILES = (".json", ".jsonl", ".npy", ".npz", ".yaml", ".yml")
"""Ends of names of files that hold maps, which may stand for a policy."""

PROPOSAL = "vllm-proposal-"
"""How names of formats begin that are proposed to vLLM, and not part of it."""


def read_map(path: str | PathLike[str], setting: Setting) -> Placement:
    """Read a placement file, or an engine's map of the setting's model on its cluster.

    Raises
    ------
    PlacementError
        It is neither; the message names the file.
    """
    form, problem = guess_map(peek(path), setting.model), setting.problem
    if form in (None, "topomoe"):
        return read_placement(path)
    return map_format(form).read(
        path,
        model=setting.model,
        ranks=problem.servers * problem.gpus_per_server,
        gpus_per_server=problem.gpus_per_server,
    )


def how_to_load(
    form: MapFormat, path: str | PathLike[str], placement: Placement, *, rule: str = ""
) -> str:
    """Say how the engine of a format is made to load a file; empty where that is not known.

    Parameters
    ----------
    form, path
        The format, and the file that is written in it.
    placement
        What is in the file.
    rule
        The replica rule that figures are under.
    """
    redundant = placement.redundant // placement.layers
    if form.name == "sglang":
        algorithm = "dynamic" if rule == "sglang_dynamic" else "static"
        extra = f" --ep-num-redundant-experts {redundant}" if redundant else ""
        return (
            f"start SGLang with --init-expert-location {path} --ep-size {placement.gpus}{extra} "
            f"--ep-dispatch-algorithm {algorithm}, and without --enable-eplb, which would replace "
            "the map"
        )
    if form.name == "trtllm":
        return (
            f"name {path} as load_balancer under moe_config in TensorRT-LLM's options, with an EP "
            f"size of {placement.gpus}; layer_updates_per_iter 0 keeps the map as it is"
        )
    if form.name.startswith(PROPOSAL):
        return "this format is a proposal to vLLM: see that your version takes it"
    return ""


def doubled_slots(placement: Placement) -> int:
    """Count slots whose expert stands on the same GPU already: loaded, but wasted."""
    cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    pairs = cell * placement.experts + placement.slot_expert
    return len(pairs) - len(np.unique(pairs))
