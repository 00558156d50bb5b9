"""Which expert sits in which slot of which GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from placement.errors import PlacementError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from placement.solve import SolveReport


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """A map from slots to experts; one entry per slot, ordered by (layer, GPU, position).

    Attributes
    ----------
    model
        Name of the model it places.
    layers, experts, gpus, gpus_per_server
        Shape; GPU ``g`` is in server ``g // gpus_per_server``.
    slot_layer, slot_gpu, slot_expert
        int32 [slots].
    policy
        Name of the policy that made it.
    solve
        What the policy says of its own answer, or None.
    """

    model: str
    layers: int
    experts: int
    gpus: int
    gpus_per_server: int
    slot_layer: NDArray[np.int32]
    slot_gpu: NDArray[np.int32]
    slot_expert: NDArray[np.int32]
    policy: str
    solve: SolveReport | None = field(default=None)

    def __post_init__(self) -> None:
        """Order the slots, freeze the arrays and refuse what is no placement."""
        if self.gpus_per_server < 1 or self.gpus % self.gpus_per_server:
            raise PlacementError(
                f"gpus_per_server {self.gpus_per_server} must divide the {self.gpus} GPUs"
            )
        slots = [
            np.ascontiguousarray(a, dtype=np.int32)
            for a in (self.slot_layer, self.slot_gpu, self.slot_expert)
        ]
        layer, gpu, expert = slots
        if not len(layer) == len(gpu) == len(expert):
            raise PlacementError("slot_layer, slot_gpu and slot_expert differ in length")
        for what, values, limit in (
            ("layer", layer, self.layers),
            ("GPU", gpu, self.gpus),
            ("expert", expert, self.experts),
        ):
            outside = np.flatnonzero((values < 0) | (values >= limit))
            if outside.size:
                raise PlacementError(
                    f"slot {outside[0]}: {what} {values[outside[0]]} is outside 0..{limit - 1}"
                )
        order = np.lexsort((gpu, layer))
        for name, values in zip(
            ("slot_layer", "slot_gpu", "slot_expert"), (layer, gpu, expert), strict=True
        ):
            ordered = values[order]
            ordered.setflags(write=False)
            object.__setattr__(self, name, ordered)
        replicas = self.replicas
        missing = np.argwhere(replicas == 0)
        if missing.size:
            layer_, expert_ = missing[0]
            raise PlacementError(f"layer {layer_}: expert {expert_} has no slot")

    @property
    def servers(self) -> int:
        """Servers in the cluster."""
        return self.gpus // self.gpus_per_server

    @property
    def replicas(self) -> NDArray[np.int64]:
        """int64 [layers, experts]: slots of every expert."""
        flat = self.slot_layer.astype(np.int64) * self.experts + self.slot_expert
        return np.bincount(flat, minlength=self.layers * self.experts).reshape(
            self.layers, self.experts
        )

    @property
    def redundant(self) -> int:
        """Slots beyond one per expert, over all layers."""
        return len(self.slot_layer) - self.layers * self.experts

    @property
    def gpu_of_expert(self) -> NDArray[np.int32]:
        """int32 [layers, experts]: the GPU of every expert; refused where experts have replicas."""
        if self.redundant:
            raise PlacementError("gpu_of_expert needs one slot per expert; this placement has more")
        gpu = np.empty((self.layers, self.experts), dtype=np.int32)
        gpu[self.slot_layer, self.slot_expert] = self.slot_gpu
        return gpu

    @property
    def server_of_expert(self) -> NDArray[np.int32]:
        """int32 [layers, experts]: the server of every expert."""
        return self.gpu_of_expert // np.int32(self.gpus_per_server)

    def __eq__(self, other: object) -> bool:
        """Equal when the same experts sit in the same slots, whoever placed them."""
        if not isinstance(other, Placement):
            return NotImplemented
        shape = ("model", "layers", "experts", "gpus", "gpus_per_server")
        return all(getattr(self, a) == getattr(other, a) for a in shape) and all(
            np.array_equal(getattr(self, a), getattr(other, a))
            for a in ("slot_layer", "slot_gpu", "slot_expert")
        )

    __hash__ = None  # type: ignore[assignment]
