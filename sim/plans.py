"""Plans of a micro-batch whose GPUs die and come back: what is left of it, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.batch import Batch, PartAttention, part_trace
from sim.errors import SimulationError
from sim.messages import exchange
from sim.messages.living import dead_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement import Attention, Placement
    from sim.compute_model import ComputeModel
    from sim.faults import LostExperts
    from sim.messages import MessageSizes
    from sim.messages.rules import DispatchOptions
    from workloads import RoutingTrace

NAMED = 8
"""Experts that a message lists."""


@dataclass(frozen=True, slots=True)
class Planner:
    """What all micro-batches of a step have in common.

    Attributes
    ----------
    placement
        Slots of living and dead GPUs.
    sizes, compute
        Bytes of messages, and how long GPUs compute.
    options
        Keywords of `sim.messages.DispatchRules`.
    lost_experts
        See `sim.faults.FaultSchedule`.
    """

    placement: Placement
    sizes: MessageSizes
    compute: ComputeModel
    options: DispatchOptions
    lost_experts: LostExperts = "refuse"

    def batch(self, trace: RoutingTrace, attention: Attention, dead: tuple[int, ...] = ()) -> Batch:
        """Return what tokens send, and GPUs compute, while some GPUs are dead."""
        if not dead:
            sent = exchange(trace, self.placement, attention, sizes=self.sizes, **self.options)
            return Batch.of(self.placement, sent, self.compute.times(self.placement, sent))
        gone = dead_mask(self.placement.gpus, dead)
        kept = kept_slots(self.placement, gone)
        placement = with_slots(self.placement, kept)
        options = self.options | {"dead_gpus": dead}
        parts = options.get("parts")
        if parts is not None:
            options["parts"] = parts_of(placement, parts[:, kept])
        sent = exchange(trace, placement, attention, sizes=self.sizes, **options)
        unanswered = gone[placement.slot_gpu]
        choices = np.bincount(
            placement.slot_layer[unanswered],
            sent.slot_tokens[unanswered],
            minlength=placement.layers,
        )
        sent = replace(sent, slot_tokens=np.where(unanswered, 0, sent.slot_tokens))
        batch = Batch.of(placement, sent, self.compute.times(placement, sent))
        return replace(
            batch,
            lost_choices=choices.astype(np.int64),
            lost_experts=np.unique(
                np.stack([placement.slot_layer, placement.slot_expert])[:, unanswered], axis=1
            ).T,
        )


class Plans:
    """A micro-batch that is planned anew where GPUs have died or come back.

    Parameters
    ----------
    planner
        What it shares with others.
    trace, attention
        Its tokens.
    dead
        GPUs that are dead at the start.

    Attributes
    ----------
    lost
        bool [tokens]: those that have been lost so far.
    """

    def __init__(
        self, planner: Planner, trace: RoutingTrace, attention: Attention, dead: frozenset[int]
    ) -> None:
        self._planner, self._trace, self._attention = planner, trace, attention
        self._dead = set(dead)
        self._origin = attention.origin_gpu(trace.tokens)
        self._collector = attention.collector_gpu(trace.tokens)
        self._made: dict[tuple[tuple[int, ...], bytes], Batch] = {}
        self.lost = np.zeros(trace.tokens, dtype=np.bool_)

    def change(self, gpu: int, *, alive: bool) -> None:
        """Note that a GPU has died or come back."""
        (self._dead.discard if alive else self._dead.add)(gpu)

    def lose(self, gpu: int, first: int, opened: int) -> None:
        """Lose the tokens on a GPU that has died while layers first..opened-1 were under way.

        They start such a layer on it, or end one or the latest on it.

        Raises
        ------
        SimulationError
            If no token is left.
        """
        self.lost |= (self._origin[first:opened] == gpu).any(axis=0)
        self.lost |= (self._collector[min(first, opened - 1) : opened] == gpu).any(axis=0)
        self._refuse_empty()

    def at(self, layer: int) -> Batch:
        """Return the plan of a layer whose first dispatch is issued now, and of the next one.

        Raises
        ------
        SimulationError
            If no token is left, or an expert of the layer is lost and that is to be refused.
        """
        dead = tuple(sorted(self._dead))
        gone = dead_mask(self._planner.placement.gpus, dead)
        for ends in (self._origin, self._collector):
            self.lost |= gone[ends[layer:]].any(axis=0)
        self._refuse_empty()
        key = dead, self.lost.tobytes()
        if key not in self._made:
            self._made[key] = self._planner.batch(*self._left(), dead)
        batch = self._made[key]
        if self._planner.lost_experts == "refuse":
            _refuse_lost_experts(batch, layer, dead)
        return batch

    def _left(self) -> tuple[RoutingTrace, Attention]:
        """Return the tokens that are not lost."""
        if not self.lost.any():
            return self._trace, self._attention
        kept = np.flatnonzero(~self.lost)
        attention = PartAttention(self._attention, kept, self._trace.tokens)
        return part_trace(self._trace, kept), attention

    def _refuse_empty(self) -> None:
        if self.lost.all():
            dead = ", ".join(map(str, sorted(self._dead)))
            raise SimulationError(
                f"all {len(self.lost)} tokens of a micro-batch are lost with GPU {dead}; expected "
                "a token on another GPU"
            )


def kept_slots(placement: Placement, dead: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool [slots]: slots on living GPUs, and those of experts that have none there."""
    cell = placement.slot_layer.astype(np.int64) * placement.experts + placement.slot_expert
    living = ~dead[placement.slot_gpu]
    answered = np.bincount(cell[living], minlength=placement.layers * placement.experts)
    kept: NDArray[np.bool_] = living | (answered[cell] == 0)
    return kept


def with_slots(placement: Placement, kept: NDArray[np.bool_]) -> Placement:
    """Return a placement with some of its slots, in the same order."""
    return replace(
        placement,
        slot_layer=placement.slot_layer[kept],
        slot_gpu=placement.slot_gpu[kept],
        slot_expert=placement.slot_expert[kept],
    )


def parts_of(placement: Placement, parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [servers, slots]: parts of the slots that are left, adding up to 1 again.

    Equal where a server sent nothing to any of them.
    """
    cell = placement.slot_layer.astype(np.int64) * placement.experts + placement.slot_expert
    cells = placement.layers * placement.experts
    rows = []
    for row in parts:
        total = np.bincount(cell, row, cells)[cell]
        equal = 1 / np.bincount(cell, minlength=cells)[cell]
        rows.append(np.where(total > 0, row / np.where(total > 0, total, 1.0), equal))
    return np.array(rows)


def _refuse_lost_experts(batch: Batch, layer: int, dead: tuple[int, ...]) -> None:
    """Refuse a layer that misses experts, naming those of the layers to come as well."""
    lost = batch.lost_experts[batch.lost_experts[:, 0] >= layer]
    if not (lost[:, 0] == layer).any():
        return
    names = ", ".join(f"({at}, {expert})" for at, expert in lost[:NAMED].tolist())
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    raise SimulationError(
        f"GPU {', '.join(map(str, dead))} dead: lost experts (layer, expert) {names}{more} have no "
        "living replica; expected a placement with a replica of each on another GPU, or "
        "lost_experts = 'drop' to go on without"
    )
