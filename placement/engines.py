"""What serving engines accept, and problems whose placements they load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import InfeasibleError, PlacementError

if TYPE_CHECKING:
    from placement.placement import Placement
    from placement.problem import PlacementProblem


@dataclass(frozen=True, slots=True)
class Engine:
    """Rules of an engine's expert map.

    Attributes
    ----------
    equal_slots
        Every GPU holds the same number of slots in every layer.
    duplicates
        An expert may stand twice on a GPU (a waste, but loaded).
    source
        Where the rules come from.
    """

    name: str
    equal_slots: bool = True
    duplicates: bool = True
    source: str = ""


ENGINES = {
    rules.name: rules
    for rules in (
        Engine("sglang", source="--init-expert-location: slots divide by the EP size"),
        Engine("vllm", source="EPLB: slots in rank order, slots / ranks per rank"),
        Engine("trtllm", source="initial_global_assignments: num_slots divides by the EP size"),
        Engine(
            "ascend",
            duplicates=False,
            source="vllm-ascend: equal counts on every device; an expert twice on a device "
            "corrupts it silently",
        ),
        Engine(
            "omni",
            equal_slots=False,
            duplicates=False,
            source="omni-infer: a 0/1 matrix of ranks and experts, uneven ranks allowed",
        ),
    )
}
"""Engines by name."""


def engine(name: str) -> Engine:
    """Return the engine called `name`.

    Raises
    ------
    PlacementError
        If there is none, listing those there are.
    """
    if name not in ENGINES:
        raise PlacementError(f"unknown engine '{name}'; allowed: {', '.join(ENGINES)}")
    return ENGINES[name]


def refusal(placement: Placement, rules: Engine) -> str | None:
    """Say why an engine would not load a placement; None if it would."""
    cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    if rules.equal_slots:
        slots = np.bincount(cell, minlength=placement.layers * placement.gpus)
        slots = slots.reshape(placement.layers, placement.gpus)
        uneven = np.argwhere(slots != slots[:, :1])
        if uneven.size:
            layer, gpu = (int(i) for i in uneven[0])
            return (
                f"layer {layer}: GPU {gpu} holds {slots[layer, gpu]} slots and GPU 0 "
                f"{slots[layer, 0]}; expected the same on every GPU"
            )
        if (slots[:, 0] != slots[0, 0]).any():
            return "layers differ in their slots; expected the same number in every layer"
    if not rules.duplicates:
        pair = cell * placement.experts + placement.slot_expert
        values, counts = np.unique(pair, return_counts=True)
        if (counts > 1).any():
            at, expert = divmod(int(values[np.argmax(counts > 1)]), placement.experts)
            layer, gpu = divmod(at, placement.gpus)
            return f"layer {layer}: GPU {gpu} holds expert {expert} twice; expected once"
    return None


def accepting(placement: Placement) -> list[str]:
    """Names of the engines that would load a placement."""
    return [name for name, rules in ENGINES.items() if refusal(placement, rules) is None]


def for_engine(problem: PlacementProblem, rules: Engine) -> PlacementProblem:
    """Return the problem with an engine's rules added: one slot per expert, shared evenly.

    Equal slots on every GPU and layer mean C_layer = E / S exactly.

    Raises
    ------
    InfeasibleError
        If the experts of a layer do not divide by the GPUs; the message says how many redundant
        experts would.
    """
    if not rules.equal_slots:
        return problem
    gpus = problem.servers * problem.gpus_per_server
    if problem.experts % gpus:
        missing = -problem.experts % gpus
        raise InfeasibleError(
            f"{rules.name} needs equal slots on every GPU: {problem.experts} experts do not "
            f"divide by {gpus} GPUs; {missing} redundant experts would make it even"
        )
    slots = problem.experts // problem.servers
    return replace(problem, layer_slots=slots, server_slots=slots * problem.layers)
