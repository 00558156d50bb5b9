"""The collectives a layer is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sim.batch import Batch

DIRECTIONS = ("dispatch", "combine")


@dataclass(frozen=True, slots=True)
class Leg:
    """One of the collectives that every layer has.

    Attributes
    ----------
    micro_batch
        Whose messages.
    direction
        0 for dispatch, 1 for combine: the place in `DIRECTIONS`.
    stage
        Which stage of the direction; messages of a stage wait for those of the one before.
    message_bytes
        Size of every message.
    """

    micro_batch: int
    direction: int
    stage: int
    message_bytes: int

    @property
    def name(self) -> str:
        """Direction, and stage and micro-batch where there is more than the first."""
        parts = [DIRECTIONS[self.direction]]
        if self.stage:
            parts.append(f"stage {self.stage}")
        if self.micro_batch:
            parts.append(f"of micro-batch {self.micro_batch}")
        return " ".join(parts)


def legs_of(batches: Sequence[Batch]) -> tuple[Leg, ...]:
    """Return the legs of all micro-batches, one batch after the other, in causal order."""
    return tuple(
        Leg(number, direction, stage, traffic.message_bytes)
        for number, batch in enumerate(batches)
        for direction, stages in enumerate((batch.exchange.dispatch, batch.exchange.combine))
        for stage, traffic in enumerate(stages)
    )
