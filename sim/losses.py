"""What a step lost to GPUs that died, and when its faults happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim.plans import Plans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sim.batch import Batch
    from sim.faults import Fault, FaultSchedule
    from sim.step import Cut, Step


@dataclass(frozen=True, slots=True, eq=False)
class LostFlows:
    """Bytes that had not left their sender when one of their ends died.

    Attributes
    ----------
    at_ns, gpu
        int64 [rows]: when, and which GPU died.
    layer, leg
        int64 [rows]: of which collective; legs of all micro-batches, one after the other.
    src, dst
        int64 [rows].
    lost_bytes
        int64 [rows], 1 or more.
    """

    at_ns: NDArray[np.int64]
    gpu: NDArray[np.int64]
    layer: NDArray[np.int64]
    leg: NDArray[np.int64]
    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    lost_bytes: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        for name in self.__slots__:
            getattr(self, name).setflags(write=False)

    def of_leg(self, leg: int) -> LostFlows:
        """Return the rows of one leg."""
        chosen = self.leg == leg
        return LostFlows(*(getattr(self, name)[chosen] for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What a step with faults lost; of a step of links alone, nothing.

    Attributes
    ----------
    faults
        That happened before the step ended.
    tokens
        Tokens that were on a GPU when it died, or would have come to it while it was dead.
    choices
        int64 [layers]: choices of the other tokens that no living replica could answer.
    experts
        int64 [lost experts, 2]: layer and expert, where one had no living replica when (a
        micro-batch of) the layer was planned.
    flows
        Of layers that were under way.
    """

    faults: tuple[Fault, ...]
    tokens: int
    choices: NDArray[np.int64]
    experts: NDArray[np.int64]
    flows: LostFlows

    def __post_init__(self) -> None:
        """Freeze the arrays."""
        self.choices.setflags(write=False)
        self.experts.setflags(write=False)

    @property
    def lost_bytes(self) -> int:
        """All bytes of layers under way that were lost."""
        return int(self.flows.lost_bytes.sum())


def losses(schedule: FaultSchedule, plans: Sequence[Plans | Batch], step: Step) -> Losses:
    """Add up what was lost.

    Parameters
    ----------
    schedule
        What was to happen.
    plans
        Of the micro-batches; a `Batch` loses no token.
    step
        What happened.
    """
    issued = step.issued()
    layers = len(issued[0])
    choices = np.zeros(layers, dtype=np.int64)
    experts: list[NDArray[np.int64]] = [np.zeros((0, 2), dtype=np.int64)]
    for layer, *batches in zip(range(layers), *issued, strict=True):
        for batch in batches:
            if len(batch.lost_choices):
                choices[layer] += batch.lost_choices[layer]
                experts.append(batch.lost_experts[batch.lost_experts[:, 0] == layer])
    return Losses(
        faults=tuple(each for each in schedule.faults if each.at_ns <= step.end_ns),
        tokens=sum(int(each.lost.sum()) for each in plans if isinstance(each, Plans)),
        choices=choices,
        experts=np.unique(np.concatenate(experts).astype(np.int64), axis=0),
        flows=_flows(issued, step.cuts),
    )


def _flows(issued: Sequence[Sequence[Batch]], cuts: Sequence[Cut]) -> LostFlows:
    """Name the flows that lost bytes."""
    legs = [(part, leg) for part in issued for leg in range(len(part[0].legs))]
    rows = [np.zeros((7, 0), dtype=np.int64)]
    for cut in cuts:
        part, leg = legs[cut.leg]
        src, dst, _ = part[cut.layer].legs[leg].traffic.layer_rows(cut.layer)
        lost = cut.lost_bytes > 0
        ends = np.stack([src[lost], dst[lost], cut.lost_bytes[lost]]).astype(np.int64)
        about = np.array([cut.at_ns, cut.gpu, cut.layer, cut.leg], dtype=np.int64)
        rows.append(np.vstack([np.broadcast_to(about[:, None], (4, ends.shape[1])), ends]))
    return LostFlows(*np.concatenate(rows, axis=1))
