"""What formats of expert maps share: reading, judging and writing rows of slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from placement.engines import ENGINES, refusal
from placement.errors import PlacementError
from placement.placement import Placement
from workloads import WorkloadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from numpy.typing import NDArray

    from workloads import MoEModel

    Parse: TypeAlias = Callable[[Path, MoEModel], "SlotMap"]
    Dump: TypeAlias = Callable[["Placement", MoEModel], bytes]

MAX_MAP_BYTES = 256 << 20
"""Largest array of a map that is read, unpacked."""
MAX_RANKS = 1 << 20
"""Most GPUs that are believed."""


class MapFormat(Protocol):
    """A file format of expert maps."""

    @property
    def name(self) -> str:
        """How the command line calls it."""

    @property
    def engine(self) -> str | None:
        """Name of the engine whose own it is; None for an engine-neutral format."""

    @property
    def carries_ranks(self) -> bool:
        """Whether a file says on how many GPUs its slots are."""

    def read(
        self,
        path: str | PathLike[str],
        *,
        model: MoEModel,
        ranks: int | None = None,
        gpus_per_server: int = 8,
    ) -> Placement:
        """Read a map.

        Raises
        ------
        PlacementError
            It cannot be read, or leaves a doubt what it means; one line naming file, key, row.
        """

    def write(self, placement: Placement, *, model: MoEModel) -> bytes:
        """Return the content of a file the engine loads.

        Raises
        ------
        PlacementError
            The engine would not load the placement, or the format cannot hold it.
        """

    def check(
        self, path: str | PathLike[str], *, model: MoEModel, ranks: int | None = None
    ) -> list[str]:
        """Return why the engine would refuse the file or be led astray; empty if it would not."""


@dataclass(frozen=True, slots=True, eq=False)
class SlotMap:
    """Slots as a file lists them.

    Attributes
    ----------
    layer, expert
        int64 [slots], layer by layer in the order of the file; MoE layers from 0.
    gpu
        int64 [slots], or None where the order of a layer's slots says it: slot p of P on GPU
        ``p // (P / ranks)``.
    ranks
        GPUs, where the file says how many.
    names
        What the file calls each layer, for messages.
    findings
        Why the engine would refuse the file though it can be read.
    """

    layer: NDArray[np.int64]
    expert: NDArray[np.int64]
    gpu: NDArray[np.int64] | None
    ranks: int | None
    names: tuple[str, ...]
    findings: tuple[str, ...] = field(default=())

    @classmethod
    def of_rows(
        cls,
        rows: list[NDArray[np.int64]],
        names: list[str],
        *,
        ranks: int | None = None,
        findings: tuple[str, ...] = (),
    ) -> SlotMap:
        """Return the map of a row of expert ids per MoE layer, every row of the same length.

        Raises
        ------
        PlacementError
            Rows differ in length.
        """
        for row, name in zip(rows, names, strict=True):
            if len(row) != len(rows[0]):
                raise PlacementError(
                    f"{name}: {len(row)} slots, expected {len(rows[0])} as in {names[0]}"
                )
        return cls(
            layer=np.repeat(np.arange(len(rows)), len(rows[0])),
            expert=np.concatenate(rows),
            gpu=None,
            ranks=ranks,
            names=tuple(names),
            findings=findings,
        )


@dataclass(frozen=True, slots=True)
class SlotFormat:
    """A format that is defined by how it is parsed and how it is written.

    Attributes
    ----------
    name, engine, carries_ranks
        As of `MapFormat`.
    parse
        Returns the slots of a file; its errors come without the file's name.
    dump
        Returns the content of a file; the placement fits the model and its engine.
    """

    name: str
    engine: str | None
    parse: Parse
    dump: Dump
    carries_ranks: bool = False

    def read(
        self,
        path: str | PathLike[str],
        *,
        model: MoEModel,
        ranks: int | None = None,
        gpus_per_server: int = 8,
    ) -> Placement:
        """Read a map; see `MapFormat.read`."""
        file = Path(path)
        try:
            slots = self.parse(file, model)
            return self._placed(slots, model, ranks, gpus_per_server)
        except (PlacementError, WorkloadError) as error:
            raise PlacementError(f"{file}: {error}") from None

    def write(self, placement: Placement, *, model: MoEModel) -> bytes:
        """Return the content of a file; see `MapFormat.write`."""
        check_model(placement, model)
        why = refusal(placement, ENGINES[self.engine]) if self.engine else None
        if why is not None:
            raise PlacementError(f"{self.engine} would not load the placement: {why}")
        return self.dump(placement, model)

    def check(
        self, path: str | PathLike[str], *, model: MoEModel, ranks: int | None = None
    ) -> list[str]:
        """Return what stands against a file; see `MapFormat.check`."""
        try:
            slots = self.parse(Path(path), model)
        except (PlacementError, WorkloadError) as error:
            return [str(error)]
        found = [*slots.findings, *missing_experts(slots, model.experts)]
        try:
            gpus = _ranks(slots, ranks)
            gpu = _gpu_of_slot(slots, gpus)
        except PlacementError as error:
            return [*found, str(error)]
        if self.engine is not None:
            found += _against_rules(slots, gpu, gpus, self.engine)
        return found

    def _placed(
        self, slots: SlotMap, model: MoEModel, ranks: int | None, gpus_per_server: int
    ) -> Placement:
        missing = missing_experts(slots, model.experts)
        if missing:
            raise PlacementError(missing[0])
        gpus = _ranks(slots, ranks)
        return Placement(
            model=model.name,
            layers=model.layers,
            experts=model.experts,
            gpus=gpus,
            gpus_per_server=gpus_per_server,
            slot_layer=slots.layer.astype(np.int32),
            slot_gpu=_gpu_of_slot(slots, gpus).astype(np.int32),
            slot_expert=slots.expert.astype(np.int32),
            policy=f"{self.name} file",
        )


def check_model(placement: Placement, model: MoEModel) -> None:
    """Refuse a placement of another model.

    Raises
    ------
    PlacementError
        Name or shape differ.
    """
    have = (placement.model, placement.layers, placement.experts)
    want = (model.name, model.layers, model.experts)
    if have != want:
        raise PlacementError(
            f"the placement is of {have[0]} ({have[1]} MoE layers x {have[2]} experts), expected "
            f"{want[0]} ({want[1]} x {want[2]})"
        )


def slot_rows(placement: Placement) -> NDArray[np.int64]:
    """Return the expert of every slot, int64 [layers, slots], GPU after GPU.

    Raises
    ------
    PlacementError
        GPUs or layers differ in their number of slots.
    """
    cell = placement.slot_layer.astype(np.int64) * placement.gpus + placement.slot_gpu
    size = np.bincount(cell, minlength=placement.layers * placement.gpus)
    if (size != size[0]).any():
        layer, gpu = divmod(int(np.argmax(size != size[0])), placement.gpus)
        raise PlacementError(
            f"layer {layer}: GPU {gpu} holds {int(size[layer * placement.gpus + gpu])} slots and "
            f"GPU 0 of layer 0 {int(size[0])}; expected the same everywhere: the format lists "
            "slots in the order of GPUs"
        )
    return placement.slot_expert.astype(np.int64).reshape(placement.layers, -1)


def missing_experts(slots: SlotMap, experts: int) -> list[str]:
    """Return a line on the first layer in which experts have no slot, if there is one."""
    layers = len(slots.names)
    counted = np.bincount(slots.layer * experts + slots.expert, minlength=layers * experts)
    bare = np.argwhere(counted.reshape(layers, experts) == 0)
    if not len(bare):
        return []
    layer, expert = (int(i) for i in bare[0])
    more = f" ({len(bare)} such pairs of layer and expert in all)" if len(bare) > 1 else ""
    return [f"{slots.names[layer]}: expert {expert} has no slot, expected at least one{more}"]


def _ranks(slots: SlotMap, ranks: int | None) -> int:
    """Return the number of GPUs, as the file or the caller says."""
    if ranks is not None and not 1 <= ranks <= MAX_RANKS:
        raise PlacementError(f"{ranks} ranks, expected 1..{MAX_RANKS}")
    if slots.ranks is not None and ranks not in (None, slots.ranks):
        raise PlacementError(f"is a map of {slots.ranks} ranks, expected {ranks}")
    if slots.ranks is None and ranks is None:
        raise PlacementError("does not say on how many GPUs its slots are; give the ranks")
    return slots.ranks or ranks or 1


def _gpu_of_slot(slots: SlotMap, ranks: int) -> NDArray[np.int64]:
    if slots.gpu is not None:
        return slots.gpu
    width = len(slots.layer) // len(slots.names)
    if width % ranks:
        fewer, more = width - width % ranks, width + -width % ranks
        raise PlacementError(
            f"{slots.names[0]}: {width} slots do not divide by {ranks} ranks; {fewer} or {more} "
            "would"
        )
    return np.tile(np.arange(width) // (width // ranks), len(slots.names))


def _against_rules(slots: SlotMap, gpu: NDArray[np.int64], gpus: int, engine: str) -> list[str]:
    """Return a line for each rule of placement of an engine that a map breaks."""
    rules, layers, found = ENGINES[engine], len(slots.names), []
    cell = slots.layer * gpus + gpu
    size = np.bincount(cell, minlength=layers * gpus).reshape(layers, gpus)
    uneven = np.argwhere(size != size[0, 0])
    if rules.equal_slots and len(uneven):
        layer, rank = (int(i) for i in uneven[0])
        found.append(
            f"{slots.names[layer]}: rank {rank} holds {int(size[layer, rank])} slots and rank 0 of "
            f"{slots.names[0]} {int(size[0, 0])}; expected the same everywhere"
        )
    if not rules.duplicates:
        pair = np.stack([cell, slots.expert], axis=1)
        pairs, counts = np.unique(pair, axis=0, return_counts=True)
        twice = np.flatnonzero(counts > 1)
        if len(twice):
            at, expert = (int(i) for i in pairs[twice[0]])
            layer, rank = divmod(at, gpus)
            found.append(
                f"{slots.names[layer]}: rank {rank} holds expert {expert} twice, expected once"
                f" ({len(twice)} such cases in all)"
            )
    return found
